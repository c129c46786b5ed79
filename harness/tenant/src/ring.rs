//! The ring: how a tenant's request gets to the domain that serves it.
//!
//! [`SLOTS`] requests and [`PAGES`] data pages, of which each request names one, in memory that both
//! sides share; whose it is and how a doorbell rings is not the ring's business.
//!
//! Who owns what: the tenant owns a slot and its data until it raises `submitted` past it; the
//! server owns them until it raises `completed`. A server that dies in between leaves `completed`
//! where it was, so its successor serves the request again: no acknowledged request is repeated,
//! no unacknowledged one is forgotten. Neither side believes the other's indices.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Requests in a ring.
pub const SLOTS: usize = 4;
/// Bytes of data a request can carry.
pub const DATA: usize = 4096;
/// Data pages of a ring. A request names the one its data are in; those that no slot needs are there to
/// take the place of one that the tenant gives back.
pub const PAGES: usize = 7;
/// Bytes of a ring: its header has a page, too.
pub const BYTES: usize = (1 + PAGES) * DATA;

/// The memory of a ring: [`BYTES`] of them.
pub trait Shared: Copy {
    /// The header, at its beginning.
    fn header(&self) -> &Header;

    /// Reads a byte, below [`BYTES`], as whoever else uses the ring left it.
    fn byte(&self, at: usize) -> u8;

    /// Writes one.
    fn set_byte(&self, at: usize, value: u8);
}

/// What somebody who is neither side sees of a ring. Nothing of it is to be believed.
pub struct Glance {
    /// Requests made, by the tenant's count.
    pub submitted: u32,
    /// Requests answered, by the server's count.
    pub completed: u32,
    /// Of each slot: what is asked, in words, and whether its answer is good.
    pub slots: [(String, bool); SLOTS],
}

/// What a tenant asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: measures the crossing.
    Nop,
    /// Reads sectors into the data page.
    Read {
        /// First sector.
        sector: u64,
    },
    /// Writes sectors from the data page.
    Write {
        /// First sector.
        sector: u64,
    },
    /// A factorial; the answer is in the first four bytes of the data page.
    Factorial {
        /// Of what.
        n: u64,
    },
    /// Sends the data page through the device and back.
    RoundTrip,
}

impl Ask {
    const fn encode(self) -> (u32, u64) {
        match self {
            Self::Nop => (0, 0),
            Self::Read { sector } => (1, sector),
            Self::Write { sector } => (2, sector),
            Self::Factorial { n } => (3, n),
            Self::RoundTrip => (4, 0),
        }
    }

    const fn decode(op: u32, argument: u64) -> Option<Self> {
        match op {
            0 => Some(Self::Nop),
            1 => Some(Self::Read { sector: argument }),
            2 => Some(Self::Write { sector: argument }),
            3 => Some(Self::Factorial { n: argument }),
            4 => Some(Self::RoundTrip),
            _ => None,
        }
    }
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As asked.
    Good,
    /// Not at all.
    Failed,
}

#[derive(Default)]
#[repr(C, align(64))]
struct Slot {
    op: AtomicU32,
    /// Bytes of data that come with the request.
    len: AtomicU32,
    /// Bytes of data the answer may bring.
    room: AtomicU32,
    status: AtomicU32,
    argument: AtomicU64,
    id: AtomicU64,
    answered_id: AtomicU64,
    /// Bytes of data the answer brought.
    answered_len: AtomicU32,
    /// Which of the ring's data pages.
    page: AtomicU32,
}

/// Bytes of a request and of an answer that a message carries beside the data.
const REQUEST_HEADER: usize = 4 + 4 + 4 + 8 + 8;
const ANSWER_HEADER: usize = 4 + 8 + 4;

impl Slot {
    fn status(&self) -> Status {
        match self.status.load(Ordering::Relaxed) {
            0 => Status::Good,
            _ => Status::Failed,
        }
    }
}

/// Room at the head of a ring for its tenant's event words, whatever they are.
#[derive(Default)]
#[repr(C, align(64))]
pub struct EventRoom([AtomicU64; 8]);

/// What is at the beginning of a ring.
#[derive(Default)]
#[repr(C)]
pub struct Header {
    events: EventRoom,
    submitted: AtomicU32,
    completed: AtomicU32,
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Header>() <= DATA);
const _: () = assert!(SLOTS < PAGES);

impl Header {
    /// Requests answered so far, by the ring's own count.
    pub fn answered(&self) -> u32 {
        self.completed.load(Ordering::Acquire)
    }

    /// Looks at it.
    pub fn glance(&self) -> Glance {
        Glance {
            submitted: self.submitted.load(Ordering::Acquire),
            completed: self.completed.load(Ordering::Acquire),
            slots: core::array::from_fn(|slot| {
                let slot = &self.slots[slot];
                let argument = slot.argument.load(Ordering::Relaxed);
                let ask = match Ask::decode(slot.op.load(Ordering::Relaxed), argument) {
                    Some(Ask::Nop) => "nothing".to_owned(),
                    Some(Ask::Read { sector }) => format!("read sector {sector}"),
                    Some(Ask::Write { sector }) => format!("write sector {sector}"),
                    Some(Ask::Factorial { n }) => format!("factorial of {n}"),
                    Some(Ask::RoundTrip) => "round trip".to_owned(),
                    None => "what means nothing".to_owned(),
                };
                (ask, slot.status() == Status::Good)
            }),
        }
    }
}

/// A request as it was read from a ring, once.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes of data that come with it, at most [`DATA`].
    pub len: usize,
    /// Bytes of data the answer may bring, at most [`DATA`].
    pub room: usize,
    op: u32,
    argument: u64,
    id: u64,
    slot: usize,
    /// Which of the ring's data pages, below [`PAGES`].
    page: usize,
}

impl Request {
    /// What is asked, if it means anything.
    pub const fn ask(&self) -> Option<Ask> {
        Ask::decode(self.op, self.argument)
    }
}

/// A ring, seen from either end.
#[derive(Clone, Copy)]
pub struct Ring<M> {
    memory: M,
    phys: u64,
}

impl<M: Shared> Ring<M> {
    /// The ring in that memory, which begins at the physical address `phys` of the machine.
    pub const fn new(memory: M, phys: u64) -> Self {
        Self { memory, phys }
    }

    fn header(&self) -> &Header {
        self.memory.header()
    }

    /// Tenant: posts its `nth` request with its data in data page `page`, where the answer may bring
    /// `room` bytes. The caller keeps at most [`SLOTS`] open, each with a page of its own.
    pub fn submit(&self, nth: u32, page: usize, ask: Ask, data: &[u8], room: usize) {
        let (op, argument) = ask.encode();
        self.write_data(page, data);
        let request = Request {
            len: data.len().min(DATA),
            room: room.min(DATA),
            op,
            argument,
            id: nth.into(),
            slot: 0,
            page,
        };
        self.post(nth, &request);
    }

    fn post(&self, nth: u32, request: &Request) {
        let slot = &self.header().slots[nth as usize % SLOTS];
        slot.op.store(request.op, Ordering::Relaxed);
        slot.argument.store(request.argument, Ordering::Relaxed);
        slot.len.store(count(request.len), Ordering::Relaxed);
        slot.room.store(count(request.room), Ordering::Relaxed);
        slot.id.store(request.id, Ordering::Relaxed);
        slot.page.store(count(request.page), Ordering::Relaxed);
        self.header()
            .submitted
            .store(nth.wrapping_add(1), Ordering::Release);
    }

    /// Tenant: the answer to the oldest request, the `nth` it ever submitted, whose data are in data
    /// page `page`, into `data`.
    pub fn answer(&self, nth: u32, page: usize, data: &mut [u8]) -> Option<Status> {
        let slot = self.answered_slot(nth)?;
        self.read_data(page, data);
        Some(slot.status())
    }

    fn answered_slot(&self, nth: u32) -> Option<&Slot> {
        let completed = self.header().completed.load(Ordering::Acquire);
        // The count is the server's word: only "past mine" is of interest.
        let ahead = completed.wrapping_sub(nth);
        if ahead == 0 || ahead > u32::MAX / 2 {
            return None;
        }
        Some(&self.header().slots[nth as usize % SLOTS])
    }

    /// Tenant: answers given beyond the `submitted` requests made.
    pub fn surplus(&self, submitted: u32) -> u32 {
        let ahead = self
            .header()
            .completed
            .load(Ordering::Acquire)
            .wrapping_sub(submitted);
        if ahead > u32::MAX / 2 { 0 } else { ahead }
    }

    /// Server: the oldest open request. An index no honest tenant can have is taken as an empty
    /// ring.
    pub fn next(&self) -> Option<Request> {
        let submitted = self.header().submitted.load(Ordering::Acquire);
        let completed = self.header().completed.load(Ordering::Relaxed);
        let open = submitted.wrapping_sub(completed);
        if open == 0 || open as usize > SLOTS {
            return None;
        }
        let index = completed as usize % SLOTS;
        let slot = &self.header().slots[index];
        Some(Request {
            len: (slot.len.load(Ordering::Relaxed) as usize).min(DATA),
            room: (slot.room.load(Ordering::Relaxed) as usize).min(DATA),
            op: slot.op.load(Ordering::Relaxed),
            argument: slot.argument.load(Ordering::Relaxed),
            id: slot.id.load(Ordering::Relaxed),
            slot: index,
            // A page that the ring does not have is taken for its last.
            page: (slot.page.load(Ordering::Relaxed) as usize).min(PAGES - 1),
        })
    }

    /// Server: copies the request's data out of the tenant's memory.
    pub fn data(&self, request: &Request) -> Vec<u8> {
        let mut data = vec![0; request.len];
        self.read_data(request.page, &mut data);
        data
    }

    /// Server: the first bytes of an answer, for whoever dies before the rest.
    pub fn begin_answer(&self, request: &Request, data: &[u8]) {
        self.write_data(request.page, data);
    }

    /// Server: answers the oldest open request.
    pub fn complete(&self, request: &Request, status: Status, data: &[u8]) {
        self.write_data(request.page, data);
        self.conclude(request, status, data.len());
    }

    /// Server: answers it where its page holds the answer's `len` bytes already.
    pub fn complete_in_place(&self, request: &Request, status: Status, len: usize) {
        self.conclude(request, status, len);
    }

    /// Server: the physical address of the page with a request's data.
    pub fn page_of(&self, request: &Request) -> u64 {
        self.data_page(request.page)
    }

    /// The physical address of a data page.
    pub fn data_page(&self, page: usize) -> u64 {
        self.phys + ((1 + page) * DATA) as u64
    }

    /// Between two rings: copies a request of this ring to another, as the `nth` posted there.
    /// Returns the bytes copied.
    pub fn forward(&self, request: &Request, to: &Self, nth: u32) -> usize {
        let page = nth as usize % SLOTS;
        self.copy(request.page, to, page, request.len);
        to.post(nth, &Request { page, ..*request });
        REQUEST_HEADER + request.len
    }

    /// Between two rings: copies the answer to the `nth` request posted in `from`, if it is there,
    /// back as the answer to `request` of this one. Returns the bytes copied.
    pub fn give_back(&self, request: &Request, from: &Self, nth: u32) -> Option<usize> {
        let slot = from.answered_slot(nth)?;
        let len = (slot.answered_len.load(Ordering::Relaxed) as usize).min(request.room);
        from.copy(nth as usize % SLOTS, self, request.page, len);
        self.conclude(request, slot.status(), len);
        Some(ANSWER_HEADER + len)
    }

    fn conclude(&self, request: &Request, status: Status, len: usize) {
        let slot = &self.header().slots[request.slot];
        slot.status
            .store(u32::from(status == Status::Failed), Ordering::Relaxed);
        slot.answered_id.store(request.id, Ordering::Relaxed);
        slot.answered_len.store(count(len), Ordering::Relaxed);
        let completed = self.header().completed.load(Ordering::Relaxed);
        self.header()
            .completed
            .store(completed.wrapping_add(1), Ordering::Release);
    }

    /// Where a byte of a data page is in the memory, if it is in one.
    fn place(page: usize, at: usize) -> usize {
        (1 + page.min(PAGES - 1)) * DATA + at.min(DATA - 1)
    }

    fn copy(&self, page: usize, to: &Self, other: usize, len: usize) {
        for at in 0..len.min(DATA) {
            let byte = self.memory.byte(Self::place(page, at));
            to.memory.set_byte(Self::place(other, at), byte);
        }
    }

    fn write_data(&self, page: usize, data: &[u8]) {
        for (at, byte) in data.iter().enumerate().take(DATA) {
            self.memory.set_byte(Self::place(page, at), *byte);
        }
    }

    fn read_data(&self, page: usize, data: &mut [u8]) {
        for (at, byte) in data.iter_mut().enumerate().take(DATA) {
            *byte = self.memory.byte(Self::place(page, at));
        }
    }
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}
