//! One request at a time on an NVMe disk.

use super::{Nvme, spec};
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mapping};

/// Command identifiers in use, one after the other.
pub const CIDS: u16 = 8;

/// A disk in service, with one page of data.
///
/// After an error that leaves a command with the controller nothing more is sent.
pub struct Disk<H: DriverHost> {
    pub region: H::Dma,
    pub nvme: Nvme<H>,
    /// The page of the command in flight.
    pub mapping: Option<Mapping>,
    cid: u16,
}

impl<H: DriverHost> Disk<H> {
    /// The controller, enabled. Dropping this stops it, whatever comes.
    pub fn enable(host: H) -> Result<Self, DriverError> {
        let mut nvme = Nvme::open(host)?;
        let region = nvme.host.alloc_dma(spec::PAGE)?;
        let mut disk = Self {
            region,
            nvme,
            mapping: None,
            cid: 0,
        };
        disk.nvme.enable()?;
        Ok(disk)
    }

    /// The disk, with its I/O queues.
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Self::enable(host)?;
        disk.nvme.create_queues()?;
        Ok(disk)
    }

    /// Hands the page to the controller, empty if it is to fill it. Returns the command identifier.
    pub fn send(&mut self, opcode: u8, sector: u64, len: usize) -> Result<u16, DriverError> {
        if self.mapping.is_some() {
            return Err(DriverError::Protocol("an earlier command never ended"));
        }
        let way = if opcode == spec::READ {
            self.region.write_at(0, &[0; spec::PAGE][..len]);
            Direction::FromDevice
        } else {
            Direction::ToDevice
        };
        let mapping = self.nvme.host.map(&self.region, 0..len, way)?;
        let at = mapping.iova;
        self.mapping = Some(mapping);
        self.cid = (self.cid + 1) % CIDS;
        self.nvme.send(self.cid, opcode, sector, at, len);
        Ok(self.cid)
    }

    /// Takes the page back.
    pub fn settle(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.nvme.host.unmap(mapping);
        }
    }

    pub fn transfer(
        &mut self,
        opcode: u8,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let cid = self.send(opcode, sector, len)?;
        let completion = self.nvme.completion(until)?;
        if completion.cid != cid {
            return Err(DriverError::Protocol("a completion of no command of ours"));
        }
        self.settle();
        if completion.status == 0 {
            Ok(())
        } else {
            Err(DriverError::Io)
        }
    }

    pub fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        self.transfer(spec::READ, sector, into.len(), until)?;
        self.region.read_at(0, into);
        Ok(into.len())
    }

    pub fn write(
        &mut self,
        sector: u64,
        from: &[u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(from)?;
        self.region.write_at(0, from);
        self.transfer(spec::WRITE, sector, from.len(), until)?;
        Ok(0)
    }
}

pub fn whole_sectors(bytes: &[u8]) -> Result<(), DriverError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(SECTOR) || bytes.len() > spec::PAGE {
        return Err(DriverError::BadRequest("1 to 8 whole sectors"));
    }
    Ok(())
}

impl<H: DriverHost> Drop for Disk<H> {
    fn drop(&mut self) {
        self.nvme.stop();
    }
}
