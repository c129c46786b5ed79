//! One client's life: what it asks, and what the function answers.

use crate::doorbells::{self, Page};
use crate::interrupts::Interrupts;
use crate::link::{Broken, Dma, Link};
use crate::spec::{
    Command, DEFAULT_TRANSFER, DeviceInfo, DmaMap, DmaUnmap, Errno, Header, IrqInfo, IrqSet, MAJOR,
    MAX_DMA_MAPS, MAX_FDS, MAX_TRANSFER, MINOR, PAGE, RegionAccess, RegionInfo, SparseMmap,
    Version, device, flags, irq, region,
};
use crate::stream::{Message, Stream, StreamError};
use crate::tap::Raised;
use cofferdam_seam::{
    Access, Bar, Budget, Bus, Capability, Completion, Progress, Reset, Time, Width,
};
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use vdevice_pci::PciFunction;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How long a client may take for its first message.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How often an idle session looks whether it is to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long after a ring a page of doorbells is looked at without a pause.
const HOT: Duration = Duration::from_millis(1);
/// How often it is looked at else.
const LOOK: Duration = Duration::from_millis(1);
/// Work between two looks at the socket.
const BUDGET: Budget = Budget(16);
/// Answers that may be outstanding, because a register completes late.
const LATE: usize = 64;
/// How often a read is made again at once when the device asks for it.
const RETRIES: u32 = 64;

/// How a client's session ended.
#[derive(Debug, Error)]
pub enum Ended {
    /// The server is to stop.
    #[error("the server stops")]
    Stopped,
    /// The connection.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It went without a word, as one does who only looks whether somebody serves here.
    #[error("the client left without a word")]
    Left,
    /// No first message.
    #[error("no version within {HANDSHAKE:?}")]
    Silent,
    /// No client of ours.
    #[error("no agreement on a version: {0}")]
    Version(&'static str),
    /// No memory for a page of doorbells.
    #[error("no page for doorbells: {0}")]
    Doorbells(std::io::Error),
    /// Reads that complete late, and still more of them.
    #[error("more than {LATE} reads that were not answered")]
    Unanswered,
}

impl From<StreamError> for Ended {
    fn from(error: StreamError) -> Self {
        Self::Broken(error.into())
    }
}

/// Where `--trace` goes: a line a message.
pub(crate) type Trace = Box<dyn FnMut(fmt::Arguments<'_>) + Send>;

/// An answer: its parts, before they are sent.
type Answer = Result<Vec<u8>, Errno>;

/// One client, and the function it was given.
pub(crate) struct Session<'a> {
    function: &'a mut PciFunction,
    raised: &'a Raised,
    link: Link,
    late: Vec<(Time, Header, Vec<u8>)>,
    /// Reads that are never answered while the server runs.
    owed: Vec<(Header, Vec<u8>)>,
    doorbells: Option<Page>,
    /// When somebody last rang.
    rung: Instant,
    trace: Option<&'a mut Trace>,
}

impl<'a> Session<'a> {
    pub fn new(
        function: &'a mut PciFunction,
        raised: &'a Raised,
        stream: Stream,
        dma: Dma,
        started: Instant,
        trace: Option<&'a mut Trace>,
    ) -> Self {
        let interrupts = Interrupts::new(function.identity());
        Self {
            function,
            raised,
            link: Link::new(stream, interrupts, dma, started),
            late: Vec::new(),
            owed: Vec::new(),
            doorbells: None,
            rung: started,
            trace,
        }
    }

    /// Serves the client until it goes, errs or `stop` is set. The function is reset before and
    /// after: it keeps nothing of a client's memory.
    pub fn run(&mut self, stop: &AtomicBool, doorbells: bool) -> Ended {
        if doorbells {
            match Page::of(self.function) {
                Ok(page) => self.doorbells = page,
                Err(error) => return Ended::Doorbells(error),
            }
        }
        self.function.reset(Reset::Cold);
        self.raised.take();
        self.link.wake_at(self.function.requester(), Time::ZERO);
        let ended = match self.agree(stop) {
            Ok(()) => self.serve(stop),
            Err(ended) => ended,
        };
        self.function.reset(Reset::Cold);
        ended
    }

    /// Receives the client's version and answers it.
    fn agree(&mut self, stop: &AtomicBool) -> Result<(), Ended> {
        let until = Instant::now() + HANDSHAKE;
        let message = loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            match self.link.stream.receive(TICK) {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                Err(StreamError::Closed) => return Err(Ended::Left),
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                return Err(Ended::Silent);
            }
        };
        let refuse = |session: &mut Self, why| {
            // It is told before the connection ends; whether it still listens does not matter.
            let _ = session.answer(&message.header, Err(Errno::INVALID));
            Err(Ended::Version(why))
        };
        if message.header.command != Command::VERSION
            || message.header.flags & flags::TYPE != flags::COMMAND
        {
            return refuse(self, "the first message was none");
        }
        let Ok((version, data)) = Version::read_from_prefix(&message.body) else {
            return refuse(self, "it is too short");
        };
        if version.major != MAJOR {
            return refuse(self, "the client's major version is not 0");
        }
        match transfer(data) {
            Some(transfer) => self.link.transfer = transfer,
            None => return refuse(self, "its capabilities make no sense"),
        }
        let ours = json!({ "capabilities": {
            "max_msg_fds": MAX_FDS, "max_data_xfer_size": MAX_TRANSFER,
            "max_dma_maps": MAX_DMA_MAPS, "pgsizes": PAGE,
        }});
        let agreed = Version {
            major: MAJOR,
            minor: version.minor.min(MINOR),
        };
        let mut body = agreed.as_bytes().to_vec();
        body.extend_from_slice(ours.to_string().as_bytes());
        body.push(0);
        self.note(format_args!("version {}.{}", agreed.major, agreed.minor));
        self.answer(&message.header, Ok(body))
    }

    fn serve(&mut self, stop: &AtomicBool) -> Ended {
        loop {
            if stop.load(Ordering::Relaxed) {
                return self.settle();
            }
            if let Err(ended) = self.turn() {
                return ended;
            }
            if let Some(broken) = self.link.broken.take() {
                return broken.into();
            }
        }
    }

    /// Answers what was never to be answered with all ones, as when a device is taken out: a client may wait on
    /// after the connection has ended (QEMU 11.1 does, and its guest stands still).
    fn settle(&mut self) -> Ended {
        for (header, body) in std::mem::take(&mut self.owed) {
            if let Err(ended) = self.answer(&header, Ok(body)) {
                return ended;
            }
        }
        Ended::Stopped
    }

    /// Work that is due, then one message.
    fn turn(&mut self) -> Result<(), Ended> {
        self.ring();
        let now = self.link.now();
        if self.link.wake.is_some_and(|at| at <= now) {
            self.link.wake = None;
            if self.function.step(BUDGET, &mut self.link) == Progress::More {
                self.link.wake = Some(now);
            }
            self.deliver();
        }
        self.answer_late()?;
        let next = self.late.iter().map(|(at, ..)| *at);
        let next = next.chain(self.link.wake).min();
        let wait = next.map_or(TICK, |at| {
            let left = at.nanos().saturating_sub(self.link.now().nanos());
            Duration::from_nanos(left).min(TICK)
        });
        let wait = match (&self.doorbells, self.rung.elapsed() < HOT) {
            (None, _) => wait,
            (Some(_), true) => Duration::ZERO,
            (Some(_), false) => wait.min(LOOK),
        };
        let message = match self.link.waiting.pop_front() {
            Some(message) => Some(message),
            None => self.link.stream.receive(wait)?,
        };
        // What was rung before the message was sent comes before it.
        if message.is_some() {
            self.ring();
        }
        message.map_or(Ok(()), |message| self.hear(message))
    }

    /// Rings what the client wrote to its page of doorbells.
    fn ring(&mut self) {
        if let Some(page) = &mut self.doorbells
            && page.ring(self.function, &mut self.link)
        {
            self.rung = Instant::now();
            self.deliver();
        }
    }

    fn hear(&mut self, message: Message) -> Result<(), Ended> {
        let Message { header, body, fds } = message;
        // An answer to what was given up.
        if header.flags & flags::TYPE == flags::REPLY {
            return Ok(());
        }
        let answer = match header.command {
            _ if header.flags & flags::TYPE != flags::COMMAND => Err(Errno::INVALID),
            Command::DMA_MAP => exact::<DmaMap>(&body).and_then(|map| {
                self.note(format_args!(
                    "dma-map {:#x} +{:#x} flags {} {}",
                    map.address,
                    map.size,
                    map.flags,
                    if fds.is_empty() {
                        "without file"
                    } else {
                        "file"
                    }
                ));
                self.link.memory.map(&map, fds).map(|()| Vec::new())
            }),
            Command::DMA_UNMAP => exact::<DmaUnmap>(&body).and_then(|unmap| {
                self.note(format_args!(
                    "dma-unmap {:#x} +{:#x}",
                    unmap.address, unmap.size
                ));
                self.link.memory.unmap(&unmap).map(|()| body)
            }),
            Command::DEVICE_GET_INFO => Ok(DeviceInfo {
                argsz: 16,
                flags: device::PCI | device::RESET,
                regions: region::COUNT,
                irqs: irq::COUNT,
            }
            .as_bytes()
            .to_vec()),
            Command::DEVICE_GET_REGION_INFO => {
                let info =
                    prefix::<RegionInfo>(&body).and_then(|(asked, _)| self.region_info(&asked));
                return self.answer_info(&header, info);
            }
            Command::DEVICE_GET_IRQ_INFO => prefix::<IrqInfo>(&body).and_then(|(asked, _)| {
                let info = self.link.interrupts.info(asked.index);
                info.map(|info| info.as_bytes().to_vec())
                    .ok_or(Errno::INVALID)
            }),
            Command::DEVICE_SET_IRQS => prefix::<IrqSet>(&body).and_then(|(set, bools)| {
                self.note(format_args!(
                    "set-irqs {} {}+{} flags {:#x} {} eventfds",
                    set.index,
                    set.start,
                    set.count,
                    set.flags,
                    fds.len()
                ));
                let set = self.link.interrupts.set(&set, bools, fds);
                set.map(|()| Vec::new())
            }),
            Command::REGION_READ => match prefix::<RegionAccess>(&body) {
                Ok((access, [])) => return self.region_read(header, access),
                _ => Err(Errno::INVALID),
            },
            Command::REGION_WRITE => prefix::<RegionAccess>(&body)
                .and_then(|(access, data)| self.region_write(access, data)),
            Command::DEVICE_RESET => {
                self.note(format_args!("reset"));
                self.function.reset(Reset::FunctionLevel);
                self.raised.take();
                self.link.interrupts.reset();
                self.link.wake_at(self.function.requester(), Time::ZERO);
                Ok(Vec::new())
            }
            Command::VERSION => Err(Errno::INVALID),
            _ => Err(Errno::NOT_SUPPORTED),
        };
        self.answer(&header, answer)
    }

    /// Sends what there is to know of a region, with the page of doorbells if it is there.
    fn answer_info(&mut self, to: &Header, info: Answer) -> Result<(), Ended> {
        let with_page = info
            .as_ref()
            .is_ok_and(|info| info.len() > size_of::<RegionInfo>());
        match (&self.doorbells, info) {
            (Some(page), Ok(info)) if with_page && to.flags & flags::NO_REPLY == 0 => {
                let header = Header {
                    flags: flags::REPLY,
                    error: 0,
                    size: 0,
                    ..*to
                };
                let sent = self.link.stream.send(header, &[&info], &[page.file()]);
                Ok(sent?)
            }
            (_, info) => self.answer(to, info),
        }
    }

    fn region_info(&self, asked: &RegionInfo) -> Answer {
        let index = asked.index;
        if index >= region::COUNT {
            return Err(Errno::INVALID);
        }
        let size = self.region_size(index);
        let mut info = RegionInfo {
            argsz: 32,
            flags: if size == 0 {
                0
            } else {
                region::READ | region::WRITE
            },
            index,
            capabilities: 0,
            size,
            offset: 0,
        };
        let page = self.doorbells.as_ref().map(Page::place);
        let page = page.filter(|(bar, _)| u32::try_from(bar.index()) == Ok(index));
        let Some((_, start)) = page else {
            return Ok(info.as_bytes().to_vec());
        };
        info.flags |= region::MMAP | region::CAPS;
        info.capabilities = 32;
        info.argsz = 64;
        // A client that has no room for the capability asks again with some.
        if asked.argsz < info.argsz {
            return Ok(info.as_bytes().to_vec());
        }
        let part = SparseMmap {
            id: region::SPARSE_MMAP,
            version: 1,
            next: 0,
            areas: 1,
            reserved: 0,
            offset: start.into(),
            size: doorbells::BYTES as u64,
        };
        Ok([info.as_bytes(), part.as_bytes()].concat())
    }

    /// Bytes of a region; none if the function has no such region.
    fn region_size(&self, index: u32) -> u64 {
        if index == region::CONFIG {
            let express = self.function.identity().capabilities.iter();
            let mut express = express.filter(|one| matches!(one, Capability::PcieEndpoint { .. }));
            return if express.next().is_some() { 4096 } else { 256 };
        }
        let bar = u8::try_from(index).ok().and_then(Bar::new);
        bar.and_then(|bar| self.function.bar_size(bar)).unwrap_or(0)
    }

    /// The offset of an access that lies in its region.
    fn within(&self, access: &RegionAccess) -> Result<u32, Errno> {
        let size = self.region_size(access.region);
        let end = access.offset.checked_add(access.count.into());
        if access.count == 0 || end.is_none_or(|end| end > size) {
            return Err(Errno::INVALID);
        }
        u32::try_from(access.offset).map_err(|_| Errno::INVALID)
    }

    fn region_read(&mut self, header: Header, access: RegionAccess) -> Result<(), Ended> {
        let at = match self.within(&access) {
            Ok(_) if access.count as usize > MAX_TRANSFER => Err(Errno::TOO_BIG),
            other => other,
        };
        let at = match at {
            Ok(at) => at,
            Err(errno) => return self.answer(&header, Err(errno)),
        };
        let mut body = access.as_bytes().to_vec();
        let mut delay = Some(Duration::ZERO);
        for (at, width) in pieces(at, access.count) {
            let (value, later) = self.read_piece(access.region, at, width);
            delay = delay.zip(later).map(|(one, other)| one + other);
            body.extend_from_slice(&value.to_le_bytes()[..width.bytes() as usize]);
        }
        self.deliver();
        self.note(format_args!(
            "read {} {at:#x} {} = {:02x?}{}",
            access.region,
            access.count,
            &body[16..body.len().min(24)],
            if delay.is_none() { " never" } else { "" }
        ));
        match delay {
            Some(Duration::ZERO) => self.answer(&header, Ok(body)),
            Some(delay) if self.late.len() < LATE => {
                self.late.push((self.link.now() + delay, header, body));
                Ok(())
            }
            Some(_) => Err(Ended::Unanswered),
            // The bus is locked: whoever waits, waits.
            None => {
                if self.owed.len() < LATE {
                    self.owed.push((header, body));
                }
                Ok(())
            }
        }
    }

    /// What a register holds, and how late it says so; never, if none.
    fn read_piece(&mut self, index: u32, at: u32, width: Width) -> (u64, Option<Duration>) {
        let soon = Some(Duration::ZERO);
        if index == region::CONFIG {
            let offset = u16::try_from(at).unwrap_or(u16::MAX);
            let now = self.link.now();
            let value = self.function.answer_config(offset, width, now);
            return (value.into(), soon);
        }
        let Some(access) = self.bar_access(index, at, width) else {
            return (width.all_ones(), soon);
        };
        let mut times = 0;
        loop {
            match self.function.read(access, &mut self.link) {
                Completion::Data(value) => return (value, soon),
                Completion::Never => return (u64::MAX, None),
                Completion::After { delay, value } => return (value, Some(delay)),
                Completion::Retry { times: asked } if asked != u32::MAX && times < RETRIES => {
                    times += 1;
                }
                Completion::Retry { .. } => return (u64::MAX, None),
                Completion::Unsupported | Completion::Abort | Completion::Poisoned => {
                    return (width.all_ones(), soon);
                }
            }
        }
    }

    fn region_write(&mut self, access: RegionAccess, data: &[u8]) -> Answer {
        let at = self.within(&access)?;
        if data.len() != access.count as usize {
            return Err(Errno::INVALID);
        }
        self.note(format_args!(
            "write {} {at:#x} {} = {:02x?}",
            access.region,
            access.count,
            &data[..data.len().min(8)]
        ));
        let mut data = data;
        for (at, width) in pieces(at, access.count) {
            let (piece, rest) = data.split_at(width.bytes() as usize);
            data = rest;
            let mut bytes = [0; 8];
            bytes[..piece.len()].copy_from_slice(piece);
            let value = u64::from_le_bytes(bytes);
            if access.region == region::CONFIG {
                let [a, b, c, d, ..] = bytes;
                let offset = u16::try_from(at).unwrap_or(u16::MAX);
                let value = u32::from_le_bytes([a, b, c, d]);
                self.function
                    .config_write(offset, width, value, &mut self.link);
            } else if let Some(access) = self.bar_access(access.region, at, width) {
                if let Some(page) = &mut self.doorbells {
                    page.rung_by_message(access, value);
                }
                self.function.write(access, value, &mut self.link);
            }
        }
        self.deliver();
        Ok(access.as_bytes().to_vec())
    }

    fn bar_access(&self, index: u32, at: u32, width: Width) -> Option<Access> {
        let bar = u8::try_from(index).ok().and_then(Bar::new)?;
        Access::new(bar, at, width, self.function.bar_size(bar)?)
    }

    /// Takes what the model raised to the client. A message is a memory write: it needs the
    /// bus-master enable bit.
    fn deliver(&mut self) {
        let raised = self.raised.take();
        if !raised.is_empty() && self.function.bus_master() {
            self.note(format_args!("raise {:#x}", raised.0));
            self.link.interrupts.raise(raised);
        }
    }

    fn answer_late(&mut self) -> Result<(), Ended> {
        let now = self.link.now();
        while let Some(due) = self.late.iter().position(|(at, ..)| *at <= now) {
            let (_, header, body) = self.late.swap_remove(due);
            self.answer(&header, Ok(body))?;
        }
        Ok(())
    }

    fn answer(&mut self, to: &Header, answer: Answer) -> Result<(), Ended> {
        if let Err(errno) = answer {
            self.note(format_args!("refused {:?}: {errno:?}", to.command));
        }
        if to.flags & flags::NO_REPLY != 0 {
            return Ok(());
        }
        let (flags, error, body) = match answer {
            Ok(body) => (flags::REPLY, 0, body),
            Err(Errno(error)) => (flags::REPLY | flags::ERROR, error, Vec::new()),
        };
        let header = Header {
            id: to.id,
            command: to.command,
            size: 0,
            flags,
            error,
        };
        Ok(self.link.stream.send(header, &[&body], &[])?)
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            trace(what);
        }
    }
}

/// The most bytes of data the client takes in a message, by what came with its version; `None` if
/// that makes no sense.
fn transfer(data: &[u8]) -> Option<usize> {
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    let theirs = if text.is_empty() {
        DEFAULT_TRANSFER
    } else {
        let value: Value = serde_json::from_slice(text).ok()?;
        match value.pointer("/capabilities/max_data_xfer_size") {
            Some(size) => usize::try_from(size.as_u64()?).ok()?,
            None => DEFAULT_TRANSFER,
        }
    };
    (theirs > 0).then_some(theirs.min(MAX_TRANSFER))
}

fn exact<T: FromBytes>(body: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(body).map_err(|_| Errno::INVALID)
}

fn prefix<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(body).map_err(|_| Errno::INVALID)
}

/// The naturally aligned accesses, of four bytes at most unless it is one of eight, that make up a
/// range.
fn pieces(at: u32, count: u32) -> impl Iterator<Item = (u32, Width)> {
    let end = at + count;
    let whole = count == 8 && at.is_multiple_of(8);
    let mut at = at;
    std::iter::from_fn(move || {
        let left = end - at;
        let width = match at % 4 {
            _ if left == 0 => return None,
            _ if whole => Width::Eight,
            0 if left >= 4 => Width::Four,
            0 | 2 if left >= 2 => Width::Two,
            _ => Width::One,
        };
        let here = at;
        at += width.bytes();
        Some((here, width))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fall_into_aligned_accesses() {
        let widths = |at, count| -> Vec<(u32, u32)> {
            pieces(at, count)
                .map(|(at, width)| (at, width.bytes()))
                .collect()
        };
        assert_eq!(widths(8, 8), [(8, 8)]);
        assert_eq!(widths(4, 8), [(4, 4), (8, 4)]);
        assert_eq!(widths(1, 6), [(1, 1), (2, 2), (4, 2), (6, 1)]);
        assert_eq!(widths(0x3d, 1), [(0x3d, 1)]);
    }

    #[test]
    fn client_that_takes_nothing_is_refused() {
        let of = |text: &str| transfer(text.as_bytes());
        assert_eq!(of(""), Some(MAX_TRANSFER));
        assert_eq!(of("{}\0"), Some(MAX_TRANSFER));
        assert_eq!(
            of(r#"{"capabilities":{"max_data_xfer_size":4096}}"#),
            Some(4096)
        );
        assert_eq!(of(r#"{"capabilities":{"max_data_xfer_size":0}}"#), None);
        assert_eq!(of(r#"{"capabilities":{"max_data_xfer_size":-1}}"#), None);
        assert_eq!(of("{"), None);
    }
}
