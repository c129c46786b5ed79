//! `virtio-config-generation`: reads the configuration again until it is of the generation that it
//! saw first.

use super::disk::Disk;
use super::spec::common;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio};
use core::marker::PhantomData;

/// Changes in a row that an honest device may make.
const ATTEMPTS: u32 = 16;

pub(crate) struct ConfigGeneration<H: DriverHost, V> {
    disk: Disk<H>,
    capacity: u64,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> ConfigGeneration<H, V> {
    /// The capacity, both halves of one generation.
    fn stable_capacity(disk: &Disk<H>) -> Result<u64, DriverError> {
        let virtio = &disk.virtio;
        let generation = || virtio.mmio.read8(virtio.common + common::CONFIG_GENERATION);
        let before = generation();
        let mut attempts = 0;
        loop {
            let capacity = virtio.capacity();
            if generation() == before {
                return Ok(capacity);
            }
            attempts += 1;
            if !V::PLANTED && attempts == ATTEMPTS {
                return Err(DriverError::Protocol("the configuration never settles"));
            }
        }
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for ConfigGeneration<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let disk = Disk::probe(host)?;
        Ok(Self {
            capacity: Self::stable_capacity(&disk)?,
            disk,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for ConfigGeneration<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) | Call::Write(sector, _) if sector >= self.capacity => {
                Err(DriverError::BadRequest("beyond the end of the disk"))
            }
            Call::Read(sector) => self.disk.read(sector, into, until),
            Call::Write(sector, from) => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
