//! The calls of a disk.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Hal};

/// Requests in flight at most: more than the crate's queue has room for.
const IN_FLIGHT: usize = 20;

/// Bytes of a device's identifier.
pub const ID: usize = 20;

/// What can be asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads sectors, and waits for them.
    Read,
    /// Writes sectors, and waits until it is done.
    Write,
    /// Has the device write back what it cached.
    Flush,
    /// Who are you?
    DeviceId,
    /// Starts to read.
    SubmitRead,
    /// Starts to write.
    SubmitWrite,
    /// Completes what the device says is done.
    Complete,
    /// Answers an interrupt.
    AckInterrupt,
    /// Asks for interrupts.
    EnableInterrupts,
    /// Asks for none.
    DisableInterrupts,
    /// What the device said in the beginning.
    Capacity,
}

impl Operation {
    /// All of them, in the order of the workload's calls.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::DeviceId,
        Self::SubmitRead,
        Self::SubmitWrite,
        Self::Complete,
        Self::AckInterrupt,
        Self::EnableInterrupts,
        Self::DisableInterrupts,
        Self::Capacity,
    ];

    /// The bytes of data that it is given, or gives, for so many sectors.
    pub const fn data(self, sectors: usize) -> usize {
        match self {
            Self::Read | Self::Write => sectors * SECTOR_SIZE,
            Self::DeviceId => ID,
            _ => 0,
        }
    }

    /// Whether the crate waits for the device.
    const fn waits(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Write | Self::Flush | Self::DeviceId
        )
    }
}

/// A HAL that knows whether the device can reach memory of the driver's own.
pub trait Lending: Hal {
    /// Whether it can reach any of it.
    fn is_lent(bytes: &[u8]) -> bool;
}

/// Why a disk did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The crate assumes that the device works on nothing else meanwhile.
    InFlight,
    /// The crate says so.
    Crate(Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight => f.write_str("requests are in flight"),
            Self::Crate(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Crate(error)
    }
}

/// A disk in service.
pub struct Disk<H: Lending, T: Transport> {
    /// Dropped first: its drop stops the device.
    blk: VirtIOBlk<H, T>,
    #[expect(clippy::vec_box, reason = "the device is lent what is in the boxes")]
    pending: Vec<Box<Request>>,
}

/// A request in flight, and its buffers, which stay where they are until it is completed.
struct Request {
    token: u16,
    write: bool,
    header: BlkReq,
    data: Vec<u8>,
    response: BlkResp,
}

impl<H: Lending, T: Transport> Disk<H, T> {
    /// Puts it into service.
    ///
    /// # Errors
    ///
    /// The crate does not take it.
    pub fn new(transport: T) -> virtio_drivers::Result<Self> {
        Ok(Self {
            blk: VirtIOBlk::new(transport)?,
            pending: Vec::new(),
        })
    }

    /// Does what is asked, from `sector` on; `data` has as many bytes as [`Operation::data`] says. The
    /// length that the crate returned, if it returned any.
    ///
    /// # Errors
    ///
    /// It is not done.
    pub fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refusal> {
        if operation.waits() && !self.pending.is_empty() {
            return Err(Refusal::InFlight);
        }
        let bytes = sectors * SECTOR_SIZE;
        match operation {
            Operation::Read => self.blk.read_blocks(sector, data)?,
            Operation::Write => self.blk.write_blocks(sector, data)?,
            Operation::Flush => self.blk.flush()?,
            Operation::DeviceId => {
                let mut id = [0; ID];
                return Ok(Some(self.blk.device_id(&mut id)?));
            }
            Operation::SubmitRead => self.submit(sector, bytes, false)?,
            Operation::SubmitWrite => self.submit(sector, bytes, true)?,
            Operation::Complete => self.complete()?,
            Operation::AckInterrupt => {
                self.blk.ack_interrupt();
            }
            Operation::EnableInterrupts => self.blk.enable_interrupts(),
            Operation::DisableInterrupts => self.blk.disable_interrupts(),
            Operation::Capacity => {
                let _ = (self.blk.capacity(), self.blk.readonly());
            }
        }
        Ok(None)
    }

    fn submit(&mut self, sector: usize, bytes: usize, write: bool) -> virtio_drivers::Result {
        if self.pending.len() == IN_FLIGHT {
            return Err(Error::QueueFull);
        }
        let mut request = Box::new(Request {
            token: 0,
            write,
            header: BlkReq::default(),
            data: vec![0x5a; bytes],
            response: BlkResp::default(),
        });
        let Request {
            header,
            data,
            response,
            ..
        } = &mut *request;
        // SAFETY: the buffers are on the heap, and nobody touches them until the request is
        // completed or the driver is gone.
        request.token = unsafe {
            if write {
                self.blk.write_blocks_nb(sector, header, data, response)?
            } else {
                self.blk.read_blocks_nb(sector, header, data, response)?
            }
        };
        self.pending.push(request);
        Ok(())
    }

    /// Completes what the device says is done, as the documentation has it: if the token is ours.
    fn complete(&mut self) -> virtio_drivers::Result {
        let Some(token) = self.blk.peek_used() else {
            return Err(Error::NotReady);
        };
        let mut pending = self.pending.iter();
        let Some(at) = pending.position(|request| request.token == token) else {
            return Err(Error::WrongToken);
        };
        let Request {
            token,
            write,
            header,
            data,
            response,
        } = &mut *self.pending[at];
        // SAFETY: these are the buffers that were submitted with this token.
        let completed = unsafe {
            if *write {
                self.blk
                    .complete_write_blocks(*token, header, data, response)
            } else {
                self.blk
                    .complete_read_blocks(*token, header, data, response)
            }
        };
        // The crate says `NotReady` of a request that is not done and of one whose status says so.
        let still_lent = H::is_lent(data);
        if !still_lent {
            self.pending.swap_remove(at);
        }
        completed
    }
}

impl<H: Lending, T: Transport> Drop for Disk<H, T> {
    /// Takes back what is done. What is not stays where it is for good: the crate has no way to take it
    /// back.
    fn drop(&mut self) {
        for _ in 0..IN_FLIGHT {
            if self.complete().is_err_and(|error| error == Error::NotReady) {
                break;
            }
        }
        for request in self.pending.drain(..) {
            core::mem::forget(request);
        }
    }
}
