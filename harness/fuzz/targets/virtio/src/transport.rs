//! The crate's transport, over the registers of a modern PCI device where our models have them.
//!
//! Finding the structures is left out here: the crate's own PCI transport is another target.

use cofferdam_seam::{Bar, Width};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The BAR of the structures.
const STRUCTURES: Bar = match Bar::new(4) {
    Some(bar) => bar,
    None => panic!("a type 0 header has BARs 0 to 5"),
};
/// Where the structures are in it.
const ISR: u32 = 0x1000;
const CONFIG: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
/// Bytes of each.
const PAGE: u32 = 0x1000;
/// Bytes from one doorbell to the next.
const DOORBELL: u32 = 4;

/// The common configuration (virtio 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u32 = 0x00;
    pub const DEVICE_FEATURE: u32 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u32 = 0x08;
    pub const DRIVER_FEATURE: u32 = 0x0c;
    pub const DEVICE_STATUS: u32 = 0x14;
    pub const CONFIG_GENERATION: u32 = 0x15;
    pub const QUEUE_SELECT: u32 = 0x16;
    pub const QUEUE_SIZE: u32 = 0x18;
    pub const QUEUE_ENABLE: u32 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u32 = 0x1e;
    pub const QUEUE_DESC: u32 = 0x20;
    pub const QUEUE_DRIVER: u32 = 0x28;
    pub const QUEUE_DEVICE: u32 = 0x30;
}

/// A host's registers.
pub trait Registers {
    /// Reads one.
    fn read(&self, bar: Bar, offset: u32, width: Width) -> u64;

    /// Writes one.
    fn write(&self, bar: Bar, offset: u32, width: Width, value: u64);

    /// Enables memory decoding.
    fn enable_memory(&mut self);

    /// Lets the device send memory requests, or stops it; not every host can, and none says so.
    fn set_bus_master(&mut self, on: bool);
}

/// The transport of a device of that kind.
pub struct FuzzTransport<R: Registers> {
    host: R,
    kind: DeviceType,
    /// Bytes of the device's own configuration.
    config: usize,
}

impl<R: Registers> FuzzTransport<R> {
    /// Takes the device into hand, with `config` bytes of configuration of its own.
    pub fn new(mut host: R, kind: DeviceType, config: usize) -> Self {
        host.enable_memory();
        host.set_bus_master(true);
        Self { host, kind, config }
    }

    #[inline]
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.host.read(STRUCTURES, offset, width)
    }

    #[inline]
    fn write(&self, offset: u32, width: Width, value: u64) {
        self.host.write(STRUCTURES, offset, width, value);
    }

    fn select(&self, queue: u16) {
        self.write(common::QUEUE_SELECT, Width::Two, queue.into());
    }

    #[expect(clippy::cast_possible_truncation, reason = "read so wide")]
    fn read16(&self, offset: u32) -> u16 {
        self.read(offset, Width::Two) as u16
    }

    fn inside<T>(&self, offset: usize) -> Result<u32, Error> {
        match (u32::try_from(offset), offset.checked_add(size_of::<T>())) {
            (Ok(start), Some(end)) if end <= self.config => Ok(CONFIG + start),
            _ => Err(Error::ConfigSpaceTooSmall),
        }
    }
}

/// The widest aligned accesses that cover `len` bytes at `offset`.
fn pieces(offset: u32, len: usize) -> impl Iterator<Item = (u32, usize, Width)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = offset + u32::try_from(done).ok()?;
        let width = [Width::Four, Width::Two, Width::One]
            .into_iter()
            .find(|width| {
                at.is_multiple_of(width.bytes()) && width.bytes() as usize <= len - done
            })?;
        let start = done;
        done += width.bytes() as usize;
        Some((at, start, width))
    })
}

impl<R: Registers> Transport for FuzzTransport<R> {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        self.write(common::DEVICE_FEATURE_SELECT, Width::Four, 0);
        let low = self.read(common::DEVICE_FEATURE, Width::Four);
        self.write(common::DEVICE_FEATURE_SELECT, Width::Four, 1);
        low | self.read(common::DEVICE_FEATURE, Width::Four) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        self.write(common::DRIVER_FEATURE_SELECT, Width::Four, 0);
        self.write(common::DRIVER_FEATURE, Width::Four, features & 0xffff_ffff);
        self.write(common::DRIVER_FEATURE_SELECT, Width::Four, 1);
        self.write(common::DRIVER_FEATURE, Width::Four, features >> 32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.read16(common::QUEUE_SIZE).into()
    }

    fn notify(&mut self, queue: u16) {
        self.select(queue);
        let place = u32::from(self.read16(common::QUEUE_NOTIFY_OFF)) * DOORBELL;
        // A doorbell elsewhere rings nowhere.
        if place < PAGE {
            self.write(NOTIFY + place, Width::Two, queue.into());
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status = self.read(common::DEVICE_STATUS, Width::One);
        DeviceStatus::from_bits_truncate(u32::try_from(status).unwrap_or(0))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.write(common::DEVICE_STATUS, Width::One, status.bits().into());
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {
        // Legacy devices only.
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.write(common::QUEUE_SIZE, Width::Two, size.into());
        self.write(common::QUEUE_DESC, Width::Eight, descriptors);
        self.write(common::QUEUE_DRIVER, Width::Eight, driver_area);
        self.write(common::QUEUE_DEVICE, Width::Eight, device_area);
        self.write(common::QUEUE_ENABLE, Width::Two, 1);
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Over PCI a queue ends with a reset only; drop does that, before the rings are freed.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read16(common::QUEUE_ENABLE) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.read(ISR, Width::One);
        InterruptStatus::from_bits_retain(u32::try_from(status).unwrap_or(0))
    }

    fn read_config_generation(&self) -> u32 {
        let generation = self.read(common::CONFIG_GENERATION, Width::One);
        u32::try_from(generation).unwrap_or(0)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let first = self.inside::<T>(offset)?;
        let mut value = T::new_zeroed();
        let bytes = value.as_mut_bytes();
        for (at, start, width) in pieces(first, bytes.len()) {
            let read = self.read(at, width).to_le_bytes();
            let len = width.bytes() as usize;
            bytes[start..start + len].copy_from_slice(&read[..len]);
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let first = self.inside::<T>(offset)?;
        let bytes = value.as_bytes();
        for (at, start, width) in pieces(first, bytes.len()) {
            let mut word = [0; 8];
            let len = width.bytes() as usize;
            word[..len].copy_from_slice(&bytes[start..start + len]);
            self.write(at, width, u64::from_le_bytes(word));
        }
        Ok(())
    }
}

impl<R: Registers> Drop for FuzzTransport<R> {
    /// Stops the device before the crate frees the rings.
    fn drop(&mut self) {
        self.write(common::DEVICE_STATUS, Width::One, 0);
        self.host.set_bus_master(false);
    }
}
