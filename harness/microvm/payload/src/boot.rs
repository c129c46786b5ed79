//! The code of privilege level 0: what an exception and an interrupt run. The rest of the
//! payload, drivers included, runs at level 3.
//!
//! The VMM builds the tables that lead here, and starts the payload at `_start` at level 3.

use cofferdam_microvm_abi::{CALL, HYPERCALL, Service, page};
use core::arch::{global_asm, naked_asm};

// An exception of level 3 or 0 tells the VMM what happened and never returns.
global_asm!(
    ".pushsection .system, \"ax\"",
    ".global payload_exceptions, payload_interrupt",
    "payload_exceptions:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    // The others push no error code of their own.
    ".if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21",
    "push 0",
    ".endif",
    "push vector",
    "jmp 1f",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    "1:",
    "mov eax, {fault}",
    "pop rcx",
    "mov [rax], rcx",
    "pop rcx",
    "mov [rax + 8], rcx",
    "mov rcx, [rsp]",
    "mov [rax + 16], rcx",
    "mov rcx, cr2",
    "mov [rax + 24], rcx",
    "mov rcx, [rsp + 24]",
    "mov [rax + 32], rcx",
    "mov eax, {hypercall}",
    "mov dword ptr [rax], {service}",
    "2: hlt",
    "jmp 2b",
    // Which vectors were raised is in the answer to the wait; this says that they arrived.
    ".balign 16",
    "payload_interrupt:",
    "push rax",
    "mov eax, {taken}",
    "inc qword ptr [rax]",
    "pop rax",
    "iretq",
    ".popsection",
    fault = const CALL + page::FAULT,
    taken = const CALL + page::TAKEN,
    hypercall = const HYPERCALL,
    service = const Service::Fault as u32,
);

/// The first instruction. The stack pointer is the VMM's choice.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("and rsp, -16", "call {main}", "ud2", main = sym crate::main)
}

/// core was compiled to unwind and names this; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
