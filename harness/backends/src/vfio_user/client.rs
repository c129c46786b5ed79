//! Questions and answers on one connection, and the memory the server may ask for.

use cofferdam_machine::{Memory, PhysAddr};
use cofferdam_seam::{Direction, Iova};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use thiserror::Error;
use vdevice_server::spec::{
    Command, DmaAccess, DmaMap, DmaUnmap, Errno, Header, IrqInfo, IrqSet, MAJOR, MAX_TRANSFER,
    MINOR, RegionAccess, RegionInfo, SparseMmap, Version, dma, flags, irq, region,
};
use vdevice_server::stream::{Message, Stream, StreamError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How long a server may take for an answer.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The page of a mapping.
pub(crate) const PAGE: u64 = 4096;
/// The lowest DMA address given out: what is not initialised points to none.
const FIRST: u64 = 0x10_0000;

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum Failure {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// No answer in time.
    #[error("command {0} was not answered within {ANSWER:?}")]
    Silent(u16),
    /// The server said no.
    #[error("command {command} was refused with error {error}")]
    Refused {
        /// Which.
        command: u16,
        /// A Unix error number.
        error: u32,
    },
    /// An answer to something else.
    #[error("command {0} was answered with what is no answer to it")]
    Garbled(u16),
}

/// Pages that are lent.
struct Lent {
    size: u64,
    at: PhysAddr,
    way: Direction,
}

/// A page of a region that can be mapped.
pub(crate) struct Part {
    /// Where in the region it begins.
    pub start: u64,
    /// What to map.
    pub file: OwnedFd,
    /// Where in the file the page is.
    pub at: u64,
}

/// One connection.
pub(crate) struct Client {
    stream: Stream,
    memory: Memory,
    lent: BTreeMap<u64, Lent>,
    id: u16,
}

impl Client {
    /// Agrees on a version.
    pub fn new(socket: UnixStream, memory: Memory) -> Result<Self, Failure> {
        let mut client = Self {
            stream: Stream::new(socket),
            memory,
            lent: BTreeMap::new(),
            id: 0,
        };
        let version = Version {
            major: MAJOR,
            minor: MINOR,
        };
        let text = format!("{{\"capabilities\":{{\"max_data_xfer_size\":{MAX_TRANSFER}}}}}\0");
        let parts = [version.as_bytes(), text.as_bytes()];
        let (agreed, _) = client.ask_with_rest::<Version>(Command::VERSION, &parts, &[])?;
        if agreed.major != MAJOR || agreed.minor > MINOR {
            return Err(Failure::Garbled(Command::VERSION.0));
        }
        Ok(client)
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket()
    }

    /// How many mappings there are.
    pub fn mappings(&self) -> usize {
        self.lent.len()
    }

    /// A region: its bytes, zero if there is none, and the part of it that can be mapped, if one can.
    pub fn region(&mut self, index: u32) -> Result<(u64, Option<Part>), Failure> {
        let asked = RegionInfo {
            argsz: 64,
            flags: 0,
            index,
            capabilities: 0,
            size: 0,
            offset: 0,
        };
        let command = Command::DEVICE_GET_REGION_INFO;
        let mut answer = self.ask(command, &[asked.as_bytes()], &[])?;
        let (info, rest) =
            RegionInfo::read_from_prefix(&answer.body).map_err(|_| Failure::Garbled(command.0))?;
        let follows = region::MMAP | region::CAPS;
        let sparse = (info.flags & follows == follows && info.capabilities == 32)
            .then(|| SparseMmap::read_from_prefix(rest).ok())
            .flatten();
        let part = sparse.and_then(|(sparse, _)| {
            let end = sparse.offset.checked_add(sparse.size)?;
            let known = (sparse.id, sparse.version, sparse.areas) == (region::SPARSE_MMAP, 1, 1);
            let file = answer.fds.pop().filter(|_| answer.fds.is_empty())?;
            (known && end <= info.size && sparse.size == PAGE).then_some(Part {
                start: sparse.offset,
                file,
                at: info.offset.checked_add(sparse.offset)?,
            })
        });
        Ok((info.size, part))
    }

    /// How many interrupts of a kind there are.
    pub fn irqs(&mut self, index: u32) -> Result<u32, Failure> {
        let asked = IrqInfo {
            argsz: 16,
            flags: 0,
            index,
            count: 0,
        };
        let command = Command::DEVICE_GET_IRQ_INFO;
        let (info, _) = self.ask_with_rest::<IrqInfo>(command, &[asked.as_bytes()], &[])?;
        Ok(info.count)
    }

    /// Has interrupts of a kind signalled at these eventfds, from `start` on.
    pub fn attach(
        &mut self,
        index: u32,
        start: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
        self.set_irqs(
            index,
            irq::DATA_EVENTFD | irq::TRIGGER,
            start..start.saturating_add(count),
            fds,
        )
    }

    /// Lets the pin interrupt again.
    pub fn unmask_pin(&mut self) -> Result<(), Failure> {
        self.set_irqs(irq::INTX, irq::DATA_NONE | irq::UNMASK, 0..1, &[])
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        which: std::ops::Range<u32>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        let set = IrqSet {
            argsz: 20,
            flags,
            index,
            start: which.start,
            count: which.end - which.start,
        };
        self.ask(Command::DEVICE_SET_IRQS, &[set.as_bytes()], fds)
            .map(drop)
    }

    /// Reads a region.
    pub fn read(&mut self, region: u32, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        let access = access(region, offset, into.len());
        let command = Command::REGION_READ;
        let (_, data) = self.ask_with_rest::<RegionAccess>(command, &[access.as_bytes()], &[])?;
        if data.len() != into.len() {
            return Err(Failure::Garbled(command.0));
        }
        into.copy_from_slice(&data);
        Ok(())
    }

    /// Writes a region, and waits until the server has done it.
    pub fn write(&mut self, region: u32, offset: u64, from: &[u8]) -> Result<(), Failure> {
        let access = access(region, offset, from.len());
        let parts = [access.as_bytes(), from];
        self.ask(Command::REGION_WRITE, &parts, &[]).map(drop)
    }

    /// Resets the device.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.ask(Command::DEVICE_RESET, &[], &[]).map(drop)
    }

    /// Lends pages that hold `len` bytes at `at`; the device's address of the first.
    pub fn map(
        &mut self,
        file: BorrowedFd<'_>,
        at: PhysAddr,
        len: usize,
        way: Direction,
    ) -> Result<Iova, Failure> {
        let start = at.0 & !(PAGE - 1);
        let inside = at.0 - start;
        let size = (inside + len.max(1) as u64).next_multiple_of(PAGE);
        let address = self.free(size);
        let reads = u32::from(way.device_reads()) * dma::READ;
        let writes = u32::from(way.device_writes()) * dma::WRITE;
        let map = DmaMap {
            argsz: 32,
            flags: reads | writes,
            offset: start,
            address,
            size,
        };
        self.ask(Command::DMA_MAP, &[map.as_bytes()], &[file])?;
        let at = PhysAddr(start);
        self.lent.insert(address, Lent { size, at, way });
        Ok(Iova(address + inside))
    }

    /// Takes the pages back that `iova` lies in.
    pub fn unmap(&mut self, iova: Iova) -> Result<(), Failure> {
        let address = iova.0 & !(PAGE - 1);
        let Some(lent) = self.lent.remove(&address) else {
            return Ok(());
        };
        let unmap = DmaUnmap {
            argsz: 24,
            flags: 0,
            address,
            size: lent.size,
        };
        self.ask(Command::DMA_UNMAP, &[unmap.as_bytes()], &[])
            .map(drop)
    }

    /// The lowest addresses with a free page on either side.
    fn free(&self, size: u64) -> u64 {
        let mut start = FIRST;
        for (&address, lent) in &self.lent {
            if start + size + PAGE <= address {
                break;
            }
            start = address + lent.size + PAGE;
        }
        start
    }

    /// Serves what the server asks for by now.
    pub fn attend(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.stream.receive(Duration::ZERO)? {
            self.serve(&message)?;
        }
        Ok(())
    }

    fn ask_with_rest<T: FromBytes + KnownLayout + Immutable>(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(T, Vec<u8>), Failure> {
        let answer = self.ask(command, parts, fds)?;
        let (fixed, rest) =
            T::read_from_prefix(&answer.body).map_err(|_| Failure::Garbled(command.0))?;
        Ok((fixed, rest.to_vec()))
    }

    fn ask(
        &mut self,
        command: Command,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message, Failure> {
        self.id = self.id.wrapping_add(1);
        let header = Header {
            id: self.id,
            command,
            size: 0,
            flags: flags::COMMAND,
            error: 0,
        };
        self.stream.send(header, parts, fds)?;
        let until = Instant::now() + ANSWER;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(message) = self.stream.receive(left)? else {
                return Err(Failure::Silent(command.0));
            };
            let header = message.header;
            if header.flags & flags::TYPE != flags::REPLY {
                self.serve(&message)?;
            } else if (header.id, header.command) == (self.id, command) {
                let error = header.error;
                return match header.flags & flags::ERROR {
                    0 => Ok(message),
                    _ => Err(Failure::Refused {
                        command: command.0,
                        error,
                    }),
                };
            }
            // Another answer is one that came too late.
            if left.is_zero() {
                return Err(Failure::Silent(command.0));
            }
        }
    }

    /// Does what the server asks, if it may.
    fn serve(&mut self, message: &Message) -> Result<(), Failure> {
        let Message { header, body, .. } = message;
        if header.flags & flags::TYPE != flags::COMMAND {
            return Ok(());
        }
        let done = DmaAccess::read_from_prefix(body)
            .map_err(|_| Errno::INVALID)
            .and_then(|(access, data)| self.dma(header.command, access, data));
        if header.flags & flags::NO_REPLY != 0 {
            return Ok(());
        }
        let mut reply = *header;
        reply.flags = flags::REPLY;
        match done {
            Ok(answer) => self.stream.send(reply, &[&answer], &[])?,
            Err(Errno(error)) => {
                reply.flags |= flags::ERROR;
                reply.error = error;
                self.stream.send(reply, &[], &[])?;
            }
        }
        Ok(())
    }

    fn dma(&self, command: Command, access: DmaAccess, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let len = usize::try_from(access.count).map_err(|_| Errno::TOO_BIG)?;
        if len > MAX_TRANSFER {
            return Err(Errno::TOO_BIG);
        }
        let mut answer = access.as_bytes().to_vec();
        match command {
            Command::DMA_READ if data.is_empty() => {
                let at = self.granted(access, Direction::device_reads)?;
                let mut bytes = vec![0; len];
                let read = self.memory.read(at, &mut bytes);
                read.map_err(|_| Errno::FAULT)?;
                answer.extend_from_slice(&bytes);
            }
            Command::DMA_WRITE if data.len() == len => {
                let at = self.granted(access, Direction::device_writes)?;
                self.memory.write(at, data).map_err(|_| Errno::FAULT)?;
            }
            Command::DMA_READ | Command::DMA_WRITE => return Err(Errno::INVALID),
            _ => return Err(Errno::NOT_SUPPORTED),
        }
        Ok(answer)
    }

    /// Where the bytes are that one mapping lends for this.
    fn granted(
        &self,
        access: DmaAccess,
        allows: impl Fn(Direction) -> bool,
    ) -> Result<PhysAddr, Errno> {
        let (start, lent) = self
            .lent
            .range(..=access.address)
            .next_back()
            .ok_or(Errno::FAULT)?;
        let inside = access.address - start;
        let end = inside.checked_add(access.count);
        if !allows(lent.way) || end.is_none_or(|end| end > lent.size) {
            return Err(Errno::FAULT);
        }
        Ok(PhysAddr(lent.at.0 + inside))
    }
}

fn access(region: u32, offset: u64, len: usize) -> RegionAccess {
    RegionAccess {
        offset,
        region,
        count: u32::try_from(len).unwrap_or(u32::MAX),
    }
}
