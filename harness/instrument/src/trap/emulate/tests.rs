use super::*;
use std::cell::RefCell;

const FIRST: u64 = 0x5000_0000;
const SERVED: u64 = 0x1000;
const RCX: usize = 1;
const RDX: usize = 2;

/// A device whose registers all hold `value`, and what was done to it.
struct Device {
    value: u64,
    done: RefCell<Vec<Access>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Read(u32, Width),
    Write(u32, Width, u64),
}
use Access::{Read, Write};

impl Mmio for Device {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.done.borrow_mut().push(Read(offset, width));
        self.value
    }
    fn write(&self, offset: u32, width: Width, value: u64) {
        self.done.borrow_mut().push(Write(offset, width, value));
    }
    fn len(&self) -> u64 {
        SERVED
    }
}

/// RCX points to the window, RDX holds a pattern, all else is zero.
fn start() -> Registers {
    let mut registers = Registers {
        instruction: 0x40_0000,
        ..Registers::default()
    };
    registers.general[RCX] = FIRST;
    registers.general[RDX] = 0x1122_3344_5566_7788;
    registers
}

/// Executes one instruction on a device whose registers hold `value`.
fn run(code: &[u8], value: u64, mut registers: Registers) -> (Registers, Vec<Access>) {
    let device = Device {
        value,
        done: RefCell::default(),
    };
    let result = execute(code, &mut registers, FIRST, SERVED, &device);
    assert_eq!(result, Ok(()), "{code:02x?}");
    (registers, device.done.into_inner())
}

#[test]
fn loads_of_every_width_fill_the_register_as_the_cpu_does() {
    use Width::{Eight, Four, One, Two};
    let value = 0x8182_8384_8586_8788;
    let old = 0x0102_0304_0506_0708;
    for (code, register, width, expected) in [
        // mov al, [rcx]; mov ah, [rcx]; mov sil, [rcx]; mov r9b, [rcx]
        (&[0x8a, 0x01][..], 0, One, 0x0102_0304_0506_0788),
        (&[0x8a, 0x21], 0, One, 0x0102_0304_0506_8808),
        (&[0x40, 0x8a, 0x31], 6, One, 0x0102_0304_0506_0788),
        (&[0x44, 0x8a, 0x09], 9, One, 0x0102_0304_0506_0788),
        // mov ax, [rcx]; mov eax, [rcx]; mov rax, [rcx]; mov r15d, [rcx]
        (&[0x66, 0x8b, 0x01], 0, Two, 0x0102_0304_0506_8788),
        (&[0x8b, 0x01], 0, Four, 0x8586_8788),
        (&[0x48, 0x8b, 0x01], 0, Eight, value),
        (&[0x44, 0x8b, 0x39], 15, Four, 0x8586_8788),
        // movzx eax, byte [rcx]; movzx eax, word [rcx]
        (&[0x0f, 0xb6, 0x01], 0, One, 0x88),
        (&[0x0f, 0xb7, 0x01], 0, Two, 0x8788),
        // movsx eax, byte [rcx]; movsx rax, byte [rcx]; movsxd rax, dword [rcx]
        (&[0x0f, 0xbe, 0x01], 0, One, 0xffff_ff88),
        (&[0x48, 0x0f, 0xbe, 0x01], 0, One, 0xffff_ffff_ffff_ff88),
        (&[0x48, 0x63, 0x01], 0, Four, 0xffff_ffff_8586_8788),
    ] {
        let mut before = start();
        before.general[register] = old;
        let (after, done) = run(code, value, before.clone());
        assert_eq!(after.general[register], expected, "{code:02x?}");
        assert_eq!(done, [Read(0, width)], "{code:02x?}");
        assert_eq!(after.flags, before.flags);
        let len = after.instruction - before.instruction;
        assert_eq!(len, code.len() as u64, "{code:02x?}");
    }
}

#[test]
fn stores_of_every_width_write_what_the_operand_holds() {
    use Width::{Eight, Four, One, Two};
    for (code, expected) in [
        // mov [rcx], dl; dh; dx; edx; rdx
        (&[0x88, 0x11][..], Write(0, One, 0x88)),
        (&[0x88, 0x31], Write(0, One, 0x77)),
        (&[0x66, 0x89, 0x11], Write(0, Two, 0x7788)),
        (&[0x89, 0x11], Write(0, Four, 0x5566_7788)),
        (&[0x48, 0x89, 0x11], Write(0, Eight, 0x1122_3344_5566_7788)),
        // mov byte [rcx], 0x7f; word 0x1234; dword 0x11223344; qword -1
        (&[0xc6, 0x01, 0x7f], Write(0, One, 0x7f)),
        (&[0x66, 0xc7, 0x01, 0x34, 0x12], Write(0, Two, 0x1234)),
        (
            &[0xc7, 0x01, 0x44, 0x33, 0x22, 0x11],
            Write(0, Four, 0x1122_3344),
        ),
        (
            &[0x48, 0xc7, 0x01, 0xff, 0xff, 0xff, 0xff],
            Write(0, Eight, u64::MAX),
        ),
    ] {
        let (after, done) = run(code, 0, start());
        assert_eq!(done, [expected], "{code:02x?}");
        assert_eq!(after.general, start().general, "{code:02x?}");
    }
}

#[test]
fn address_is_base_plus_scaled_index_plus_displacement() {
    // mov eax, [rcx + rdx * 4 + 0x10]
    let mut registers = start();
    registers.general[RDX] = 3;
    let (_, done) = run(&[0x8b, 0x44, 0x91, 0x10], 0, registers);
    assert_eq!(done, [Read(0x1c, Width::Four)]);

    // mov eax, [rip + 0x10], six bytes long
    let mut registers = start();
    registers.instruction = FIRST + 0x100;
    let (_, done) = run(&[0x8b, 0x05, 0x10, 0, 0, 0], 0, registers);
    assert_eq!(done, [Read(0x116, Width::Four)]);
}

#[test]
fn folded_arithmetic_reads_once_and_writes_once() {
    let value = 0b1010;
    for (code, written) in [
        // or, and, xor, add, sub dword [rcx], 6; lock or
        (&[0x83, 0x09, 0x06][..], 0b1110),
        (&[0x83, 0x21, 0x06], 0b0010),
        (&[0x83, 0x31, 0x06], 0b1100),
        (&[0x83, 0x01, 0x06], 0b10000),
        (&[0x83, 0x29, 0x06], 0b0100),
        (&[0xf0, 0x83, 0x09, 0x06], 0b1110),
        // inc, dec, not, neg dword [rcx]
        (&[0xff, 0x01], 0b1011),
        (&[0xff, 0x09], 0b1001),
        (&[0xf7, 0x11], 0xffff_fff5),
        (&[0xf7, 0x19], 0xffff_fff6),
        // bts, btr, btc dword [rcx], 1; the bit's number wraps
        (&[0x0f, 0xba, 0x29, 0x02], 0b1110),
        (&[0x0f, 0xba, 0x31, 0x01], 0b1000),
        (&[0x0f, 0xba, 0x39, 0x21], 0b1000),
    ] {
        let (_, done) = run(code, value, start());
        let expected = [Read(0, Width::Four), Write(0, Width::Four, written)];
        assert_eq!(done, expected, "{code:02x?}");
    }
}

#[test]
fn comparisons_write_nothing() {
    // cmp dword [rcx], 5; cmp [rcx], edx; cmp edx, [rcx]; test dword [rcx], edx; bt dword [rcx], 0
    for (code, equal) in [
        (&[0x83, 0x39, 0x05][..], true),
        (&[0x39, 0x11], false),
        (&[0x3b, 0x11], false),
        (&[0x85, 0x11], true),
    ] {
        let mut registers = start();
        registers.general[RDX] = 0b1010;
        let (after, done) = run(code, 5, registers);
        assert_eq!(done, [Read(0, Width::Four)], "{code:02x?}");
        assert_eq!(after.flags & ZERO != 0, equal, "{code:02x?}");
        assert_eq!(after.general[RDX], 0b1010);
    }
    let (after, done) = run(&[0x0f, 0xba, 0x21, 0x02], 5, start());
    assert_eq!(done, [Read(0, Width::Four)]);
    assert_eq!(after.flags & CARRY, CARRY);
}

#[test]
fn arithmetic_with_a_register_result_leaves_the_device_alone() {
    // sub edx, [rcx]
    let (after, done) = run(&[0x2b, 0x11], 0x88, start());
    assert_eq!(done, [Read(0, Width::Four)]);
    assert_eq!(after.general[RDX], 0x5566_7700);
}

#[test]
fn exchange_swaps() {
    // xchg [rcx], edx
    let (after, done) = run(&[0x87, 0x11], 7, start());
    let expected = [Read(0, Width::Four), Write(0, Width::Four, 0x5566_7788)];
    assert_eq!(done, expected);
    assert_eq!(after.general[RDX], 7);
}

#[test]
fn what_is_not_known_is_refused_and_touches_nothing() {
    let device = Device {
        value: 0,
        done: RefCell::default(),
    };
    for (code, why) in [
        // movups xmm0, [rcx]; rep movsb; mov eax, fs:[rcx]; mov eax, edx; bts [rcx], edx; ud2
        (&[0x0f, 0x10, 0x01][..], Refused::Unknown),
        (&[0xf3, 0xa4], Refused::Unknown),
        (&[0x64, 0x8b, 0x01], Refused::Unknown),
        (&[0x8b, 0xc2], Refused::Unknown),
        (&[0x0f, 0xab, 0x11], Refused::Unknown),
        (&[0x0f, 0x0b], Refused::Unknown),
        // mov eax, [ecx]: addresses of 32 bits
        (&[0x67, 0x8b, 0x01], Refused::Unknown),
        // mov eax, [rcx + ...: cut off
        (&[0x8b, 0x41], Refused::Incomplete),
        // mov eax, [rcx - 8]; mov eax, [rcx + 0x1000]
        (&[0x8b, 0x41, 0xf8], Refused::Outside),
        (&[0x8b, 0x81, 0, 0x10, 0, 0], Refused::Outside),
    ] {
        let mut registers = start();
        let result = execute(code, &mut registers, FIRST, SERVED, &device);
        assert_eq!(result, Err(why), "{code:02x?}");
        assert_eq!(registers, start());
    }
    assert_eq!(device.done.into_inner(), []);
}

/// What the CPU makes of `mnemonic [memory], register`: memory and the flags.
macro_rules! on_the_cpu {
    ($code:expr, $number:ty, $class:ident, $memory:expr, $other:expr, $carry:expr) => {{
        let mut memory = $memory as $number;
        let flags: u64;
        // SAFETY: the instruction reads and writes `memory` and nothing else; what is pushed is
        // popped.
        unsafe {
            std::arch::asm!(
                "shr {carry}, 1",
                $code,
                "pushfq",
                "pop {flags}",
                carry = inout(reg) u64::from($carry) => _,
                memory = in(reg) &raw mut memory,
                other = in($class) $other as $number,
                flags = lateout(reg) flags,
            );
        }
        (u64::from(memory), flags & ARITHMETIC)
    }};
}

/// The same here, with the memory in a window.
fn here(code: &[u8], memory: u64, other: u64, carry: bool) -> (u64, u64) {
    let mut registers = start();
    registers.general[RDX] = other;
    registers.flags = u64::from(carry);
    let (after, done) = run(code, memory, registers);
    let memory = match done[..] {
        [_, Write(_, _, value)] => value,
        _ => memory,
    };
    (memory, after.flags & ARITHMETIC)
}

macro_rules! agrees {
    ($($mnemonic:literal $byte:literal $defined:expr;)+) => {$(
        for left in EDGES {
            for (right, carry) in EDGES.into_iter().flat_map(|edge| [(edge, false), (edge, true)]) {
                let what = format!("{} {left:#x}, {right:#x}, carry {carry}", $mnemonic);
                let (left8, right8) = (left & 0xff, right & 0xff);
                // The byte form of an opcode is one below; the operands are [rcx], edx or dl.
                for (here, there) in [
                    (
                        here(&[$byte, 0x11], left, right, carry),
                        on_the_cpu!(
                            concat!($mnemonic, " dword ptr [{memory}], {other:e}"),
                            u32, reg, left, right, carry
                        ),
                    ),
                    (
                        here(&[$byte - 1, 0x11], left8, right8, carry),
                        on_the_cpu!(
                            concat!($mnemonic, " byte ptr [{memory}], {other}"),
                            u8, reg_byte, left8, right8, carry
                        ),
                    ),
                ] {
                    assert_eq!(here.0, there.0, "{what}");
                    assert_eq!(here.1 & $defined, there.1 & $defined, "{what}");
                }
            }
        }
    )+};
}

const EDGES: [u64; 10] = [
    0,
    1,
    0x0f,
    0x10,
    0x7f,
    0x80,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

#[test]
#[expect(
    clippy::cast_possible_truncation,
    reason = "operands of each width are cut from the same values"
)]
fn results_and_flags_are_the_cpus() {
    let logic = ARITHMETIC & !ADJUST;
    agrees! {
        "add" 0x01 ARITHMETIC;
        "or" 0x09 logic;
        "adc" 0x11 ARITHMETIC;
        "sbb" 0x19 ARITHMETIC;
        "and" 0x21 logic;
        "sub" 0x29 ARITHMETIC;
        "xor" 0x31 logic;
        "cmp" 0x39 ARITHMETIC;
        "test" 0x85 logic;
    }
}

#[test]
fn increment_and_decrement_keep_the_carry() {
    for carry in [0, CARRY] {
        let mut registers = start();
        registers.flags = carry;
        // inc dword [rcx]; dec dword [rcx]
        let (after, _) = run(&[0xff, 0x01], 0xffff_ffff, registers.clone());
        assert_eq!(after.flags & (CARRY | ZERO), carry | ZERO);
        let (after, _) = run(&[0xff, 0x09], 0, registers);
        assert_eq!(after.flags & (CARRY | SIGN), carry | SIGN);
    }
}
