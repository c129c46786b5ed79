//! The block driver: the crate's `VirtIOBlk`, and the waiting it leaves to us.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_request};
use crate::transport::SeamTransport;
use cofferdam_seam::service::{Block, DriverError, SECTOR, check_sectors};
use cofferdam_seam::{Deadline, RawDma, Wake};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::transport::DeviceType;

/// Bytes of data in one request of the device; longer ones of ours are cut.
const CHUNK: usize = 8 * SECTOR;

/// Bytes for the buffers of one request: header, data, status, and the indirect table that names them.
const ARENA: usize = 2 * CHUNK;

const CLASS: Class = Class {
    kind: DeviceType::Block,
    other: "PCI ID is not 1af4:1042",
    arena: ARENA,
    buffers: 4,
    waits: &[],
};

type Crate<H> = VirtIOBlk<SeamHal, SeamTransport<H>>;

/// The driver of one virtio block device.
///
/// After any error that is not [request only](DriverError::is_request_only), and after a panic of
/// the crate, it refuses further work; drop it and probe again.
pub struct VirtioBlk<H: RawDma + 'static> {
    blk: Instance<H, Crate<H>>,
}

impl<H: RawDma + 'static> VirtioBlk<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device or lacks something,
    /// [`Protocol`](DriverError::Protocol) if what it says cannot be,
    /// [`TimedOut`](DriverError::TimedOut) after a second, and what the host says.
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            blk: Instance::probe(host, CLASS, start)?,
        })
    }

    /// The sectors' number as the crate wants it, if the disk has them all.
    fn check(&self, sector: u64, len: usize) -> Result<usize, DriverError> {
        check_sectors(sector, len, self.capacity())?;
        usize::try_from(sector).map_err(|_| DriverError::BadRequest("beyond the end of the disk"))
    }

    fn read_all(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let first = self.check(sector, into.len())?;
        for (chunk, bytes) in into.chunks_mut(CHUNK).enumerate() {
            self.read_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
        }
        Ok(())
    }

    fn write_all(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        let first = self.check(sector, from.len())?;
        if self.blk.driver().is_some_and(VirtIOBlk::readonly) {
            return Err(DriverError::BadRequest("the disk is read-only"));
        }
        for (chunk, bytes) in from.chunks(CHUNK).enumerate() {
            self.write_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
        }
        Ok(())
    }

    fn read_chunk(
        &mut self,
        sector: usize,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let mut header = BlkReq::default();
        let mut status = BlkResp::default();
        // SAFETY: the HAL copies: once this returns nobody holds a pointer to the three buffers,
        // and the same ones complete the request. If it never completes, they are not touched
        // again; the slots the device may still reach belong to the session.
        let token = self
            .blk
            .call(|blk| unsafe { blk.read_blocks_nb(sector, &mut header, into, &mut status) })?;
        let token = token.map_err(from_request)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = self
            .blk
            .call(|blk| unsafe { blk.complete_read_blocks(token, &header, into, &mut status) })?;
        completed.map_err(from_request)
    }

    fn write_chunk(
        &mut self,
        sector: usize,
        from: &[u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let mut header = BlkReq::default();
        let mut status = BlkResp::default();
        // SAFETY: as in `read_chunk`.
        let token = self
            .blk
            .call(|blk| unsafe { blk.write_blocks_nb(sector, &mut header, from, &mut status) })?;
        let token = token.map_err(from_request)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = self
            .blk
            .call(|blk| unsafe { blk.complete_write_blocks(token, &header, from, &mut status) })?;
        completed.map_err(from_request)
    }

    /// Waits until the request `token`, the only one, is in the used ring. If its interrupt was
    /// lost but the request is there at the deadline, that will do.
    fn await_used(&mut self, token: u16, until: Deadline) -> Result<(), DriverError> {
        loop {
            let wake = self.blk.wait(until)?;
            if !self.blk.vectors.is_msix() {
                // Releases the line.
                self.blk.call(|blk| blk.ack_interrupt())?;
            }
            match self.blk.call(|blk| blk.peek_used())? {
                Some(used) if used == token => return Ok(()),
                Some(_) => {
                    return Err(DriverError::Protocol(
                        "a used element names no request of ours",
                    ));
                }
                None => {}
            }
            // Woken or late, and nothing done: perhaps the device gave up.
            self.blk.check_status()?;
            if wake == Wake::TimedOut {
                return Err(DriverError::TimedOut("the request to complete"));
            }
            // A storm wakes us for ever: the session's deadline ends it.
            self.blk.poll("the request to complete")?;
        }
    }
}

impl<H: RawDma + 'static> Block for VirtioBlk<H> {
    fn capacity(&self) -> u64 {
        self.blk.driver().map_or(0, VirtIOBlk::capacity)
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        self.blk.begin(until)?;
        let result = self.read_all(sector, into, until);
        self.blk.end(result)
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        self.blk.begin(until)?;
        let result = self.write_all(sector, from, until);
        self.blk.end(result)
    }
}

/// The crate's error from its start.
fn from_probe(error: Error) -> DriverError {
    match error {
        Error::InvalidParam => DriverError::Unsupported("queue 0 has less than 16 entries"),
        Error::AlreadyUsed => DriverError::Protocol("queue 0 is enabled after a reset"),
        Error::ConfigSpaceMissing | Error::ConfigSpaceTooSmall => {
            DriverError::Unsupported("no capacity in the device configuration")
        }
        _ => DriverError::Protocol("the start failed in virtio-drivers"),
    }
}
