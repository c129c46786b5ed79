//! When the driver takes the process with it, or does not give it back.
//!
//! A handler on a stack of its own writes the program down that was running, as a finding, and ends
//! the process; the campaign goes on in another. It does what no handler may: it allocates and writes
//! files. If that fails too, a second signal ends the process and the program is lost.

use crate::{FOUND, INFRASTRUCTURE, worker};
use cofferdam_fuzz::campaign::FINDINGS;
use cofferdam_fuzz::executor;
use cofferdam_fuzz::finding::{Finding, Found};
use cofferdam_fuzz::frames::{self, Location};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::target::Target;
use cofferdam_instrument::asan;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a process ends that wrote its own death down.
pub const DIED: i32 = 77;

/// By which a thread is interrupted that does not come back: by its name, too much time of a processor.
const HANG: libc::c_int = libc::SIGXCPU;

/// Bytes of the handler's stack.
const STACK: usize = 1 << 20;

/// What becomes of a death.
pub enum Then {
    /// It is a finding of the campaign in that directory, which the process that started this one hears of.
    WriteTo(PathBuf),
    /// It is told on standard output, and whether it is that signature; any will do without one.
    Tell(Option<String>),
}

struct Context {
    target: &'static dyn Target,
    then: Then,
}

static CONTEXT: OnceLock<Context> = OnceLock::new();

/// The execution that is interrupted, by its number.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// Handles deaths of this process from now on. The first call counts.
#[expect(unsafe_code, reason = "signals have no other interface")]
pub fn install(target: &'static dyn Target, then: Then) {
    if CONTEXT.set(Context { target, then }).is_err() {
        return;
    }
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    // SAFETY: the stack lives for good; the handlers have the signature that SA_SIGINFO asks for.
    unsafe {
        let stack = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: STACK,
        };
        libc::sigaltstack(&raw const stack, ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = died as *const () as usize;
        // A second one, in the handler, is the system's business.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
        ] {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        action.sa_sigaction = hung as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(HANG, &raw const action, ptr::null_mut());
    }
}

/// A death is being written down, which takes time too.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Interrupts a thread of this process in the execution of that number, which has taken too long.
pub fn interrupt(thread: libc::pthread_t, begun: u64) {
    INTERRUPTED.store(begun, Ordering::SeqCst);
    #[expect(unsafe_code, reason = "signals have no other interface")]
    // SAFETY: the caller's thread lives as long as the process.
    unsafe {
        libc::pthread_kill(thread, HANG);
    }
}

extern "C" fn died(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        _ => "SIGABRT",
    };
    #[expect(unsafe_code, reason = "the kernel passes a pointer")]
    // SAFETY: the kernel's own, for the time of the handler.
    let address = unsafe { info.as_ref().map_or(0, |info| info.si_addr() as usize) };
    ENDING.store(true, Ordering::SeqCst);
    executor::leave_driver();
    let stack = frames::stack(&frames::capture());
    let message = match signal {
        // Its address says who sent it, which differs each time.
        libc::SIGABRT if std::thread::panicking() => {
            "the driver ends the process: it panics while it panics".to_owned()
        }
        libc::SIGABRT => "the driver ends the process".to_owned(),
        _ => format!("{name} at address {address:#x}"),
    };
    match asan::reported() {
        // Its report is on standard error.
        Some(report) => end(
            Oracle::MemoryError,
            &format!("AddressSanitizer: {report}"),
            &stack,
        ),
        None => end(Oracle::Crash, &message, &stack),
    }
}

extern "C" fn hung(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let same = executor::begun() == INTERRUPTED.load(Ordering::SeqCst);
    // It may have come back just now.
    if !same || executor::current().is_null() || ENDING.swap(true, Ordering::SeqCst) {
        return;
    }
    executor::leave_driver();
    let stack = frames::stack(&frames::capture());
    end(Oracle::Hang, HUNG, &stack)
}

const HUNG: &str = "the execution does not end, and nothing in it can be counted";

/// From another thread: the one that hangs does not even take the signal.
pub fn hung_silently() -> ! {
    end(Oracle::Hang, HUNG, &[])
}

/// Tells of the death, and dies.
fn end(oracle: Oracle, message: &str, stack: &[Location]) -> ! {
    let code = tell(oracle, message, stack);
    #[expect(unsafe_code, reason = "destructors of a broken process must not run")]
    // SAFETY: it does not return.
    unsafe {
        libc::_exit(code)
    }
}

fn tell(oracle: Oracle, message: &str, stack: &[Location]) -> i32 {
    let Some(context) = CONTEXT.get() else {
        return INFRASTRUCTURE.into();
    };
    #[expect(unsafe_code, reason = "it belongs to a thread that does not go on")]
    // SAFETY: it is valid while it runs, and it runs.
    let program = unsafe { executor::current().as_ref() };
    let found = program.map(|program| {
        let finding = describe(
            context.target,
            oracle,
            message,
            stack,
            program.actions.len(),
        );
        Found {
            trace: told(&finding, stack),
            finding,
            program: program.clone(),
        }
    });
    match (&context.then, found) {
        (Then::WriteTo(out), Some(found)) => {
            if let Err(error) = found.write(context.target, &out.join(FINDINGS)) {
                eprintln!("cofferdam: {message}, and {error}");
            }
            worker::tell_of_death();
            DIED
        }
        (Then::Tell(expected), Some(found)) => {
            let signature = &found.finding.signature;
            print!("{}", found.trace);
            if expected
                .as_ref()
                .is_none_or(|expected| expected == signature)
            {
                println!("\nshown; the process ends with it");
                FOUND.into()
            } else {
                println!("\nthe process ends with something else: {signature}");
                INFRASTRUCTURE.into()
            }
        }
        // The harness's own business.
        (_, None) => {
            eprintln!("cofferdam: {message}, between two executions");
            DIED
        }
    }
}

fn describe(
    target: &dyn Target,
    oracle: Oracle,
    message: &str,
    stack: &[Location],
    actions: usize,
) -> Finding {
    let driver = target.driver();
    let location = frames::of_driver(stack, driver.name).unwrap_or_default();
    // Where exactly a loop is interrupted is chance; what was called is not.
    let mut outward = stack.iter().rev();
    let called = outward.find(|place| frames::is_inside(place, driver.name));
    let named = match called {
        Some(called) if oracle == Oracle::Hang => &called.function,
        _ => &location.function,
    };
    Finding {
        signature: format!("{}-{}", oracle.name(), short(named)),
        oracle,
        defect: true,
        location,
        during: String::new(),
        message: message.to_owned(),
        target: target.name().to_owned(),
        driver: driver.name.to_owned(),
        driver_version: driver.version.to_owned(),
        toolchain: option_env!("COFFERDAM_TOOLCHAIN")
            .unwrap_or("unknown")
            .to_owned(),
        actions,
        isolation: target.isolation().map(str::to_owned),
    }
}

fn told(finding: &Finding, stack: &[Location]) -> String {
    let mut text = format!("{}: {}\n\n", finding.oracle.name(), finding.message);
    let is_handler = |place: &Location| place.function.contains("::crash::");
    let handled = stack.iter().rposition(is_handler).map_or(0, |at| at + 1);
    let inside = stack[handled..].iter();
    for place in inside.take_while(|place| !place.function.starts_with("corosensei::")) {
        text += &format!("  {} ({}:{})\n", place.function, place.file, place.line);
    }
    text
}

fn short(function: &str) -> String {
    let name = function.replace("::", "-");
    let fit = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let name: String = name.chars().filter(fit).take(64).collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}
