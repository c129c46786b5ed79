//! Registers behind a pointer: address ranges in which every access of a driver is carried out by
//! an [`Mmio`].
//!
//! A window belongs to the thread that made it, and answers on that thread only. Behind it lies a
//! guard that nothing serves: a driver that computes a register's address wrongly dies there
//! instead of writing into whatever came next.

pub mod callbacks;
pub mod emulate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod fault;

use crate::coverage;
use cofferdam_seam::Mmio;
use std::cell::Cell;
use std::io;
use std::marker::PhantomPinned;
use std::ops::Range;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use thiserror::Error;

/// Inaccessible bytes behind a window.
const GUARD: usize = 1 << 20;

/// The unit of protection.
const PAGE: usize = 4096;

/// How accesses are caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The memory is inaccessible; the fault handler executes the instruction. Works for every
    /// driver, at some microseconds an access.
    Faults,
    /// The driver was built by [the wrapper](crate::wrapper) and calls back before each access.
    /// Accesses that the compiler does not report (inline assembly, atomic read-modify-write,
    /// `memcpy`) are missed.
    Callbacks,
}

impl Way {
    /// The best way for that crate, as this program was built.
    pub fn of(crate_name: &str) -> Self {
        if !REFERENCE.get() && coverage::is_instrumented(crate_name) {
            Self::Callbacks
        } else {
            Self::Faults
        }
    }
}

/// From now on [`Way::of`] answers [`Way::Faults`] on this thread, or the best way again: to hold one way
/// against the other.
pub fn by_reference(on: bool) {
    REFERENCE.set(on);
}

/// Accesses of this thread that were caught by faults so far.
pub fn faults() -> u64 {
    FAULTS.get()
}

/// Why accesses cannot be trapped.
#[derive(Debug, Error)]
pub enum TrapError {
    /// The fault handler could not be installed.
    #[error(
        "the fault handler was refused ({0}); install it before the process is confined, with `trap::install`"
    )]
    Handler(io::Error),
    /// There is no handler for this machine.
    #[error(
        "faults can be served on x86-64 Linux only; build the driver with `cofferdam instrument`"
    )]
    Machine,
    /// No address range is left for a window.
    #[error("no addresses for a window of {len} bytes: {error}")]
    Addresses {
        /// Bytes wanted.
        len: u64,
        /// The system's answer.
        error: io::Error,
    },
}

impl TrapError {
    /// The system's error number; zero where it was not asked.
    pub fn errno(&self) -> u32 {
        let error = match self {
            Self::Handler(error) | Self::Addresses { error, .. } => error,
            Self::Machine => return 0,
        };
        let errno = error.raw_os_error().unwrap_or(0);
        errno.unsigned_abs()
    }
}

/// Installs the fault handler. To be called before a jail forbids it, and after anything else that
/// changes the action of SIGSEGV; otherwise the first window does it.
///
/// A fault outside every window has its default action: the process dies of SIGSEGV.
pub fn install() -> Result<(), TrapError> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return fault::install().map_err(TrapError::Handler);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return Err(TrapError::Machine);
}

/// Says that a handler of SIGSEGV of somebody else's calls [`answer`]: none is installed here any more.
pub fn is_answered_elsewhere() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fault::is_served_elsewhere();
}

/// Carries out the access to a window that the calling handler of SIGSEGV was told of. False if it is
/// none, and nothing was done.
///
/// # Safety
///
/// Both are what the kernel passed to a handler of SIGSEGV that runs on this thread.
pub unsafe fn answer(info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the caller's promise.
    return unsafe { fault::answer(info, context) };
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        let _ = (info, context);
        false
    }
}

/// Tells `note` of every byte of `memory` at which the driver on this thread begins to read by an
/// instruction that was built with callbacks, as an offset. Of an empty range nobody hears.
pub fn note_reads(memory: &Range<usize>, note: fn(usize)) {
    SEEN.set(Some(Seen {
        first: memory.start,
        len: memory.len(),
        note,
    }));
    outline();
}

/// See [`note_reads`].
#[derive(Clone, Copy)]
struct Seen {
    first: usize,
    len: usize,
    note: fn(usize),
}

/// Whether this thread carries out a register access that it was called back for.
pub fn is_busy() -> bool {
    callbacks::is_busy()
}

/// How many bytes behind the end of one of this thread's windows an address lies, if it lies in the
/// guard there.
pub fn behind(address: usize) -> Option<usize> {
    let beyond = |region: &Region| address.wrapping_sub(region.first + region.served);
    regions().map(beyond).find(|beyond| *beyond < GUARD)
}

/// Makes sure that the handler was installed.
fn ensure() -> Result<(), TrapError> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return fault::ensure().map_err(TrapError::Handler);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    return Err(TrapError::Machine);
}

/// Carries out a store that was announced but not yet seen. To be called whenever a driver's call
/// ends or it calls its platform.
pub fn settle() {
    callbacks::settle();
}

/// Takes back every window of this thread, of a driver that was left on its stack and whose memory is
/// about to go: none of them is dropped any more.
///
/// # Safety
///
/// Nobody uses a window of this thread again, or drops one.
pub unsafe fn abandon() {
    callbacks::abandon();
    for region in regions() {
        give_back(region);
    }
    FIRST.set(ptr::null());
    outline();
}

/// A mapped BAR as a driver wants it: a pointer.
pub struct Window {
    region: Pin<Box<Region>>,
}

/// A window's addresses and who answers there.
struct Region {
    first: usize,
    /// Bytes that are answered for: whole pages.
    served: usize,
    way: Way,
    target: Rc<dyn Mmio>,
    next: Cell<*const Region>,
    _pinned: PhantomPinned,
}

thread_local! {
    /// This thread's windows. Without a destructor, so that the fault handler may look at any time.
    static FIRST: Cell<*const Region> = const { Cell::new(ptr::null()) };
    /// From the first to the last address at which an instrumented access is of interest, and how many:
    /// of a window, of [`SPARE`], or anywhere while there is [`SEEN`].
    static HULL: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// See [`by_reference`].
    static REFERENCE: Cell<bool> = const { Cell::new(false) };
    /// See [`faults`].
    static FAULTS: Cell<u64> = const { Cell::new(0) };
    /// Addresses of a window that was dropped, and how many it served: a driver that is started again
    /// and again gets the same ones.
    static SPARE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// Memory that somebody wants to know of where the driver looks, and who.
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
}

impl Window {
    /// A window of as many bytes as `target` has.
    pub fn new(target: Rc<dyn Mmio>, way: Way) -> Result<Self, TrapError> {
        if way == Way::Faults {
            ensure()?;
        }
        let len = target.len();
        let reserve = || {
            let served = usize::try_from(len).ok()?.checked_next_multiple_of(PAGE)?;
            Some((served, served.checked_add(GUARD)?))
        };
        let (served, whole) = reserve().ok_or_else(|| TrapError::Addresses {
            len,
            error: io::ErrorKind::OutOfMemory.into(),
        })?;
        let failed = |error| TrapError::Addresses { len, error };
        let spare = if way == Way::Callbacks {
            spare(served)
        } else {
            None
        };
        let first = match spare {
            Some(first) => first,
            None => map(ptr::null_mut(), whole, libc::PROT_NONE, 0).map_err(failed)?,
        };
        let region = Box::pin(Region {
            first,
            served,
            way,
            target,
            next: Cell::new(FIRST.get()),
            _pinned: PhantomPinned,
        });
        FIRST.set(&raw const *region);
        outline();
        let window = Self { region };
        if way == Way::Callbacks && served > 0 && spare.is_none() {
            // A second mapping over the first: the jail allows that, but no mprotect.
            let readable = libc::PROT_READ | libc::PROT_WRITE;
            map(first as *mut _, served, readable, libc::MAP_FIXED).map_err(failed)?;
        }
        Ok(window)
    }

    /// The first byte.
    pub fn pointer(&self) -> NonNull<u8> {
        NonNull::new(self.region.first as *mut u8).expect("the system maps nothing at zero")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        settle();
        let mine: *const Region = &raw const *self.region;
        if FIRST.get() == mine {
            FIRST.set(self.region.next.get());
        } else {
            let before = regions().find(|region| region.next.get() == mine);
            if let Some(before) = before {
                before.next.set(self.region.next.get());
            }
        }
        give_back(&self.region);
        outline();
    }
}

/// Sets [`HULL`], after any of what it covers changed.
fn outline() {
    let (spare, len) = SPARE.get();
    let mut hull = spare..spare + len;
    for region in regions().filter(|region| region.way == Way::Callbacks) {
        let end = region.first + region.served;
        hull = if hull.is_empty() {
            region.first..end
        } else {
            hull.start.min(region.first)..hull.end.max(end)
        };
    }
    HULL.set(match SEEN.get() {
        Some(seen) if seen.len > 0 => (0, usize::MAX),
        _ => (hull.start, hull.len()),
    });
}

/// A window's addresses are nobody's any more.
fn give_back(region: &Region) {
    let (first, served) = (region.first, region.served);
    if region.way == Way::Callbacks && SPARE.get().1 == 0 {
        SPARE.set((first, served));
    } else {
        // SAFETY: the range is the window's own, and its users have done with it.
        unsafe { libc::munmap(first as *mut _, served + GUARD) };
    }
}

/// The addresses of an older window for one of memory, if they fit.
fn spare(served: usize) -> Option<usize> {
    let (first, len) = SPARE.take();
    if len > 0 && len != served {
        // SAFETY: the range is nobody's.
        unsafe { libc::munmap(first as *mut _, len + GUARD) };
        return None;
    }
    (len > 0).then_some(first)
}

/// An access to addresses of no window is about to happen. Those of one that was dropped go now, so that
/// it faults.
#[inline]
fn touch(address: usize) {
    let (first, len) = SPARE.get();
    if address.wrapping_sub(first) < len {
        SPARE.set((0, 0));
        // SAFETY: the range is nobody's.
        unsafe { libc::munmap(first as *mut _, len + GUARD) };
    }
}

/// Maps anonymous memory that is not executable; the jail permits it.
fn map(at: *mut libc::c_void, len: usize, protection: i32, flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: fresh addresses, or (with MAP_FIXED) the caller's own.
    let mapped = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(mapped as usize)
    }
}

/// The calling thread's windows.
fn regions<'a>() -> impl Iterator<Item = &'a Region> {
    let mut next: *const Region = FIRST.get();
    std::iter::from_fn(move || {
        // SAFETY: regions are pinned, and off the list before they are freed. No caller keeps one
        // while it could drop the window.
        let region = unsafe { next.as_ref() }?;
        next = region.next.get();
        Some(region)
    })
}

/// The window that answers for `address` in that way.
fn region_at<'a>(address: usize, way: Way) -> Option<&'a Region> {
    regions().find(|region| region.way == way && address.wrapping_sub(region.first) < region.served)
}
