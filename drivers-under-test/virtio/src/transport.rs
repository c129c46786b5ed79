//! The crate's transport, over the seam: a modern PCI device, with MSI-X.

use crate::abandon::abandon;
use crate::instance::Class;
use crate::session::Shared;
use crate::spec::{self, common};
use crate::structure::{Structure, Structures};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, InterruptKind, Interrupts, Iova, RawDma, Vector, Wake, Width};
use std::time::Duration;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How long the reset of a device that is given up may take.
const RESET_LIMIT: Duration = Duration::from_millis(100);

/// Which vector says what: 0 the configuration changed, 1 the queue moved; 0 both if need be.
#[derive(Clone, Copy)]
pub struct Vectors {
    config: Vector,
    queue: Vector,
    kind: InterruptKind,
}

impl Vectors {
    /// Vectors worth asking for.
    pub const WANTED: u16 = 2;

    pub fn new(given: Interrupts) -> Self {
        Self {
            config: Vector(0),
            queue: Vector(u16::from(
                given.kind == InterruptKind::Msix && given.count > 1,
            )),
            kind: given.kind,
        }
    }

    /// All of them.
    pub fn all(self) -> [Vector; 2] {
        [self.config, self.queue]
    }

    /// Whether the device learns its vectors, instead of pulling one line until ISR status is read.
    pub fn is_msix(self) -> bool {
        self.kind == InterruptKind::Msix
    }
}

/// The transport. It reads the device's registers as often as the crate's own PCI transport does,
/// the place of the doorbell before each ring included.
pub struct SeamTransport<H: RawDma> {
    structures: Structures<H::Mmio>,
    vectors: Vectors,
    session: Shared<H>,
    class: Class,
}

impl<H: RawDma> SeamTransport<H> {
    pub fn new(
        structures: Structures<H::Mmio>,
        vectors: Vectors,
        session: Shared<H>,
        class: Class,
    ) -> Self {
        Self {
            structures,
            vectors,
            session,
            class,
        }
    }

    /// Waits until the answer to the request that was just announced is there: the crate reads the
    /// used ring without end until it is, so this is the place that looks at the deadline. An
    /// answer whose interrupt was lost will do at the deadline.
    fn await_answer(&self, queue: u16) -> Result<(), DriverError> {
        loop {
            let mut session = self.session.borrow_mut();
            if session.answered(queue) {
                return Ok(());
            }
            let until = session.until;
            let wake = session.host.wait_any(&self.vectors.all(), until)?;
            drop(session);
            if !self.vectors.is_msix() {
                // Releases the line.
                self.structures.isr.read8(0);
            }
            let mut session = self.session.borrow_mut();
            if session.answered(queue) {
                return Ok(());
            }
            // Woken or late, and nothing done: perhaps the device gave up.
            spec::check_status(self.structures.common.read8(common::DEVICE_STATUS))?;
            if wake == Wake::TimedOut {
                return Err(DriverError::TimedOut("the request to complete"));
            }
            // A storm wakes us for ever: the session's deadline ends it.
            session.poll("the request to complete")?;
        }
    }

    /// Waits until a device that was told to reset has done so (4.1.4.3.2).
    fn await_reset(&self) -> Result<(), DriverError> {
        while self.structures.common.read8(common::DEVICE_STATUS) != 0 {
            self.session
                .borrow_mut()
                .poll("the device to complete its reset")?;
        }
        Ok(())
    }

    /// The device's configuration, if a `T` at `offset` lies inside it, and that offset.
    fn config_field<T>(&self, offset: usize) -> Result<(&Structure<H::Mmio>, u32), Error> {
        let device = self.structures.device.as_ref();
        let device = device.ok_or(Error::ConfigSpaceMissing)?;
        match (u32::try_from(offset), offset.checked_add(size_of::<T>())) {
            (Ok(start), Some(end)) if end as u64 <= device.len().into() => Ok((device, start)),
            _ => Err(Error::ConfigSpaceTooSmall),
        }
    }

    fn select(&self, queue: u16) {
        self.structures.common.write16(common::QUEUE_SELECT, queue);
    }

    /// Assigns a vector, and sees whether the device took it (4.1.5.1.2.1).
    fn assign(&self, register: u32, vector: Vector) -> Result<(), DriverError> {
        let common = &self.structures.common;
        common.write16(register, vector.0);
        match common.read16(register) {
            read if read == vector.0 => Ok(()),
            spec::NO_VECTOR => Err(DriverError::Unsupported("no MSI-X vector to be had")),
            _ => Err(DriverError::Protocol("another MSI-X vector than assigned")),
        }
    }
}

impl<H: RawDma> Transport for SeamTransport<H> {
    fn device_type(&self) -> DeviceType {
        self.class.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let common = &self.structures.common;
        common.write32(common::DEVICE_FEATURE_SELECT, 0);
        let low = common.read32(common::DEVICE_FEATURE);
        common.write32(common::DEVICE_FEATURE_SELECT, 1);
        let high = common.read32(common::DEVICE_FEATURE);
        let features = u64::from(low) | (u64::from(high) << 32);
        if features & spec::VERSION_1 == 0 {
            abandon(DriverError::Unsupported("VERSION_1 is not offered"));
        }
        if self.class.waits.is_empty() {
            features
        } else {
            // A doorbell that is suppressed by index is one we cannot wait at.
            features & !spec::EVENT_IDX
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
    fn write_driver_features(&mut self, features: u64) {
        let common = &self.structures.common;
        common.write32(common::DRIVER_FEATURE_SELECT, 0);
        common.write32(common::DRIVER_FEATURE, features as u32);
        common.write32(common::DRIVER_FEATURE_SELECT, 1);
        common.write32(common::DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.structures.common.read16(common::QUEUE_SIZE).into()
    }

    fn notify(&mut self, queue: u16) {
        self.select(queue);
        let common = &self.structures.common;
        let place = u64::from(common.read16(common::QUEUE_NOTIFY_OFF))
            * u64::from(self.structures.multiplier);
        let notify = &self.structures.notify;
        match u32::try_from(place) {
            Ok(at) if place + 2 <= notify.len().into() => notify.write16(at, queue),
            _ => abandon(DriverError::Protocol("the doorbell is out of range")),
        }
        if self.class.waits.contains(&queue) {
            self.await_answer(queue)
                .unwrap_or_else(|error| abandon(error));
        }
    }

    fn get_status(&self) -> DeviceStatus {
        let status = self.structures.common.read8(common::DEVICE_STATUS);
        DeviceStatus::from_bits_truncate(status.into())
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the status of a PCI device has 8 bits"
    )]
    fn set_status(&mut self, status: DeviceStatus) {
        let common = &self.structures.common;
        common.write8(common::DEVICE_STATUS, status.bits() as u8);
        if status.is_empty() {
            self.await_reset().unwrap_or_else(|error| abandon(error));
        } else if status.contains(DeviceStatus::FEATURES_OK)
            && !status.contains(DeviceStatus::DRIVER_OK)
            && common.read8(common::DEVICE_STATUS) & spec::FEATURES_OK == 0
        {
            abandon(DriverError::Unsupported("the device refuses our features"));
        }
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {
        // Legacy devices only.
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    /// The last step is to enable the queue: after it nothing may be abandoned, because the crate
    /// would free the rings before it drops the transport, which resets the device.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the crate's queues have a 16-bit size"
    )]
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        if self.vectors.is_msix() {
            self.select(queue);
            self.assign(common::CONFIG_MSIX_VECTOR, self.vectors.config)
                .and_then(|()| self.assign(common::QUEUE_MSIX_VECTOR, self.vectors.queue))
                .unwrap_or_else(|error| abandon(error));
        }
        // Not earlier: an older life's queues ended with the reset.
        let master = self.session.borrow_mut().host.set_bus_master(true);
        master.unwrap_or_else(|error| abandon(error.into()));
        self.select(queue);
        let common = &self.structures.common;
        common.write16(common::QUEUE_SIZE, size as u16);
        common.write_halves(common::QUEUE_DESC, descriptors);
        common.write_halves(common::QUEUE_DRIVER, driver_area);
        common.write_halves(common::QUEUE_DEVICE, device_area);
        common.write16(common::QUEUE_ENABLE, 1);
        if self.class.waits.contains(&queue) {
            self.session.borrow_mut().watch(queue, Iova(device_area));
        }
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Over PCI a queue ends with a reset only; drop does that, before the rings are freed.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.structures.common.read16(common::QUEUE_ENABLE) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.structures.isr.read8(0).into())
    }

    /// The crate reads the generation in a loop that ends only when the device lets it: the one
    /// loop of its that runs through here, so the one place that looks at the deadline.
    fn read_config_generation(&self) -> u32 {
        let settled = self
            .session
            .borrow_mut()
            .poll("the configuration to settle");
        settled.unwrap_or_else(|error| abandon(error));
        self.structures
            .common
            .read8(common::CONFIG_GENERATION)
            .into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let (device, start) = self.config_field::<T>(offset)?;
        let mut value = T::new_zeroed();
        for (at, piece) in (start..).step_by(4).zip(value.as_mut_bytes().chunks_mut(4)) {
            let word = device.read(at, width_of(piece)?).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let (device, start) = self.config_field::<T>(offset)?;
        for (at, piece) in (start..).step_by(4).zip(value.as_bytes().chunks(4)) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            device.write(at, width_of(piece)?, u64::from_le_bytes(word));
        }
        Ok(())
    }
}

/// The access that moves a piece of a field.
fn width_of(piece: &[u8]) -> Result<Width, Error> {
    Width::from_bytes(piece.len() as u64).ok_or(Error::InvalidParam)
}

impl<H: RawDma> Drop for SeamTransport<H> {
    /// Stops the device, before the crate frees the rings: resets it, and takes the bus away from
    /// one that does not comply.
    fn drop(&mut self) {
        {
            let mut session = self.session.borrow_mut();
            session.until = Deadline::after(session.host.now(), RESET_LIMIT);
        }
        self.structures.common.write8(common::DEVICE_STATUS, 0);
        let _ = self.await_reset();
        let _ = self.session.borrow_mut().host.set_bus_master(false);
    }
}
