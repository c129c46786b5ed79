//! When the processor or the system does not let the driver go on: a wild access, an instruction that
//! ends programs, an abort.
//!
//! The signal's handler runs in the middle of the driver's instructions, on a stack of its own. It notes
//! what happened and has the driver return not to where it was but to [`landed`], which leaves the
//! driver's stack for good, as one is left that never comes back. So the next execution follows in the
//! same process, and nothing is lost: the driver's heap is the arena, its registers and its memory are
//! the harness's.
//!
//! That is sound only where driver code itself was interrupted. In the middle of the harness, or of a
//! panic, the signal's former action is taken, by which the process ends.

#![expect(
    unsafe_code,
    reason = "signals and the registers of who was interrupted have no other interface"
)]

use crate::oracle::Oracle;
use crate::{arena, coroutine, executor, frames, watch, world};
use cofferdam_instrument::{asan, trap};
use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::{io, ptr};

/// Bytes of a handler's stack. Registers that are trapped by faults are carried out on it, by the
/// device's model.
const STACK: usize = 256 << 10;

/// Bytes of the driver's stack that it takes to leave it.
const ROOM: usize = 64 << 10;

/// What is handled.
const SIGNALS: [libc::c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
];

/// Addresses that nobody has, so that null pointers fault.
const NULL: usize = 64 << 10;

/// What the driver did.
pub(crate) struct Fault {
    /// Who says so.
    pub oracle: Oracle,
    /// Tells places apart.
    pub key: u64,
    /// The driver's stack, in a close look.
    pub frames: Vec<usize>,
    /// In words, in a close look.
    pub words: String,
}

thread_local! {
    static NOTED: RefCell<Option<Fault>> = const { RefCell::new(None) };
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// What the signals did before.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

/// Handles faults of drivers on this thread from now on, and all that were handled before as they were.
pub(crate) fn install() -> io::Result<()> {
    if !HAS_STACK.get() {
        give_stack()?;
        HAS_STACK.set(true);
    }
    BEFORE.get_or_init(|| {
        trap::is_answered_elsewhere();
        SIGNALS.map(|signal| {
            // SAFETY: all zeros is a valid `sigaction`; the handler has the signature that SA_SIGINFO
            // asks for. The system refuses no valid signal.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const action, &raw mut before);
                before
            }
        })
    });
    Ok(())
}

/// Gives this thread a stack for handlers, for good: a driver's own may have run over.
fn give_stack() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: fresh addresses, which nobody takes back.
    unsafe {
        let first = libc::mmap(ptr::null_mut(), STACK, protection, flags, -1, 0);
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = libc::stack_t {
            ss_sp: first,
            ss_flags: 0,
            ss_size: STACK,
        };
        if libc::sigaltstack(&raw const stack, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets the signals come again on this thread: a driver may have been left in the middle of a handler.
pub(crate) fn unblock() {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    if signal == libc::SIGSEGV {
        // SAFETY: SIGSEGV fills this member.
        let address = unsafe { (*info).si_addr() } as usize;
        // SAFETY: the kernel's own.
        if watch::touched(address) || unsafe { trap::answer(info, context) } {
            return;
        }
    }
    // SAFETY: as above.
    if unsafe { !leave(signal, info, context) } {
        before(signal, info, context);
    }
}

/// The signal's former action.
fn before(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let place = SIGNALS.iter().position(|it| *it == signal);
    let action = place.and_then(|place| BEFORE.get()?.get(place));
    let Some(action) = action.filter(|it| it.sa_sigaction > libc::SIG_IGN) else {
        // What is faulty happens again, and then ends the process.
        // SAFETY: the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    };
    // SAFETY: it was installed as a handler of this signal, of the kind that its flags tell.
    unsafe {
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Handler>(action.sa_sigaction)(signal, info, context);
        } else {
            type Handler = extern "C" fn(libc::c_int);
            std::mem::transmute::<usize, Handler>(action.sa_sigaction)(signal);
        }
    }
}

/// Whether it was driver code that was interrupted, and nothing of the harness's is half done.
fn is_driver(signal: libc::c_int, info: &libc::siginfo_t) -> bool {
    // AddressSanitizer holds locks when it ends the process.
    let abort = signal == libc::SIGABRT && asan::reported().is_none();
    let own = abort || signal != libc::SIGABRT && info.si_code > 0;
    own && is_driver_alone()
}

/// Whether driver code runs, and nothing of the harness's is half done.
pub(crate) fn is_driver_alone() -> bool {
    coroutine::is_running() && arena::is_inside() && !trap::is_busy() && !std::thread::panicking()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
unsafe fn leave(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) -> bool {
    false
}

/// Notes the fault and has the driver return to [`landed`], if that can be done.
///
/// # Safety
///
/// As for [`trap::answer`].
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
unsafe fn leave(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) -> bool {
    // SAFETY: the kernel passes both, and nobody else refers to them while the handler runs.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    if !is_driver(signal, info) {
        return false;
    }
    let _outside = arena::outside();
    let gregs = &mut context.uc_mcontext.gregs;
    let register = |at: i32| usize::try_from(at).unwrap_or(0);
    let word = |value: i64| usize::try_from(value.cast_unsigned()).unwrap_or(0);
    let at = word(gregs[register(libc::REG_RIP)]);
    let stack = word(gregs[register(libc::REG_RSP)]);
    let is_page_fault = gregs[register(libc::REG_TRAPNO)] == 14;
    let how = gregs[register(libc::REG_ERR)];
    let close = world::try_with(|world| world.state.is_close()).unwrap_or(false);
    // Of an abort the instruction says nothing.
    let mut told = if close || signal == libc::SIGABRT {
        frames::capture()
    } else {
        Vec::new()
    };
    let key = if signal == libc::SIGABRT {
        hash(&told)
    } else {
        hash(&at)
    };
    // The handler's own are of no interest. Addresses are those that calls return to; this one is not.
    if let Some(innermost) = told.iter().position(|frame| *frame == at) {
        told.drain(..innermost);
        told[0] = at.wrapping_add(1);
    }
    let words = if close {
        // SAFETY: faults fill this member, and of others nobody looks at it.
        let address = unsafe { info.si_addr() } as usize;
        in_words(signal, address, is_page_fault.then_some(how))
    } else {
        String::new()
    };
    let oracle = match signal {
        libc::SIGSEGV | libc::SIGBUS => Oracle::WildAccess,
        _ => Oracle::Crash,
    };
    NOTED.set(Some(Fault {
        oracle,
        key,
        frames: if close { told } else { Vec::new() },
        words,
    }));
    let own = coroutine::addresses();
    let lowest = own.start.saturating_add(ROOM);
    // Below what a function keeps there without saying so. One that ran over has room above: what lies
    // there is lost anyway.
    let free = if (lowest..own.end).contains(&stack) {
        stack.saturating_sub(128)
    } else {
        lowest
    };
    // As a call leaves it: the return address, which nobody uses, makes it a multiple of 16.
    let free = (free & !15).saturating_sub(8);
    gregs[register(libc::REG_RSP)] = free as i64;
    gregs[register(libc::REG_RIP)] = landed as *const () as i64;
    // Strings run upwards where functions begin.
    gregs[register(libc::REG_EFL)] &= !(1 << 10);
    true
}

fn hash(what: &impl Hash) -> u64 {
    let mut hash = DefaultHasher::new();
    what.hash(&mut hash);
    hash.finish()
}

/// What happened: the same words each time, so no address of this process.
fn in_words(signal: libc::c_int, address: usize, page_fault: Option<i64>) -> String {
    let does = match page_fault {
        Some(how) if how & 16 != 0 => "jumps to",
        Some(how) if how & 2 != 0 => "writes to",
        Some(_) => "reads from",
        None => "accesses",
    };
    let stack = coroutine::addresses();
    let guard = stack.start.saturating_sub(ROOM)..stack.start.saturating_add(2 * 4096);
    match signal {
        libc::SIGSEGV | libc::SIGBUS if page_fault.is_none() => {
            "the driver accesses an address that no memory has, or not as it must be accessed"
                .into()
        }
        libc::SIGSEGV | libc::SIGBUS => match trap::behind(address) {
            Some(behind) => format!("the driver {does} {behind:#x} bytes behind its registers"),
            None if address < NULL => format!("the driver {does} address {address:#x}"),
            None if guard.contains(&address) => "the driver's stack runs over".to_owned(),
            None => format!("the driver {does} an address that is not its own"),
        },
        libc::SIGABRT => match arena::refused() {
            Some(bytes) => format!("the driver needs {bytes} bytes, or ends the process"),
            None => "the driver ends the process".to_owned(),
        },
        libc::SIGFPE => "the driver divides as the processor cannot".to_owned(),
        _ => "the driver runs into an instruction that ends programs".to_owned(),
    }
}

/// Where the driver returns to, on its own stack.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
extern "C" fn landed() -> ! {
    let _outside = arena::outside();
    if let Some(fault) = NOTED.take() {
        executor::on_fault(fault);
    }
    coroutine::leave();
    // Nobody was left.
    std::process::abort()
}
