//! `nvme-failed-probe`: leaves the controller enabled when its probe fails.

use super::disk::whole_sectors;
use super::{Nvme, spec};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mapping};
use core::marker::PhantomData;

pub(crate) struct FailedProbe<H: DriverHost, V> {
    region: H::Dma,
    nvme: Nvme<H>,
    mapping: Option<Mapping>,
    cid: u16,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> FailedProbe<H, V> {
    fn transfer(
        &mut self,
        opcode: u8,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        if self.mapping.is_some() {
            return Err(DriverError::Protocol("an earlier command never ended"));
        }
        let way = if opcode == spec::READ {
            Direction::FromDevice
        } else {
            Direction::ToDevice
        };
        let mapping = self.nvme.host.map(&self.region, 0..len, way)?;
        let at = mapping.iova;
        self.mapping = Some(mapping);
        self.cid = (self.cid + 1) % 0x1000;
        self.nvme.send(self.cid, opcode, sector, at, len);
        let completion = self.nvme.completion(until)?;
        if completion.cid != self.cid {
            return Err(DriverError::Protocol("a completion of no command of ours"));
        }
        if let Some(mapping) = self.mapping.take() {
            self.nvme.host.unmap(mapping);
        }
        if completion.status == 0 {
            Ok(())
        } else {
            Err(DriverError::Io)
        }
    }

    fn bring_up(nvme: &mut Nvme<H>) -> Result<(), DriverError> {
        nvme.enable()?;
        nvme.identify(spec::CONTROLLER)?;
        nvme.create_queues()
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for FailedProbe<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut nvme = Nvme::open(host)?;
        let region = nvme.host.alloc_dma(spec::PAGE)?;
        if let Err(error) = Self::bring_up(&mut nvme) {
            if !V::PLANTED {
                nvme.stop();
            }
            return Err(error);
        }
        Ok(Self {
            region,
            nvme,
            mapping: None,
            cid: 0,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for FailedProbe<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => {
                whole_sectors(into)?;
                self.region.write_at(0, &[0; spec::PAGE][..into.len()]);
                self.transfer(spec::READ, sector, into.len(), until)?;
                self.region.read_at(0, into);
                Ok(into.len())
            }
            Call::Write(sector, from) => {
                whole_sectors(from)?;
                self.region.write_at(0, from);
                self.transfer(spec::WRITE, sector, from.len(), until)?;
                Ok(0)
            }
            _ => Err(UNKNOWN),
        }
    }
}

impl<H: DriverHost, V> Drop for FailedProbe<H, V> {
    fn drop(&mut self) {
        self.nvme.stop();
    }
}
