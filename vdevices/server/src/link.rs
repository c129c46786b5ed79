//! The bus a served model sees: the client's memory, by file or by message, and its eventfds.

use crate::interrupts::Interrupts;
use crate::memory::{self, Memory, Place};
use crate::spec::{Command, DmaAccess, Header, MAX_TRANSFER, flags};
use crate::stream::{Message, PATIENCE, Stream, StreamError};
use cofferdam_seam::{Bus, DmaFault, Iova, Purpose, RequesterId, Time};
use std::collections::VecDeque;
use std::time::Instant;
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

/// Commands that may wait while the client is asked for memory.
const WAITING: usize = 64;

/// How a served device reaches memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dma {
    /// Through the files the client lent, past its IOMMU. Ranges that came without a file are asked
    /// for by message, and what was not lent is refused here.
    #[default]
    Lent,
    /// As above, but what was not lent is asked for by message: the client's IOMMU judges, and
    /// records, what goes astray.
    Judged,
    /// Everything by message. A client that waits for the answer to a register read before it
    /// serves memory (QEMU holds its lock meanwhile) must not make a device read registers while
    /// it works: after two seconds the device is told that the link is down.
    Message,
}

/// Why the connection is of no more use.
#[derive(Debug, Error)]
pub enum Broken {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The client sends commands and does not answer ours.
    #[error("more than {WAITING} commands while the client was asked for memory")]
    Flood,
}

/// One client, as the model sees it.
pub(crate) struct Link {
    pub stream: Stream,
    pub memory: Memory,
    pub interrupts: Interrupts,
    /// Commands that came while the client was asked for memory.
    pub waiting: VecDeque<Message>,
    /// When the model asked to be stepped.
    pub wake: Option<Time>,
    /// The first failure; the session ends after the call in which it happened.
    pub broken: Option<Broken>,
    /// The most bytes the client takes in a message.
    pub transfer: usize,
    started: Instant,
    dma: Dma,
    id: u16,
}

impl Link {
    /// A client that has lent nothing yet.
    pub fn new(stream: Stream, interrupts: Interrupts, dma: Dma, started: Instant) -> Self {
        Self {
            stream,
            memory: Memory::default(),
            interrupts,
            waiting: VecDeque::new(),
            wake: None,
            broken: None,
            transfer: MAX_TRANSFER,
            started,
            dma,
            id: 0,
        }
    }

    /// Where a piece of a request lies, by this server's way.
    fn place(&self, at: u64, len: usize, write: bool) -> (Place<'_>, usize) {
        match (self.dma, self.memory.find(at, len, write)) {
            (Dma::Message, _) => (Place::Client, len.min(self.transfer)),
            (Dma::Judged, (Place::Nowhere, len)) | (_, (Place::Client, len)) => {
                (Place::Client, len.min(self.transfer))
            }
            (_, found) => found,
        }
    }

    /// Asks the client to read or write its memory, and waits for the answer.
    fn ask(
        &mut self,
        command: Command,
        at: u64,
        from: &[u8],
        into: &mut [u8],
    ) -> Result<(), DmaFault> {
        if self.broken.is_some() {
            return Err(DmaFault::LinkDown);
        }
        let asked = self.exchange(command, at, from, into);
        asked.unwrap_or_else(|broken| {
            self.broken = Some(broken);
            Err(DmaFault::LinkDown)
        })
    }

    fn exchange(
        &mut self,
        command: Command,
        at: u64,
        from: &[u8],
        into: &mut [u8],
    ) -> Result<Result<(), DmaFault>, Broken> {
        self.id = self.id.wrapping_add(1);
        let header = Header {
            id: self.id,
            command,
            size: 0,
            flags: flags::COMMAND,
            error: 0,
        };
        let access = DmaAccess {
            address: at,
            count: from.len().max(into.len()) as u64,
        };
        self.stream.send(header, &[access.as_bytes(), from], &[])?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(message) = self.stream.receive(left)? else {
                return Ok(Err(DmaFault::LinkDown));
            };
            if message.header.flags & flags::TYPE != flags::REPLY {
                if self.waiting.len() >= WAITING {
                    return Err(Broken::Flood);
                }
                self.waiting.push_back(message);
            } else if (message.header.id, message.header.command) == (self.id, command) {
                return Ok(answer(&message, &access, into));
            } else if left.is_zero() {
                // Late answers to what was given up are dropped, but not for ever.
                return Ok(Err(DmaFault::LinkDown));
            }
        }
    }
}

/// What the client's answer says, if it fits the question.
fn answer(message: &Message, asked: &DmaAccess, into: &mut [u8]) -> Result<(), DmaFault> {
    if message.header.flags & flags::ERROR != 0 {
        return Err(DmaFault::Refused);
    }
    let Ok((access, data)) = DmaAccess::read_from_prefix(&message.body) else {
        return Err(DmaFault::LinkDown);
    };
    if access.count != asked.count || data.len() != into.len() {
        return Err(DmaFault::LinkDown);
    }
    into.copy_from_slice(data);
    Ok(())
}

impl Bus for Link {
    fn dma_read(
        &mut self,
        _: RequesterId,
        at: Iova,
        into: &mut [u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        let mut done = 0;
        while done < into.len() {
            let here = at.offset(done as u64).0;
            let (place, len) = self.place(here, into.len() - done, false);
            let piece = &mut into[done..done + len];
            let read = match place {
                Place::File(fd, offset) => memory::read(fd, offset, piece)
                    .then_some(())
                    .ok_or(DmaFault::Unbacked),
                Place::Client => self.ask(Command::DMA_READ, here, &[], piece),
                Place::Nowhere => Err(DmaFault::Refused),
            };
            if let Err(fault) = read {
                into.fill(0xff);
                return Err(fault);
            }
            done += len;
        }
        Ok(())
    }

    fn dma_write(
        &mut self,
        _: RequesterId,
        at: Iova,
        from: &[u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        let mut done = 0;
        while done < from.len() {
            let here = at.offset(done as u64).0;
            let (place, len) = self.place(here, from.len() - done, true);
            let piece = &from[done..done + len];
            match place {
                Place::File(fd, offset) => memory::write(fd, offset, piece)
                    .then_some(())
                    .ok_or(DmaFault::Unbacked)?,
                Place::Client => self.ask(Command::DMA_WRITE, here, piece, &mut [])?,
                Place::Nowhere => return Err(DmaFault::Refused),
            }
            done += len;
        }
        Ok(())
    }

    fn intx(&mut self, _: RequesterId, level: bool) {
        self.interrupts.pin(level);
    }

    fn now(&self) -> Time {
        let nanos = self.started.elapsed().as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX - 1))
    }

    fn wake_at(&mut self, _: RequesterId, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
