//! `nvme-completion-id`: looks a command up by the identifier in its completion.

use super::disk::{CIDS, Disk, whole_sectors};
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DmaRegion, DriverHost};
use core::marker::PhantomData;

pub(crate) struct CompletionId<H: DriverHost, V> {
    disk: Disk<H>,
    /// The status of each command that is done, by its identifier.
    done: [Option<u16>; CIDS as usize],
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> CompletionId<H, V> {
    fn reap(&mut self, until: Deadline) -> Result<(), DriverError> {
        let completion = self.disk.nvme.completion(until)?;
        let slot = usize::from(completion.cid);
        if !V::PLANTED && slot >= self.done.len() {
            return Err(DriverError::Protocol("a completion of no command of ours"));
        }
        self.done[slot] = Some(completion.status);
        Ok(())
    }

    fn transfer(
        &mut self,
        opcode: u8,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let slot = usize::from(self.disk.send(opcode, sector, len)?);
        self.reap(until)?;
        let status = self.done[slot].take();
        let status = status.ok_or(DriverError::Protocol("another command is done"))?;
        self.disk.settle();
        if status == 0 {
            Ok(())
        } else {
            Err(DriverError::Io)
        }
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for CompletionId<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        Ok(Self {
            disk: Disk::probe(host)?,
            done: [None; CIDS as usize],
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for CompletionId<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => {
                whole_sectors(into)?;
                self.transfer(spec::READ, sector, into.len(), until)?;
                self.disk.region.read_at(0, into);
                Ok(into.len())
            }
            Call::Write(sector, from) => {
                whole_sectors(from)?;
                self.disk.region.write_at(0, from);
                self.transfer(spec::WRITE, sector, from.len(), until)?;
                Ok(0)
            }
            _ => Err(UNKNOWN),
        }
    }
}
