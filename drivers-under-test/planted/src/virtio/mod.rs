//! Drivers of a virtio disk: what they share, which is without a known defect.

use self::ring::{Ring, SIZE, Used};
use self::spec::common;
use self::structure::{Location, of_kind};
use alloc::vec::Vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, Deadline, DriverHost, InterruptKind, Iova, Mmio, Vector, Wake, Width};
use core::time::Duration;

pub(crate) mod assumed_vector;
pub(crate) mod capability_loop;
pub(crate) mod capability_overflow;
pub(crate) mod capacity_allocation;
pub(crate) mod chain_circle;
pub(crate) mod config_generation;
mod disk;
pub(crate) mod double_fetch;
pub(crate) mod fabricated_data;
pub(crate) mod free_list_in_ring;
pub(crate) mod identify_length;
pub(crate) mod identify_scan;
pub(crate) mod length_underflow;
pub(crate) mod queue_size;
pub(crate) mod retry_direction;
mod ring;
pub(crate) mod ring_wrap;
mod spec;
pub(crate) mod stale_descriptor;
mod structure;
pub(crate) mod unmap_by_length;
pub(crate) mod used_id_index;
pub(crate) mod used_length;
pub(crate) mod zero_capacity;

/// The queue's vector, where the device has one for it; vector 0 then tells of the configuration.
const QUEUE_VECTOR: Vector = Vector(1);
/// How long a reset may take.
const RESET_LIMIT: Duration = Duration::from_millis(5);

/// The device's structures and the host they came from.
pub(crate) struct Virtio<H: DriverHost> {
    mmio: H::Mmio,
    /// Offsets of the structures in the BAR: all are in one.
    common: u32,
    notify: u32,
    isr: u32,
    device: u32,
    vector: Vector,
    host: H,
}

impl<H: DriverHost> Virtio<H> {
    /// A device that was reset and accepted our features, without the bus.
    fn open(mut host: H) -> Result<Self, DriverError> {
        let found = structure::locations(&mut host)?;
        Self::at(host, &found)
    }

    /// The same, with the structures at those places.
    fn at(mut host: H, found: &[Location]) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != spec::PCI_ID {
            return Err(DriverError::Unsupported("not a modern virtio disk"));
        }
        host.set_bus_master(false)?;
        let places: Vec<Location> = (1..=4)
            .map(|kind| of_kind(found, kind))
            .collect::<Result<_, _>>()?;
        let bar: Bar = places[0].bar;
        let mmio = host.map_bar(bar)?;
        for place in &places {
            let end = u64::from(place.offset) + 0x40;
            if place.bar != bar || end > mmio.len() || place.offset % 4 != 0 {
                return Err(DriverError::Unsupported("a structure lies elsewhere"));
            }
        }
        let mut virtio = Self {
            mmio,
            common: places[0].offset,
            notify: places[1].offset,
            isr: places[2].offset,
            device: places[3].offset,
            vector: Vector(0),
            host,
        };
        virtio.reset()?;
        virtio.negotiate()?;
        Ok(virtio)
    }

    fn reset(&mut self) -> Result<(), DriverError> {
        let until = Deadline::after(self.host.now(), RESET_LIMIT);
        self.set_status(0);
        while self.mmio.read8(self.common + common::DEVICE_STATUS) != 0 {
            if until.passed(self.host.now()) {
                return Err(DriverError::TimedOut("the reset"));
            }
            self.host.relax()?;
        }
        Ok(())
    }

    /// Takes version 1 and nothing else.
    fn negotiate(&mut self) -> Result<(), DriverError> {
        self.set_status(spec::DRIVER);
        for (half, features) in [(0, 0), (1, 1)] {
            self.write32(common::DRIVER_FEATURE_SELECT, half);
            self.write32(common::DRIVER_FEATURE, features);
        }
        self.set_status(spec::DRIVER | spec::FEATURES_OK);
        if self.mmio.read8(self.common + common::DEVICE_STATUS) & spec::FEATURES_OK == 0 {
            return Err(DriverError::Unsupported("the device refuses our features"));
        }
        Ok(())
    }

    fn set_status(&self, status: u8) {
        self.mmio
            .write8(self.common + common::DEVICE_STATUS, status);
    }

    fn write32(&self, at: u32, value: u32) {
        self.mmio.write32(self.common + at, value);
    }

    fn write16(&self, at: u32, value: u16) {
        self.mmio.write16(self.common + at, value);
    }

    /// Gives the device its interrupts; the queue has the last vector of two.
    fn enable_interrupts(&mut self) -> Result<(), DriverError> {
        let given = self.host.enable_interrupts(2)?;
        let two = given.kind == InterruptKind::Msix && given.count > QUEUE_VECTOR.0;
        self.vector = Vector(u16::from(two));
        Ok(())
    }

    /// Tells the device where the queue is, and gives it the bus.
    fn start(&mut self, size: u16, areas: [Iova; 3]) -> Result<(), DriverError> {
        self.write16(common::QUEUE_SELECT, 0);
        if self.mmio.read16(self.common + common::QUEUE_SIZE) < size {
            return Err(DriverError::Unsupported("the queue is too short"));
        }
        self.write16(common::QUEUE_SIZE, size);
        self.write16(common::QUEUE_MSIX_VECTOR, self.vector.0);
        let registers = [
            common::QUEUE_DESC,
            common::QUEUE_DRIVER,
            common::QUEUE_DEVICE,
        ];
        for (register, area) in registers.into_iter().zip(areas) {
            let [a, b, c, d, e, f, g, h] = area.0.to_le_bytes();
            self.write32(register, u32::from_le_bytes([a, b, c, d]));
            self.write32(register + 4, u32::from_le_bytes([e, f, g, h]));
        }
        self.host.set_bus_master(true)?;
        self.write16(common::QUEUE_ENABLE, 1);
        self.set_status(spec::DRIVER | spec::FEATURES_OK | spec::DRIVER_OK);
        Ok(())
    }

    fn notify(&self) {
        self.mmio.write16(self.notify, 0);
    }

    /// Reads and clears the interrupt status.
    fn acknowledge(&self) -> u8 {
        self.mmio.read8(self.isr)
    }

    /// Waits for the queue's interrupt; whether one came before the deadline.
    fn interrupt(&mut self, until: Deadline) -> Result<bool, DriverError> {
        if until.passed(self.host.now()) {
            return Ok(false);
        }
        let wake = self.host.wait_any(&[self.vector], until)?;
        self.acknowledge();
        Ok(wake != Wake::TimedOut)
    }

    /// Waits for the next element of the used ring.
    fn used(&mut self, ring: &mut Ring<H::Dma>, until: Deadline) -> Result<Used, DriverError> {
        loop {
            if let Some(used) = ring.take() {
                return Ok(used);
            }
            if !self.interrupt(until)? {
                return ring.take().ok_or(DriverError::TimedOut("a request"));
            }
        }
    }

    /// The device configuration's 64-bit capacity, in sectors.
    fn capacity(&self) -> u64 {
        let low = self.mmio.read32(self.device);
        let high = self.mmio.read32(self.device + 4);
        u64::from(low) | u64::from(high) << 32
    }

    /// Takes the bus away, then resets the device.
    fn stop(&mut self) {
        // A host that cannot do this has stopped, and its device with it.
        let _ = self.host.set_bus_master(false);
        self.set_status(0);
    }
}
