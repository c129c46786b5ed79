//! The call page, and hypercalls over it.

use cofferdam_microvm_abi::{CALL, HYPERCALL, Service, page};
use cofferdam_seam::HostError;
use core::arch::asm;
use core::slice;

/// Reads a word of the page.
pub fn word(at: u64) -> u64 {
    // SAFETY: the callers name words of the call page, which the VMM maps for level 3; volatile,
    // because the VMM writes it.
    unsafe { ((CALL + at) as *const u64).read_volatile() }
}

/// Writes a word of the page.
pub fn set_word(at: u64, value: u64) {
    // SAFETY: as in `word`.
    unsafe { ((CALL + at) as *mut u64).write_volatile(value) }
}

/// The data of the call that runs, as many of its bytes as there can be.
pub fn data(len: u64) -> &'static mut [u8] {
    let len = len.min(page::DATA_MAX) as usize;
    // SAFETY: nobody else uses the data while a call runs, and the dispatcher asks for it once a call.
    unsafe { slice::from_raw_parts_mut((CALL + page::DATA) as *mut u8, len) }
}

/// Leaves a text in the page.
pub fn set_text(text: &[u8]) {
    let text = &text[..text.len().min(page::TEXT_MAX as usize)];
    for (at, byte) in text.iter().enumerate() {
        // SAFETY: within the page's text.
        unsafe {
            ((CALL + page::TEXT) as *mut u8)
                .add(at)
                .write_volatile(*byte)
        };
    }
    set_word(page::TEXT_LEN, text.len() as u64);
}

/// Lets the VMM do what the page says.
fn enter(service: Service) {
    // SAFETY: a store to the hypercall page only leaves the guest; the compiler must take all memory
    // for changed, which a volatile store alone does not say.
    unsafe {
        asm!("mov dword ptr [{}], {:e}", in(reg) HYPERCALL, in(reg) service as u32, options(nostack));
    }
}

/// Asks the VMM; its answer from word 1 on.
///
/// # Errors
///
/// What the VMM says.
pub fn ask<const N: usize>(service: Service, arguments: &[u64]) -> Result<[u64; N], HostError> {
    for (at, argument) in (0..).zip(arguments) {
        set_word(page::FROM_GUEST + 8 * at, *argument);
    }
    enter(service);
    answer()
}

/// The VMM's answer, from word 1 on.
fn answer<const N: usize>() -> Result<[u64; N], HostError> {
    use cofferdam_microvm_abi::refusal as code;
    let mut answer = [0; 4];
    for (at, value) in (0..).zip(&mut answer) {
        *value = word(page::TO_GUEST + 8 * at);
    }
    match answer[0] {
        code::NONE => {
            let mut values = [0; N];
            values.copy_from_slice(&answer[1..=N]);
            Ok(values)
        }
        code::NO_SUCH_BAR => Err(HostError::NoSuchBar(answer[1] as usize)),
        code::OUT_OF_MEMORY => Err(HostError::OutOfMemory(answer[1] as usize)),
        code::OUT_OF_REGION => Err(HostError::OutOfRegion {
            start: answer[1] as usize,
            end: answer[2] as usize,
            len: answer[3] as usize,
        }),
        code::NO_VECTORS => Err(HostError::NoVectors(answer[1] as u16)),
        code::STOPPED => Err(HostError::Stopped),
        code::INFRASTRUCTURE => Err(HostError::Infrastructure(answer[1] as u32)),
        _ => Err(HostError::Refused),
    }
}

/// Asks for the next call, whose words the page then holds.
pub fn next() {
    enter(Service::Next);
}

/// Ends this guest: its host cannot do what the driver needs, for that reason.
pub fn give_up(reason: &str) -> ! {
    set_text(reason.as_bytes());
    loop {
        enter(Service::GiveUp);
    }
}

/// Ends this guest with a panic's message, which is the page's text.
pub fn panicked() -> ! {
    loop {
        enter(Service::Panic);
    }
}
