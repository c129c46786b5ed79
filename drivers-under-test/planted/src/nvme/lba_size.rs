//! `nvme-lba-size`: counts sectors by a block size the namespace names.

use super::disk::Disk;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

/// Where the format in use, and log2 of its block size, are in what Identify says of a namespace.
const FLBAS: usize = 26;
const LBADS: usize = 128 + 2;

pub(crate) struct LbaSize<H: DriverHost, V> {
    disk: Disk<H>,
    /// Sectors of 512 bytes in a block.
    per_block: usize,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> LbaSize<H, V> {
    /// The block that a sector is in.
    fn block(&self, sector: u64) -> u64 {
        sector / self.per_block as u64
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for LbaSize<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::probe(host)?;
        let namespace = disk.nvme.identify(spec::NAMESPACE)?;
        let format = usize::from(namespace[FLBAS] & 0x0f);
        let shift = namespace[LBADS + 4 * format];
        let bytes = 1_usize.checked_shl(shift.into()).unwrap_or(0);
        let per_block = bytes / SECTOR;
        if !V::PLANTED && per_block != 1 {
            return Err(DriverError::Unsupported("blocks do not have 512 bytes"));
        }
        Ok(Self {
            disk,
            per_block,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for LbaSize<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.disk.read(self.block(sector), into, until),
            Call::Write(sector, from) => self.disk.write(self.block(sector), from, until),
            _ => Err(UNKNOWN),
        }
    }
}
