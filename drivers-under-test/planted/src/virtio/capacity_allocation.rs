//! `virtio-capacity-allocation`: allocates as much as the configuration asks for.

use super::disk::Disk;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use alloc::vec;
use alloc::vec::Vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

/// Sectors of the largest disk we drive: 2 GiB.
const LARGEST: u64 = 1 << 22;
/// Sectors that one word of the map stands for.
const PER_WORD: u64 = 64;

pub(crate) struct CapacityAllocation<H: DriverHost, V> {
    disk: Disk<H>,
    /// A bit for each sector that was written.
    written: Vec<u64>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> Driver<H> for CapacityAllocation<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let disk = Disk::probe(host)?;
        let capacity = disk.virtio.capacity();
        if !V::PLANTED && capacity > LARGEST {
            return Err(DriverError::Unsupported("the disk is too large"));
        }
        let words = usize::try_from(capacity.div_ceil(PER_WORD))
            .map_err(|_| DriverError::Unsupported("the disk is too large"))?;
        Ok(Self {
            disk,
            written: vec![0; words],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for CapacityAllocation<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.disk.read(sector, into, until),
            Call::Write(sector, from) => {
                self.disk.write(sector, from, until)?;
                let word = usize::try_from(sector / PER_WORD).unwrap_or(usize::MAX);
                if let Some(word) = self.written.get_mut(word) {
                    *word |= 1 << (sector % PER_WORD);
                }
                Ok(0)
            }
            _ => Err(UNKNOWN),
        }
    }
}
