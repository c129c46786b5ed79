//! The GPU driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_virtio::{GpuConfig, VirtioGpu};
use virtio_drivers::device::gpu::VirtIOGpu;
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.7.4).
const CONFIG: usize = 16;

/// Bytes of a cursor.
const CURSOR: usize = 64 * 64 * 4;

const WIDTH: Argument = Argument {
    name: "width",
    least: 1,
    most: 64,
};

const HEIGHT: Argument = Argument {
    name: "height",
    least: 1,
    most: 32,
};

const CALLS: &[CallSpec] = &[
    call("resolution", &[]),
    call("preferred-resolution", &[]),
    call("supported-resolutions", &[]),
    call("setup-framebuffer", &[]),
    call("change-resolution", &[WIDTH, HEIGHT]),
    call("flush", &[]),
    call("setup-cursor", &[]),
    call("move-cursor", &[WIDTH, HEIGHT]),
    call("ack-interrupt", &[]),
];

/// The target.
pub static GPU: Gpu = Gpu;

/// `VirtIOGpu`, and a small display.
pub struct Gpu;

impl Target for Gpu {
    fn name(&self) -> &'static str {
        "virtio-gpu"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioGpu::new(GpuConfig {
            width: 32,
            height: 16,
            latency: Duration::ZERO,
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::GPU,
            CONFIG,
        ))
    }

    /// Every command waits for its response.
    fn blocks(&self) -> bool {
        true
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Gpu {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let gpu = VirtIOGpu::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running { gpu }))
    }
}

struct Running<T: Transport> {
    gpu: VirtIOGpu<FuzzHal, T>,
}

impl<T: Transport> Driver for Running<T> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the arguments are at most 64"
    )]
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let gpu = &mut self.gpu;
        let (x, y) = (call.argument(0) as u32, call.argument(1) as u32);
        let done = match call.name() {
            "resolution" => gpu.resolution().map(|_| ()),
            "preferred-resolution" => gpu.edid_preferred_resolution().map(|_| ()),
            "supported-resolutions" => gpu.edid_supported_resolutions().map(|_| ()),
            "setup-framebuffer" => gpu.setup_framebuffer().map(|pixels| pixels.fill(0x5a)),
            "change-resolution" => gpu.change_resolution(x, y).map(|pixels| {
                let bytes = x as usize * y as usize * 4;
                witness.promise("a frame buffer holds its pixels", pixels.len() >= bytes);
                pixels.fill(0x5a);
            }),
            "flush" => gpu.flush(),
            "setup-cursor" => gpu.setup_cursor(&[7; CURSOR], x, y, 0, 0),
            "move-cursor" => gpu.move_cursor(x, y),
            _ => {
                gpu.ack_interrupt();
                Ok(())
            }
        };
        done.map_err(Refused::because)
    }
}
