//! The crossing: how a tenant's request gets to the domain that serves it.
//!
//! A ring of [`SLOTS`] requests and a data page for each, in the tenant's frames, lent to the
//! server. The bytes are plain shared memory; the doorbell that goes with them is a call to the
//! hardware under leap, an event word and a futex under the wall clock.
//!
//! Who owns what: the tenant owns a slot and its data until it raises `submitted` past it; the
//! server owns them until it raises `completed`. A server that dies in between leaves `completed`
//! where it was, so its successor serves the request again: no acknowledged request is repeated,
//! no unacknowledged one is forgotten. Neither side believes the other's indices.

use crate::futex;
use crate::shared::Window;
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_seam::VectorSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Requests in a ring.
pub const SLOTS: usize = 4;
/// Bytes of data a request can carry.
pub const DATA: usize = 4096;

/// Words by which a domain is told that something happened (wall clock only).
///
/// One word carries the doorbells and says whether there are interrupts, so that a doorbell is one
/// atomic operation on one cache line.
#[repr(C, align(64))]
pub struct EventWords {
    /// Peers that rang, by bit, and [`INTERRUPTS`]. Sleepers sleep on it.
    happened: AtomicU32,
    sleeping: AtomicU32,
    vectors: AtomicU64,
}

/// Bit of `happened`: there is something in `vectors`.
const INTERRUPTS: u32 = 1 << 31;

/// The bits of `happened` that a wait for these is about.
fn awaited(bells: u64, vectors: VectorSet) -> u32 {
    let bells = u32::try_from(bells & u64::from(!INTERRUPTS)).unwrap_or(0);
    bells | if vectors.is_empty() { 0 } else { INTERRUPTS }
}

impl EventWords {
    /// Tells the owner of the words.
    pub fn post(&self, bells: u64, vectors: VectorSet) {
        if !vectors.is_empty() {
            self.vectors.fetch_or(vectors.0, Ordering::SeqCst);
        }
        self.happened
            .fetch_or(awaited(bells, vectors), Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.happened);
        }
    }

    /// Vectors that were posted and not looked at since. One that was left behind by a wait for
    /// others has to be posted again.
    pub fn unheard(&self) -> VectorSet {
        match self.happened.load(Ordering::Acquire) & INTERRUPTS {
            0 => VectorSet::EMPTY,
            _ => VectorSet(self.vectors.load(Ordering::Acquire)),
        }
    }

    /// Takes what was posted of these.
    pub fn take(&self, bells: u64, vectors: VectorSet) -> (u64, VectorSet) {
        let wanted = awaited(bells, vectors);
        if self.happened.load(Ordering::Acquire) & wanted == 0 {
            return (0, VectorSet::EMPTY);
        }
        let happened = self.happened.fetch_and(!wanted, Ordering::SeqCst) & wanted;
        let mut raised = VectorSet::EMPTY;
        if happened & INTERRUPTS != 0 {
            raised = VectorSet(self.vectors.fetch_and(!vectors.0, Ordering::SeqCst) & vectors.0);
        }
        (u64::from(happened & !INTERRUPTS), raised)
    }

    /// Looks `polls` times whether something of these is posted.
    pub fn poll(&self, bells: u64, vectors: VectorSet, polls: u32) -> bool {
        let wanted = awaited(bells, vectors);
        (0..polls).any(|_| {
            std::hint::spin_loop();
            self.happened.load(Ordering::Acquire) & wanted != 0
        })
    }

    /// Sleeps until something of these is posted, at most `limit`.
    pub fn sleep(&self, bells: u64, vectors: VectorSet, limit: Duration) {
        let wanted = awaited(bells, vectors);
        self.sleeping.store(1, Ordering::SeqCst);
        let happened = self.happened.load(Ordering::SeqCst);
        if happened & wanted == 0 {
            futex::wait(&self.happened, happened, limit);
        }
        self.sleeping.store(0, Ordering::SeqCst);
    }
}

/// The event words of the domain that serves tenants.
pub fn server_events(window: Window) -> &'static EventWords {
    words_at(
        window,
        run_of(Owner::Driver, Use::Events).map_or(0, |run| run.bytes().start),
    )
}

/// The event words of a tenant: the head of its ring.
pub fn tenant_events(window: Window, tenant: u8) -> &'static EventWords {
    words_at(window, ring_start(tenant))
}

/// The event words at the start of a frame.
///
/// # Safety
///
/// `frame` points to a frame that is mapped, shared and writable, for the rest of the process's
/// life.
pub unsafe fn words<'a>(frame: NonNull<u8>) -> &'a EventWords {
    // SAFETY: the caller's promise; every field is an atomic, valid for any bytes.
    unsafe { frame.cast::<EventWords>().as_ref() }
}

fn words_at(window: Window, phys: u64) -> &'static EventWords {
    // SAFETY: a window's frames stay mapped; a domain without this one faults, which is its wall.
    unsafe { words(window.pointer(phys)) }
}

/// Requests answered so far, by a ring's own count.
///
/// # Safety
///
/// `frame` points to the first frame of a ring, mapped and shared for as long as the call lasts.
pub unsafe fn answered(frame: NonNull<u8>) -> u32 {
    // SAFETY: the caller's promise; every field is an atomic, valid for any bytes.
    let header = unsafe { frame.cast::<Header>().as_ref() };
    header.completed.load(Ordering::Acquire)
}

/// Physical address of a tenant's ring.
pub fn ring_start(tenant: u8) -> u64 {
    let owner = if tenant == 1 {
        Owner::Tenant1
    } else {
        Owner::Tenant2
    };
    run_of(owner, Use::Ring).map_or(0, |run| run.bytes().start)
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

#[repr(C, align(64))]
struct Slot {
    op: AtomicU32,
    len: AtomicU32,
    argument: AtomicU64,
    id: AtomicU64,
    status: AtomicU32,
    answered_id: AtomicU64,
}

#[repr(C)]
struct Header {
    events: EventWords,
    submitted: AtomicU32,
    completed: AtomicU32,
    slots: [Slot; SLOTS],
}

const _: () = assert!(DATA as u64 == FRAME && size_of::<Header>() as u64 <= FRAME);

/// A request as the server sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is asked.
    pub ask: Option<Ask>,
    /// Bytes of data, at most [`DATA`].
    pub len: usize,
    slot: usize,
}

/// One tenant's ring, seen from either end.
#[derive(Clone, Copy)]
pub struct Ring {
    header: &'static Header,
    window: Window,
    data: u64,
}

impl Ring {
    /// The ring of a tenant, in a window that maps it.
    pub fn of(window: Window, tenant: u8) -> Self {
        let start = ring_start(tenant);
        // SAFETY: the ring's frames are mapped in this window for the life of the process, the
        // header fits the first, and every field is an atomic, valid for any bytes.
        let header = unsafe { window.pointer(start).cast::<Header>().as_ref() };
        Self {
            header,
            window,
            data: start + FRAME,
        }
    }

    /// Tenant: posts a request. The caller keeps at most [`SLOTS`] open.
    pub fn submit(&self, ask: Ask, data: &[u8], id: u64) {
        let at = self.header.submitted.load(Ordering::Relaxed);
        let index = at as usize % SLOTS;
        let slot = &self.header.slots[index];
        let (op, argument) = ask.encode();
        self.write_data(index, data);
        slot.op.store(op, Ordering::Relaxed);
        slot.argument.store(argument, Ordering::Relaxed);
        slot.len
            .store(u32::try_from(data.len()).unwrap_or(0), Ordering::Relaxed);
        slot.id.store(id, Ordering::Relaxed);
        self.header
            .submitted
            .store(at.wrapping_add(1), Ordering::Release);
    }

    /// Tenant: the answer to the oldest request, the `nth` it ever submitted, into `data`.
    pub fn answer(&self, nth: u32, data: &mut [u8]) -> Option<(Status, u64)> {
        let completed = self.header.completed.load(Ordering::Acquire);
        // The count is the server's word: only "past mine" is of interest.
        let ahead = completed.wrapping_sub(nth);
        if ahead == 0 || ahead > u32::MAX / 2 {
            return None;
        }
        let index = nth as usize % SLOTS;
        let slot = &self.header.slots[index];
        self.read_data(index, data);
        let status = match slot.status.load(Ordering::Relaxed) {
            0 => Status::Good,
            _ => Status::Failed,
        };
        Some((status, slot.answered_id.load(Ordering::Relaxed)))
    }

    /// Tenant: answers given beyond the `submitted` requests made.
    pub fn surplus(&self, submitted: u32) -> u32 {
        let ahead = self
            .header
            .completed
            .load(Ordering::Acquire)
            .wrapping_sub(submitted);
        if ahead > u32::MAX / 2 { 0 } else { ahead }
    }

    /// Server: the oldest open request. An index no honest tenant can have is taken as an empty
    /// ring.
    pub fn next(&self) -> Option<Request> {
        let submitted = self.header.submitted.load(Ordering::Acquire);
        let completed = self.header.completed.load(Ordering::Relaxed);
        let open = submitted.wrapping_sub(completed);
        if open == 0 || open as usize > SLOTS {
            return None;
        }
        let index = completed as usize % SLOTS;
        let slot = &self.header.slots[index];
        let ask = Ask::decode(
            slot.op.load(Ordering::Relaxed),
            slot.argument.load(Ordering::Relaxed),
        );
        let len = (slot.len.load(Ordering::Relaxed) as usize).min(DATA);
        Some(Request {
            ask,
            len,
            slot: index,
        })
    }

    /// Server: copies the request's data out of the tenant's memory.
    pub fn data(&self, request: &Request) -> Vec<u8> {
        let mut data = vec![0; request.len];
        self.read_data(request.slot, &mut data);
        data
    }

    /// Server: the first bytes of an answer, for whoever dies before the rest.
    pub fn begin_answer(&self, request: &Request, data: &[u8]) {
        self.write_data(request.slot, data);
    }

    /// Server: answers the oldest open request.
    pub fn complete(&self, request: &Request, status: Status, data: &[u8]) {
        let slot = &self.header.slots[request.slot];
        self.write_data(request.slot, data);
        slot.status
            .store(u32::from(status == Status::Failed), Ordering::Relaxed);
        slot.answered_id
            .store(slot.id.load(Ordering::Relaxed), Ordering::Relaxed);
        let completed = self.header.completed.load(Ordering::Relaxed);
        self.header
            .completed
            .store(completed.wrapping_add(1), Ordering::Release);
    }

    fn page(&self, slot: usize) -> NonNull<u8> {
        self.window.pointer(self.data + (slot * DATA) as u64)
    }

    fn write_data(&self, slot: usize, data: &[u8]) {
        let page = self.page(slot);
        for (at, byte) in data.iter().enumerate().take(DATA) {
            // SAFETY: within the slot's page, mapped in this window; volatile because the other
            // side may look at any time.
            unsafe { page.add(at).write_volatile(*byte) };
        }
    }

    fn read_data(&self, slot: usize, data: &mut [u8]) {
        let page = self.page(slot);
        for (at, byte) in data.iter_mut().enumerate().take(DATA) {
            // SAFETY: as in `write_data`.
            *byte = unsafe { page.add(at).read_volatile() };
        }
    }
}
