//! The crossing: how a tenant's request gets to the domain that serves it.
//!
//! A [ring](cofferdam_tenant::ring) in the tenant's frames, lent to the server. Where somebody stands between the two there are two rings, the second in the driver's
//! frames, and that domain copies from one to the other. The bytes are plain shared memory; the doorbell that goes with them is a call to the
//! hardware under leap, an event word and a futex under the wall clock.

use crate::futex;
use crate::placement::{RingAt, Role};
use crate::shared::Window;
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_seam::VectorSet;
pub use cofferdam_tenant::ring::{Ask, Glance, Request, SLOTS, Status};
use cofferdam_tenant::ring::{BYTES, EventRoom, Header, Shared};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const _: () = assert!(cofferdam_tenant::ring::DATA as u64 == FRAME);
const _: () = assert!(size_of::<EventWords>() == size_of::<EventRoom>());

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

/// Physical address of a ring.
pub fn ring_start(ring: RingAt) -> u64 {
    let run = match ring {
        RingAt::Tenant(1) => run_of(Owner::Tenant1, Use::Ring),
        RingAt::Tenant(_) => run_of(Owner::Tenant2, Use::Ring),
        RingAt::Messages(tenant) => run_of(Owner::Driver, Use::Messages(tenant)),
    };
    run.map_or(0, |run| run.bytes().start)
}

/// The frames of a ring, in a window that maps them.
#[derive(Clone, Copy)]
pub struct Frames {
    window: Window,
    start: u64,
}

impl Frames {
    fn pointer(&self, at: usize) -> NonNull<u8> {
        self.window.pointer(self.start + at.min(BYTES - 1) as u64)
    }
}

impl Shared for Frames {
    fn header(&self) -> &Header {
        // SAFETY: the ring's frames are mapped in this window for the life of the process, the header
        // fits the first, and every field is an atomic, valid for any bytes.
        unsafe { self.pointer(0).cast::<Header>().as_ref() }
    }

    fn byte(&self, at: usize) -> u8 {
        // SAFETY: within the ring's frames, mapped in this window; volatile because the other sides
        // may write at any time.
        unsafe { self.pointer(at).read_volatile() }
    }

    fn set_byte(&self, at: usize, value: u8) {
        // SAFETY: as in `byte`.
        unsafe { self.pointer(at).write_volatile(value) }
    }
}

/// A ring in the machine's memory.
pub type Ring = cofferdam_tenant::Ring<Frames>;

/// A ring, in a window that maps it.
pub fn of(window: Window, ring: RingAt) -> Ring {
    let start = ring_start(ring);
    Ring::new(Frames { window, start }, start)
}

/// The header of a ring.
///
/// # Safety
///
/// `frame` points to the first frame of a ring, mapped and shared for as long as it is used.
pub unsafe fn header<'a>(frame: NonNull<u8>) -> &'a Header {
    // SAFETY: the caller's promise; every field is an atomic, valid for any bytes.
    unsafe { frame.cast::<Header>().as_ref() }
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
