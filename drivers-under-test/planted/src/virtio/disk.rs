//! One request at a time on a virtio disk.

use super::ring::{Data, Ring, Used};
use super::{Virtio, spec};
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mapping};

/// The largest request.
pub const LARGEST: usize = 4096;

/// A disk in service, with one buffer.
///
/// After an error that leaves the request with the device nothing more is sent.
pub struct Disk<H: DriverHost> {
    pub ring: Ring<H::Dma>,
    pub region: H::Dma,
    /// Dropped after the memory that came from its host.
    pub virtio: Virtio<H>,
    /// The buffer of the request in flight.
    pub mapping: Option<Mapping>,
}

impl<H: DriverHost> Disk<H> {
    pub fn probe(host: H) -> Result<Self, DriverError> {
        Self::over(Virtio::open(host)?)
    }

    /// Puts a device that was opened into service.
    pub fn over(mut virtio: Virtio<H>) -> Result<Self, DriverError> {
        let ring = Ring::new(&mut virtio.host)?;
        let region = virtio.host.alloc_dma(LARGEST)?;
        virtio.enable_interrupts()?;
        virtio.start(super::SIZE, ring.areas())?;
        Ok(Self {
            ring,
            region,
            virtio,
            mapping: None,
        })
    }

    /// Hands the first `len` bytes of the buffer to the device, empty if it is to fill them.
    pub fn send(&mut self, kind: u32, sector: u64, len: usize) -> Result<(), DriverError> {
        if self.mapping.is_some() {
            return Err(DriverError::Protocol("an earlier request never ended"));
        }
        let incoming = kind != spec::OUT;
        if incoming {
            self.region.write_at(0, &[0; LARGEST][..len.min(LARGEST)]);
        }
        let way = if incoming {
            Direction::FromDevice
        } else {
            Direction::ToDevice
        };
        let mapping = self.virtio.host.map(&self.region, 0..len, way)?;
        let data = Data {
            at: mapping.iova,
            len: u32::try_from(len).map_err(|_| DriverError::BadRequest("too long"))?,
            incoming,
        };
        self.mapping = Some(mapping);
        self.ring.submit(0, kind, sector, data);
        self.virtio.notify();
        Ok(())
    }

    /// Waits for the answer to the only request.
    pub fn answer(&mut self, until: Deadline) -> Result<Used, DriverError> {
        let used = self.virtio.used(&mut self.ring, until)?;
        if used.id != 0 {
            return Err(DriverError::Protocol("a used element names no request"));
        }
        Ok(used)
    }

    /// Takes the buffer back.
    pub fn settle(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.virtio.host.unmap(mapping);
        }
    }

    /// One request from end to end. Of an incoming one at least `len` bytes have arrived.
    pub fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        len: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.send(kind, sector, len)?;
        let used = self.answer(until)?;
        self.settle();
        let arrived = kind == spec::OUT || used.len as usize > len;
        if self.ring.status(0) != spec::OK || !arrived {
            return Err(DriverError::Io);
        }
        Ok(())
    }

    /// A read of whole sectors.
    pub fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(into)?;
        self.transfer(spec::IN, sector, into.len(), until)?;
        self.region.read_at(0, into);
        Ok(into.len())
    }

    /// A write of whole sectors.
    pub fn write(
        &mut self,
        sector: u64,
        from: &[u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        whole_sectors(from)?;
        self.region.write_at(0, from);
        self.transfer(spec::OUT, sector, from.len(), until)?;
        Ok(0)
    }
}

pub fn whole_sectors(bytes: &[u8]) -> Result<(), DriverError> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(SECTOR) || bytes.len() > LARGEST {
        return Err(DriverError::BadRequest("1 to 8 whole sectors"));
    }
    Ok(())
}

impl<H: DriverHost> Drop for Disk<H> {
    fn drop(&mut self) {
        self.virtio.stop();
    }
}
