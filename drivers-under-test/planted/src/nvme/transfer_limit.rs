//! `nvme-transfer-limit`: shifts by the maximum data transfer size the controller names.

use super::disk::Disk;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

/// log2 of the bytes of a page, the unit of `MDTS`.
const PAGE_SHIFT: u32 = 12;
/// Where `MDTS` is in what Identify says of the controller.
const MDTS: usize = 77;

pub(crate) struct TransferLimit<H: DriverHost, V> {
    disk: Disk<H>,
    /// Bytes one command may move.
    limit: usize,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> TransferLimit<H, V> {
    fn limit(mdts: u8) -> usize {
        if mdts == 0 {
            return usize::MAX;
        }
        let shift = PAGE_SHIFT + u32::from(mdts);
        if V::PLANTED {
            1 << shift
        } else {
            1_usize.checked_shl(shift).unwrap_or(usize::MAX)
        }
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for TransferLimit<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::probe(host)?;
        let controller = disk.nvme.identify(spec::CONTROLLER)?;
        Ok(Self {
            disk,
            limit: Self::limit(controller[MDTS]),
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for TransferLimit<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(_) if into.len() > self.limit => {
                Err(DriverError::BadRequest("more than the controller moves"))
            }
            Call::Write(_, from) if from.len() > self.limit => {
                Err(DriverError::BadRequest("more than the controller moves"))
            }
            Call::Read(sector) => self.disk.read(sector, into, until),
            Call::Write(sector, from) => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
