//! The GPU driver: the crate's `VirtIOGpu`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::device::gpu::VirtIOGpu;
use virtio_drivers::transport::DeviceType;

/// Bytes of a cursor: 64 by 64 pixels.
pub const CURSOR_BYTES: usize = 64 * 64 * 4;

/// The crate's pages for a command and its response, and a table of descriptors.
const CLASS: Class = Class {
    kind: DeviceType::GPU,
    other: "PCI ID is not 1af4:1050",
    arena: 3 * PAGE_SIZE,
    buffers: 3,
    waits: &[0, 1],
};

type Crate<H> = VirtIOGpu<SeamHal, SeamTransport<H>>;

/// The driver of one virtio GPU.
pub struct VirtioGpu<H: RawDma + 'static> {
    gpu: Instance<H, Crate<H>>,
}

/// All errors but those of the probe: [`Io`](DriverError::Io) for a command that the device refuses,
/// [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the protocol.
impl<H: RawDma + 'static> VirtioGpu<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            gpu: Instance::probe(host, CLASS, start)?,
        })
    }

    /// Pixels in a line of the display, and lines.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn resolution(&mut self, until: Deadline) -> Result<(u32, u32), DriverError> {
        self.gpu.ask(until, VirtIOGpu::resolution)
    }

    /// The same, as the display's EDID has it.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn preferred_resolution(&mut self, until: Deadline) -> Result<(u32, u32), DriverError> {
        self.gpu.ask(until, VirtIOGpu::edid_preferred_resolution)
    }

    /// Makes a frame buffer as large as the display, lets `draw` fill it, and shows it.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn show(
        &mut self,
        draw: impl FnOnce(&mut [u8]),
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.gpu.ask(until, |gpu| {
            draw(gpu.setup_framebuffer()?);
            gpu.flush()
        })
    }

    /// Gives the cursor a shape, of [`CURSOR_BYTES`], and a place.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn set_cursor(
        &mut self,
        image: &[u8],
        x: u32,
        y: u32,
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.gpu
            .ask(until, |gpu| gpu.setup_cursor(image, x, y, 0, 0))
    }

    /// Moves the cursor.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn move_cursor(&mut self, x: u32, y: u32, until: Deadline) -> Result<(), DriverError> {
        self.gpu.ask(until, |gpu| gpu.move_cursor(x, y))
    }
}
