//! The block driver: the crate's `VirtIOBlk`, and the waiting it leaves to us.

use crate::abandon::catch;
use crate::hal::{Entered, SeamHal};
use crate::session::{Session, Shared};
use crate::spec::{self, common};
use crate::structure::{Structure, Structures};
use crate::transport::{SeamTransport, Vectors};
use cofferdam_seam::service::{Block, DriverError, SECTOR};
use cofferdam_seam::{Deadline, RawDma, Vector, Wake, Width};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};

/// How long a device may take from its reset to DRIVER_OK.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Bytes of data in one request of the device; longer ones of ours are cut.
const CHUNK: usize = 8 * SECTOR;

/// Buffers of one request beside its data: header, status, and the indirect table that names all three.
const SMALL: usize = 3;

type Crate<H> = VirtIOBlk<SeamHal, SeamTransport<H>>;

/// The driver of one virtio block device.
///
/// After any error that is not [request only](DriverError::is_request_only), and after a panic of
/// the crate, it refuses further work; drop it and probe again.
pub struct VirtioBlk<H: RawDma + 'static> {
    /// Taken by drop only.
    blk: Option<Crate<H>>,
    /// The transport's too; for the device status, which the crate never reads.
    common: Structure<H::Mmio>,
    vectors: Vectors,
    session: Shared<H>,
    broken: bool,
}

impl<H: RawDma + 'static> VirtioBlk<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device or lacks something,
    /// [`Protocol`](DriverError::Protocol) if what it says cannot be,
    /// [`TimedOut`](DriverError::TimedOut) after a second, and what the host says.
    pub fn probe(mut host: H) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != spec::PCI_ID {
            return Err(DriverError::Unsupported("PCI ID is not 1af4:1042"));
        }
        let structures = Structures::find(&mut host)?;
        let common = structures.common.clone();
        let vectors = Vectors::new(host.enable_interrupts(Vectors::WANTED)?);
        let until = Deadline::after(host.now(), PROBE_LIMIT);
        let session = Rc::new(RefCell::new(Session::new(host, SMALL, CHUNK, until)?));
        let transport = SeamTransport::new(structures, vectors, session.clone());

        let entered = Entered::new(session.clone());
        let blk = catch(|| Crate::new(transport))?.map_err(from_probe)?;
        drop(entered);
        Ok(Self {
            blk: Some(blk),
            common,
            vectors,
            session,
            broken: false,
        })
    }

    /// Calls into the crate.
    fn call<R>(&mut self, call: impl FnOnce(&mut Crate<H>) -> R) -> Result<R, DriverError> {
        let Some(blk) = &mut self.blk else {
            return Err(DriverError::Protocol("the driver is being dropped"));
        };
        let _entered = Entered::new(self.session.clone());
        catch(|| call(blk))
    }

    /// Runs one request on a driver that is well. It stays broken if the crate panics.
    fn request(
        &mut self,
        until: Deadline,
        run: impl FnOnce(&mut Self) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        if self.broken {
            return Err(DriverError::Protocol(
                "an earlier request failed; drop the driver and probe again",
            ));
        }
        self.session.borrow_mut().until = until;
        self.broken = true;
        let result = run(self);
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }

    /// The sectors' number as the crate wants it, if the disk has them all.
    fn check(&self, sector: u64, len: usize) -> Result<usize, DriverError> {
        if len == 0 || !len.is_multiple_of(SECTOR) {
            return Err(DriverError::BadRequest(
                "the length is not a positive multiple of 512",
            ));
        }
        let inside = sector
            .checked_add((len / SECTOR) as u64)
            .is_some_and(|end| end <= self.capacity());
        usize::try_from(sector)
            .ok()
            .filter(|_| inside)
            .ok_or(DriverError::BadRequest("beyond the end of the disk"))
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
        let token =
            self.call(|blk| unsafe { blk.read_blocks_nb(sector, &mut header, into, &mut status) })?;
        let token = token.map_err(from_request)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = self
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
            .call(|blk| unsafe { blk.write_blocks_nb(sector, &mut header, from, &mut status) })?;
        let token = token.map_err(from_request)?;
        self.await_used(token, until)?;
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = self
            .call(|blk| unsafe { blk.complete_write_blocks(token, &header, from, &mut status) })?;
        completed.map_err(from_request)
    }

    /// Waits until the request `token`, the only one, is in the used ring. If its interrupt was
    /// lost but the request is there at the deadline, that will do.
    fn await_used(&mut self, token: u16, until: Deadline) -> Result<(), DriverError> {
        loop {
            let wake = self.wait(until)?;
            if !self.vectors.is_msix() {
                // Releases the line.
                self.call(|blk| blk.ack_interrupt())?;
            }
            match self.call(|blk| blk.peek_used())? {
                Some(used) if used == token => return Ok(()),
                Some(_) => {
                    return Err(DriverError::Protocol(
                        "a used element names no request of ours",
                    ));
                }
                None => {}
            }
            // Woken or late, and nothing done: perhaps the device gave up.
            if self.common.read8(common::DEVICE_STATUS) & spec::DEVICE_NEEDS_RESET != 0 {
                return Err(DriverError::Protocol("DEVICE_NEEDS_RESET is set"));
            }
            if wake == Wake::TimedOut {
                return Err(DriverError::TimedOut("the request to complete"));
            }
            // A storm wakes us for ever: the session's deadline ends it.
            self.session.borrow_mut().poll("the request to complete")?;
        }
    }

    fn wait(&self, until: Deadline) -> Result<Wake, DriverError> {
        let vectors: [Vector; 2] = self.vectors.all();
        Ok(self.session.borrow_mut().host.wait_any(&vectors, until)?)
    }
}

impl<H: RawDma + 'static> Block for VirtioBlk<H> {
    fn capacity(&self) -> u64 {
        self.blk.as_ref().map_or(0, VirtIOBlk::capacity)
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        self.request(until, |driver| {
            let first = driver.check(sector, into.len())?;
            for (chunk, bytes) in into.chunks_mut(CHUNK).enumerate() {
                driver.read_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
            }
            Ok(())
        })
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        self.request(until, |driver| {
            let first = driver.check(sector, from.len())?;
            if driver.blk.as_ref().is_some_and(VirtIOBlk::readonly) {
                return Err(DriverError::BadRequest("the disk is read-only"));
            }
            for (chunk, bytes) in from.chunks(CHUNK).enumerate() {
                driver.write_chunk(first + chunk * (CHUNK / SECTOR), bytes, until)?;
            }
            Ok(())
        })
    }
}

impl<H: RawDma + 'static> Drop for VirtioBlk<H> {
    /// The transport resets the device before the crate frees the rings, and the slots go with
    /// the session.
    fn drop(&mut self) {
        let _entered = Entered::new(self.session.clone());
        drop(self.blk.take());
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

/// The crate's error from a request.
fn from_request(error: Error) -> DriverError {
    match error {
        Error::IoError | Error::Unsupported => DriverError::Io,
        Error::NotReady => DriverError::Protocol("a request is used but was not done"),
        Error::WrongToken => DriverError::Protocol("the used element changed under our eyes"),
        _ => DriverError::Protocol("the request failed in virtio-drivers"),
    }
}
