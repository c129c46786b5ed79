//! The crossing: how a tenant's request gets to the domain that serves it.
//!
//! A ring of [`SLOTS`] requests and data pages, of which each request names one, in the tenant's frames,
//! lent to the server. Where somebody stands between the two there are two rings, the second in the driver's
//! frames, and that domain copies from one to the other. The bytes are plain shared memory; the doorbell that goes with them is a call to the
//! hardware under leap, an event word and a futex under the wall clock.
//!
//! Who owns what: the tenant owns a slot and its data until it raises `submitted` past it; the
//! server owns them until it raises `completed`. A server that dies in between leaves `completed`
//! where it was, so its successor serves the request again: no acknowledged request is repeated,
//! no unacknowledged one is forgotten. Neither side believes the other's indices.

use crate::futex;
use crate::placement::{RingAt, Role};
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
/// Data pages of a ring. A request names the one its data are in; those that no slot needs are there to
/// take the place of one that the tenant gives back.
pub const PAGES: usize = 7;

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

    /// Vectors that were posted and not taken since.
    pub fn unheard(&self) -> VectorSet {
        VectorSet(self.vectors.load(Ordering::Acquire))
    }

    /// Whether something of these is posted. A vector that a wait for others left behind counts,
    /// though [`INTERRUPTS`] went with theirs.
    fn is_posted(&self, bells: u64, vectors: VectorSet) -> bool {
        self.happened.load(Ordering::SeqCst) & awaited(bells, vectors) != 0
            || !vectors.is_empty() && self.vectors.load(Ordering::SeqCst) & vectors.0 != 0
    }

    /// Takes what was posted of these.
    pub fn take(&self, bells: u64, vectors: VectorSet) -> (u64, VectorSet) {
        if !self.is_posted(bells, vectors) {
            return (0, VectorSet::EMPTY);
        }
        let wanted = awaited(bells, vectors);
        let happened = self.happened.fetch_and(!wanted, Ordering::SeqCst) & wanted;
        let mut raised = VectorSet::EMPTY;
        if !vectors.is_empty() {
            raised = VectorSet(self.vectors.fetch_and(!vectors.0, Ordering::SeqCst) & vectors.0);
        }
        (u64::from(happened & !INTERRUPTS), raised)
    }

    /// Looks `polls` times whether something of these is posted.
    pub fn poll(&self, bells: u64, vectors: VectorSet, polls: u32) -> bool {
        (0..polls).any(|_| {
            std::hint::spin_loop();
            self.is_posted(bells, vectors)
        })
    }

    /// Sleeps until something of these is posted, at most `limit`.
    pub fn sleep(&self, bells: u64, vectors: VectorSet, limit: Duration) {
        self.sleeping.store(1, Ordering::SeqCst);
        // Before the vectors: what is posted after this look changes the word.
        let happened = self.happened.load(Ordering::SeqCst);
        if happened & awaited(bells, vectors) == 0 && !self.is_posted(bells, vectors) {
            futex::wait(&self.happened, happened, limit);
        }
        self.sleeping.store(0, Ordering::SeqCst);
    }
}

/// Where the event words of domain `index` are, if anybody has business with it: a tenant's at the
/// head of its ring, everybody else's in a frame for that.
pub fn events_start(role: Role, index: usize) -> Option<u64> {
    let frame = run_of(Owner::Driver, Use::Events)?.bytes();
    let words = size_of::<EventWords>() as u64;
    match role {
        Role::Tenant(tenant) => Some(ring_start(RingAt::Tenant(tenant))),
        Role::Serves | Role::Carries | Role::Emulates(_) | Role::Houses(_) => {
            Some(frame.start + index as u64 * words).filter(|at| at + words <= frame.end)
        }
        Role::Idles => None,
    }
}

/// The event words of domain `index`, in a window that maps them.
pub fn events(window: Window, role: Role, index: usize) -> Option<&'static EventWords> {
    Some(words_at(window, events_start(role, index)?))
}

/// The event words at an address of [`events_start`].
///
/// # Safety
///
/// `at` points into a frame that is mapped, shared and writable, for the rest of the process's
/// life.
pub unsafe fn words<'a>(at: NonNull<u8>) -> &'a EventWords {
    // SAFETY: the caller's promise; every field is an atomic, valid for any bytes.
    unsafe { at.cast::<EventWords>().as_ref() }
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

/// What somebody who is neither side sees of a ring. Nothing of it is to be believed.
pub struct Glance {
    /// Requests made, by the tenant's count.
    pub submitted: u32,
    /// Requests answered, by the server's count.
    pub completed: u32,
    /// Of each slot: what is asked, in words, and whether its answer is good.
    pub slots: [(String, bool); SLOTS],
}

/// Looks at a ring.
///
/// # Safety
///
/// As for [`answered`].
pub unsafe fn glance(frame: NonNull<u8>) -> Glance {
    // SAFETY: the caller's promise; every field is an atomic, valid for any bytes.
    let header = unsafe { frame.cast::<Header>().as_ref() };
    Glance {
        submitted: header.submitted.load(Ordering::Acquire),
        completed: header.completed.load(Ordering::Acquire),
        slots: std::array::from_fn(|slot| {
            let slot = &header.slots[slot];
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

/// Physical address of a ring.
pub fn ring_start(ring: RingAt) -> u64 {
    let run = match ring {
        RingAt::Tenant(1) => run_of(Owner::Tenant1, Use::Ring),
        RingAt::Tenant(_) => run_of(Owner::Tenant2, Use::Ring),
        RingAt::Messages(tenant) => run_of(Owner::Driver, Use::Messages(tenant)),
    };
    run.map_or(0, |run| run.bytes().start)
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

#[repr(C)]
struct Header {
    events: EventWords,
    submitted: AtomicU32,
    completed: AtomicU32,
    slots: [Slot; SLOTS],
}

const _: () = assert!(DATA as u64 == FRAME && size_of::<Header>() as u64 <= FRAME);
const _: () = assert!(SLOTS < PAGES);

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
pub struct Ring {
    header: &'static Header,
    window: Window,
    data: u64,
}

impl Ring {
    /// A ring, in a window that maps it.
    pub fn of(window: Window, ring: RingAt) -> Self {
        let start = ring_start(ring);
        // SAFETY: the ring's frames are mapped in this window for the life of the process, the
        // header fits the first, and every field is an atomic, valid for any bytes.
        let header = unsafe { window.pointer(start).cast::<Header>().as_ref() };
        Self {
            header,
            window,
            data: start + FRAME,
        }
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
        let slot = &self.header.slots[nth as usize % SLOTS];
        slot.op.store(request.op, Ordering::Relaxed);
        slot.argument.store(request.argument, Ordering::Relaxed);
        slot.len.store(count(request.len), Ordering::Relaxed);
        slot.room.store(count(request.room), Ordering::Relaxed);
        slot.id.store(request.id, Ordering::Relaxed);
        slot.page.store(count(request.page), Ordering::Relaxed);
        self.header
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

    fn answered_slot(&self, nth: u32) -> Option<&'static Slot> {
        let completed = self.header.completed.load(Ordering::Acquire);
        // The count is the server's word: only "past mine" is of interest.
        let ahead = completed.wrapping_sub(nth);
        if ahead == 0 || ahead > u32::MAX / 2 {
            return None;
        }
        Some(&self.header.slots[nth as usize % SLOTS])
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
    pub const fn page_of(&self, request: &Request) -> u64 {
        self.data_page(request.page)
    }

    /// The physical address of a data page.
    pub const fn data_page(&self, page: usize) -> u64 {
        self.data + (page * DATA) as u64
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
        let slot = &self.header.slots[request.slot];
        slot.status
            .store(u32::from(status == Status::Failed), Ordering::Relaxed);
        slot.answered_id.store(request.id, Ordering::Relaxed);
        slot.answered_len.store(count(len), Ordering::Relaxed);
        let completed = self.header.completed.load(Ordering::Relaxed);
        self.header
            .completed
            .store(completed.wrapping_add(1), Ordering::Release);
    }

    fn page(&self, page: usize) -> NonNull<u8> {
        self.window
            .pointer(self.data + (page.min(PAGES - 1) * DATA) as u64)
    }

    fn copy(&self, page: usize, to: &Self, other: usize, len: usize) {
        let (from, into) = (self.page(page), to.page(other));
        for at in 0..len.min(DATA) {
            // SAFETY: within a data page of either ring, both mapped in this window; volatile
            // because the other sides may look at any time.
            unsafe { into.add(at).write_volatile(from.add(at).read_volatile()) };
        }
    }

    fn write_data(&self, page: usize, data: &[u8]) {
        let page = self.page(page);
        for (at, byte) in data.iter().enumerate().take(DATA) {
            // SAFETY: within the data page, mapped in this window; volatile because the other
            // side may look at any time.
            unsafe { page.add(at).write_volatile(*byte) };
        }
    }

    fn read_data(&self, page: usize, data: &mut [u8]) {
        let page = self.page(page);
        for (at, byte) in data.iter_mut().enumerate().take(DATA) {
            // SAFETY: as in `write_data`.
            *byte = unsafe { page.add(at).read_volatile() };
        }
    }
}

/// A request that no ring holds.
#[cfg(test)]
pub fn request_for_test(ask: Ask, len: usize, room: usize) -> Request {
    let (op, argument) = ask.encode();
    Request {
        len,
        room,
        op,
        argument,
        id: 0,
        slot: 0,
        page: 0,
    }
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> EventWords {
        EventWords {
            happened: AtomicU32::new(0),
            sleeping: AtomicU32::new(0),
            vectors: AtomicU64::new(0),
        }
    }

    const ONE: VectorSet = VectorSet(1 << 1);
    const TWO: VectorSet = VectorSet(1 << 2);

    #[test]
    fn vector_left_behind_by_a_wait_for_another_is_still_found() {
        let words = words();
        words.post(0, VectorSet(ONE.0 | TWO.0));

        let first = words.take(0, ONE);

        assert_eq!(first, (0, ONE));
        assert_eq!(words.unheard(), TWO);
        assert!(words.poll(0, TWO, 1));
        words.sleep(0, TWO, Duration::MAX);
        assert_eq!(words.take(0, TWO), (0, TWO));
        assert_eq!(words.take(0, TWO), (0, VectorSet::EMPTY));
    }

    #[test]
    fn vector_of_another_wait_keeps_nobody_awake() {
        let words = words();
        words.post(0, TWO);

        let taken = words.take(0, ONE);

        assert_eq!(taken, (0, VectorSet::EMPTY));
        assert!(!words.poll(0, ONE, 1));
        assert_eq!(words.unheard(), TWO);
    }
}
