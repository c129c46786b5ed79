//! The handler of SIGSEGV.
//!
//! A window's memory is inaccessible, so every access faults on the thread that makes it, at that
//! instruction and nowhere else: the handler may do whatever a function called there may do. It runs
//! on the driver's stack and, since the signal is blocked meanwhile, is never entered twice.

#![expect(
    clippy::cast_possible_truncation,
    reason = "addresses have 64 bits on x86-64"
)]

use super::emulate::{self, LONGEST, Refused, Registers};
use super::{FAULTS, PAGE, Region, Way, region_at};
use crate::or_abort;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the kernel keeps RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
const GENERAL: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// The handler was installed here, or in the process this one was forked from.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the handler, for this process and those it forks.
pub fn install() -> io::Result<()> {
    warm_up();
    // SAFETY: all zeros is a valid `sigaction`; the handler has the signature that SA_SIGINFO asks
    // for.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut())
    };
    if installed != 0 {
        return Err(io::Error::last_os_error());
    }
    INSTALLED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Somebody else's handler calls [`answer`].
pub fn is_served_elsewhere() {
    warm_up();
    INSTALLED.store(true, Ordering::Relaxed);
}

/// Installs the handler unless that was done: a jail does not let anybody look.
pub fn ensure() -> io::Result<()> {
    if INSTALLED.load(Ordering::Relaxed) {
        Ok(())
    } else {
        install()
    }
}

/// The decoder makes its tables when it is first used: not in the handler.
fn warm_up() {
    let mut nothing = Registers::default();
    let _ = emulate::execute(&[0x90], &mut nothing, 0, 0, &Nothing);
}

/// What the decoder is warmed up on.
struct Nothing;

impl cofferdam_seam::Mmio for Nothing {
    fn read(&self, _: u32, width: cofferdam_seam::Width) -> u64 {
        width.all_ones()
    }
    fn write(&self, _: u32, _: cofferdam_seam::Width, _: u64) {}
    fn len(&self) -> u64 {
        0
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's own.
    if unsafe { answer(info, context) } {
        return;
    }
    // SAFETY: the kernel passes both, and nobody else refers to them while the handler runs.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    die(signal, info.si_code <= 0, context);
}

/// See [`super::answer`].
pub unsafe fn answer(info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: the caller's promise; nobody else refers to them while the handler runs.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    // SAFETY: SIGSEGV fills this member.
    let address = unsafe { info.si_addr() } as usize;
    let instruction = context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned() as usize;
    match region_at(address, Way::Faults) {
        // A signal that was sent, or a jump into a window, is no access to it.
        Some(region) if info.si_code > 0 && region_at(instruction, Way::Faults).is_none() => {
            FAULTS.set(FAULTS.get() + 1);
            or_abort(|| serve(region, context));
            true
        }
        _ => false,
    }
}

/// Executes the faulting instruction.
///
/// # Panics
///
/// If it is not one that can be: the process ends with a message that names it, since neither a
/// wrong value nor a silent death would be the driver's doing.
fn serve(region: &Region, context: &mut libc::ucontext_t) {
    let gregs = &mut context.uc_mcontext.gregs;
    let get = |gregs: &[i64; 23], at: i32| gregs[at as usize].cast_unsigned();
    let mut registers = Registers {
        general: GENERAL.map(|at| get(gregs, at)),
        instruction: get(gregs, libc::REG_RIP),
        flags: get(gregs, libc::REG_EFL),
    };
    let at = registers.instruction as usize;
    // The instruction may be the last of its mapping, so the next page is looked at only if the
    // instruction goes on there.
    let mut len = (PAGE - at % PAGE).min(LONGEST);
    let done = loop {
        // SAFETY: the CPU has just decoded an instruction there.
        let code = unsafe { std::slice::from_raw_parts(at as *const u8, len) };
        let (first, served) = (region.first as u64, region.served as u64);
        match emulate::execute(code, &mut registers, first, served, &*region.target) {
            Err(Refused::Incomplete) if len < LONGEST => len = LONGEST,
            Err(refused) => panic!("a register access cannot be trapped: {refused}: {code:02x?}"),
            Ok(()) => break registers,
        }
    };
    for (at, value) in GENERAL.into_iter().zip(done.general) {
        gregs[at as usize] = value.cast_signed();
    }
    gregs[libc::REG_RIP as usize] = done.instruction.cast_signed();
    gregs[libc::REG_EFL as usize] = done.flags.cast_signed();
}

/// Makes the process die of the signal.
///
/// The jail lets nobody change a signal's action. But a fault that is blocked kills, whatever the
/// action: so the driver returns to its instruction with the signal blocked, and faults again. A
/// signal that somebody sent does not come again by itself; for that one the handler faults.
fn die(signal: libc::c_int, sent: bool, context: &mut libc::ucontext_t) {
    // SAFETY: the mask is a valid one, the kernel's own.
    unsafe { libc::sigaddset(&raw mut context.uc_sigmask, signal) };
    if sent {
        // SAFETY: none; the fault it causes is the point, and ends the process.
        unsafe { std::ptr::null::<u8>().read_volatile() };
    }
}
