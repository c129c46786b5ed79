//! When the driver takes the process with it.
//!
//! A handler on a stack of its own writes the program down that was running, as a finding, and ends
//! the process; the campaign goes on in another. It does what no handler may: it allocates and writes
//! files. If that fails too, a second signal ends the process and the program is lost.

use cofferdam_fuzz::executor;
use cofferdam_fuzz::finding::{Finding, Found};
use cofferdam_fuzz::frames::{self, Location};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::target::Target;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

/// How a process ends that wrote its own death down.
pub const DIED: i32 = 77;

/// Bytes of the handler's stack.
const STACK: usize = 1 << 20;

struct Context {
    target: &'static dyn Target,
    out: PathBuf,
}

static CONTEXT: OnceLock<Context> = OnceLock::new();

/// Writes deaths of this process to `out`.
#[expect(unsafe_code, reason = "signals have no other interface")]
pub fn install(target: &'static dyn Target, out: &Path) {
    let out = out.to_owned();
    let _ = CONTEXT.set(Context { target, out });
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    // SAFETY: the stack lives for good; the handler has the signature that SA_SIGINFO asks for.
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
    executor::leave_driver();
    write(name, address);
    #[expect(unsafe_code, reason = "destructors of a broken process must not run")]
    // SAFETY: it does not return.
    unsafe {
        libc::_exit(DIED)
    };
}

fn write(signal: &str, address: usize) {
    let Some(context) = CONTEXT.get() else { return };
    #[expect(
        unsafe_code,
        reason = "it is the thread's own program, below this frame"
    )]
    // SAFETY: it is valid while it runs, and it runs.
    let Some(program) = (unsafe { executor::current().as_ref() }) else {
        return;
    };
    let stack = frames::stack(&frames::capture());
    let driver = context.target.driver();
    let location = frames::of_driver(&stack, driver.name).unwrap_or_default();
    let trace = told(signal, address, &stack);
    let finding = Finding {
        signature: format!("crash-{}", short(&location)),
        oracle: Oracle::Crash,
        defect: true,
        location,
        during: String::new(),
        message: format!("{signal} at address {address:#x}"),
        target: context.target.name().to_owned(),
        driver: driver.name.to_owned(),
        driver_version: driver.version.to_owned(),
        toolchain: String::new(),
        actions: program.actions.len(),
        isolation: context.target.isolation().map(str::to_owned),
    };
    let found = Found {
        finding,
        program: program.clone(),
        trace,
    };
    let place = context.out.join(cofferdam_fuzz::campaign::FINDINGS);
    if let Err(error) = found.write(context.target, &place) {
        eprintln!("cofferdam: {signal} in the driver, and {error}");
    }
}

fn told(signal: &str, address: usize, stack: &[Location]) -> String {
    let mut text = format!("{signal} at address {address:#x}\n\n");
    for place in stack {
        text += &format!("  {} ({}:{})\n", place.function, place.file, place.line);
    }
    text
}

fn short(location: &Location) -> String {
    let name = location.function.replace("::", "-");
    let fit = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let name: String = name.chars().filter(fit).take(64).collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}
