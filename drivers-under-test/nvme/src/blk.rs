//! The block service, and the same with several commands in flight.

use crate::bounce::{BounceBuffers, CHUNK};
use crate::controller::{Controller, NAMESPACE};
use crate::queue::Tag;
use crate::spec::Command;
use cofferdam_seam::service::{Block, DriverError, SECTOR, check_sectors};
use cofferdam_seam::{Deadline, DriverHost};

/// The driver of one NVMe controller and its first namespace.
///
/// After any error that is not [request only](DriverError::is_request_only) it refuses further
/// work; drop it and probe again.
pub struct Nvme<H: DriverHost> {
    /// Dropped before the host it came from.
    buffers: BounceBuffers<H::Dma>,
    controller: Controller<H>,
    sectors: u64,
    transfer_limit: usize,
    broken: bool,
}

impl<H: DriverHost> Nvme<H> {
    /// Takes the controller into service: resets and enables it, learns what it is, and creates a
    /// pair of I/O queues.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device or lacks something,
    /// [`Protocol`](DriverError::Protocol) if what it says cannot be or a command of the set-up
    /// fails, [`TimedOut`](DriverError::TimedOut) if it is not ready within `CAP.TO` or the set-up
    /// takes more than a second, and what the host says.
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let mut controller = Controller::new(host)?;
        let buffers = BounceBuffers::new(&mut controller.host)?;
        // From here on drop takes the bus away before any memory goes.
        let mut nvme = Self {
            buffers,
            controller,
            sectors: 0,
            transfer_limit: CHUNK,
            broken: true,
        };
        let disk = nvme.controller.start()?;
        nvme.sectors = disk.sectors;
        nvme.transfer_limit = CHUNK.min(disk.transfer_limit);
        nvme.broken = false;
        Ok(nvme)
    }

    /// How many commands can be in flight.
    pub fn depth(&self) -> usize {
        self.controller.io.depth()
    }

    /// Bytes one command may move: what the controller takes, and a bounce buffer holds.
    pub fn transfer_limit(&self) -> usize {
        self.transfer_limit
    }

    /// Starts to read `len` bytes from `sector` on; [`complete`](Self::complete) brings them.
    ///
    /// # Errors
    ///
    /// [`BadRequest`](DriverError::BadRequest) if [`depth`](Self::depth) commands are in flight, the
    /// length is above [`transfer_limit`](Self::transfer_limit) or not whole sectors, or the disk
    /// ends before; otherwise as [`Block::read`].
    pub fn submit_read(&mut self, sector: u64, len: usize) -> Result<Tag, DriverError> {
        self.request(|nvme| {
            let (tag, blocks) = nvme.accept(sector, len)?;
            let Controller { host, regs, io, .. } = &mut nvme.controller;
            let prp = nvme.buffers.lend_to_fill(host, tag.slot(), len)?;
            io.submit(regs, tag, Command::read(NAMESPACE, sector, blocks, prp))?;
            Ok(tag)
        })
    }

    /// Starts to write `from` to `sector` and on. They are durable once it is
    /// [`complete`](Self::complete).
    ///
    /// # Errors
    ///
    /// As [`submit_read`](Self::submit_read).
    pub fn submit_write(&mut self, sector: u64, from: &[u8]) -> Result<Tag, DriverError> {
        self.request(|nvme| {
            let (tag, blocks) = nvme.accept(sector, from.len())?;
            let Controller { host, regs, io, .. } = &mut nvme.controller;
            let prp = nvme.buffers.lend_to_read(host, tag.slot(), from)?;
            io.submit(regs, tag, Command::write(NAMESPACE, sector, blocks, prp))?;
            Ok(tag)
        })
    }

    /// Looks for a command that is done, without waiting: it stays so until it is
    /// [`complete`](Self::complete)d. The caller bounds the loop this is called in.
    ///
    /// # Errors
    ///
    /// [`Protocol`](DriverError::Protocol) if a completion cannot be, and what the host says.
    pub fn poll(&mut self) -> Result<Option<Tag>, DriverError> {
        self.request(|nvme| {
            let Controller { host, regs, io, .. } = &mut nvme.controller;
            io.reap(regs)?;
            if io.done().is_none() {
                host.relax()?;
            }
            Ok(io.done())
        })
    }

    /// Waits until a command is done. Copies what it read to `into`, which is as long as was asked
    /// for, and empty for a write.
    ///
    /// # Errors
    ///
    /// [`Io`](DriverError::Io) if the controller reports that the command failed,
    /// [`BadRequest`](DriverError::BadRequest) if the tag names no command or `into` has another
    /// length; otherwise as [`Block::read`].
    pub fn complete(
        &mut self,
        tag: Tag,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.request(|nvme| {
            let Controller { host, regs, io, .. } = &mut nvme.controller;
            if !io.knows(tag) {
                return Err(DriverError::BadRequest("the tag names no command"));
            }
            if into.len() != nvme.buffers.fills(tag.slot()) {
                return Err(DriverError::BadRequest(
                    "the buffer does not have the length that was asked for",
                ));
            }
            let completion = io.wait(host, regs, tag, until, "the request to complete")?;
            let success = completion.status().is_success();
            let into = if success { into } else { &mut [] };
            nvme.buffers.take_back(host, tag.slot(), into);
            if success {
                Ok(())
            } else {
                Err(DriverError::Io)
            }
        })
    }

    /// The tag of a proper request and how many blocks it takes.
    fn accept(&self, sector: u64, len: usize) -> Result<(Tag, u16), DriverError> {
        check_sectors(sector, len, self.sectors)?;
        if len > self.transfer_limit {
            return Err(DriverError::BadRequest("longer than one command may be"));
        }
        let blocks = u16::try_from(len / SECTOR)
            .map_err(|_| DriverError::BadRequest("more blocks than a command can name"))?;
        let tag = self.controller.io.vacant().ok_or(DriverError::BadRequest(
            "the queue is full; complete a command first",
        ))?;
        Ok((tag, blocks))
    }

    /// Runs one request on a driver that is well, and remembers if it no longer is.
    fn request<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        if self.broken {
            return Err(DriverError::Protocol(
                "an earlier request failed; drop the driver and probe again",
            ));
        }
        let result = run(self);
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }
}

impl<H: DriverHost> Block for Nvme<H> {
    fn capacity(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        check_sectors(sector, into.len(), self.sectors)?;
        let mut at = sector;
        for bytes in into.chunks_mut(self.transfer_limit) {
            let tag = self.submit_read(at, bytes.len())?;
            self.complete(tag, bytes, until)?;
            at += (bytes.len() / SECTOR) as u64;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        check_sectors(sector, from.len(), self.sectors)?;
        let mut at = sector;
        for bytes in from.chunks(self.transfer_limit) {
            let tag = self.submit_write(at, bytes)?;
            self.complete(tag, &mut [], until)?;
            at += (bytes.len() / SECTOR) as u64;
        }
        Ok(())
    }
}

impl<H: DriverHost> Drop for Nvme<H> {
    /// Before any memory goes: the device may still be at it.
    fn drop(&mut self) {
        self.controller.stop(!self.broken);
    }
}
