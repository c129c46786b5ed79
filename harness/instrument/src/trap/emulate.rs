//! Executes one trapped instruction: a plain access to memory, or one that the compiler folded
//! into arithmetic.
//!
//! Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2. Flags that
//! the manual calls undefined are cleared. Left out, and refused: vector registers, string
//! instructions, shifts, and addresses relative to FS or GS.

use cofferdam_seam::{Mmio, Width};
use iced_x86::{Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};
use thiserror::Error;

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const OVERFLOW: u64 = 1 << 11;
const ARITHMETIC: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// The longest instruction, in bytes.
pub const LONGEST: usize = 15;

/// What of a CPU an instruction may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// RIP.
    pub instruction: u64,
    /// RFLAGS.
    pub flags: u64,
}

/// Why an instruction cannot be executed on behalf of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The bytes end in the middle of an instruction.
    #[error("the instruction is incomplete")]
    Incomplete,
    /// It is none of those this module knows.
    #[error("the instruction is not one that can be trapped")]
    Unknown,
    /// It begins outside the window.
    #[error("the access is not inside the window")]
    Outside,
}

/// Executes the instruction at the start of `code`, whose memory operand lies in the window that
/// starts at `first` and has `served` bytes, and moves on to the next one.
pub fn execute(
    code: &[u8],
    registers: &mut Registers,
    first: u64,
    served: u64,
    target: &dyn Mmio,
) -> Result<(), Refused> {
    let mut decoder = Decoder::with_ip(64, code, registers.instruction, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return Err(match decoder.last_error() {
            iced_x86::DecoderError::NoMoreBytes => Refused::Incomplete,
            _ => Refused::Unknown,
        });
    }
    let operation = Operation::of(&instruction).ok_or(Refused::Unknown)?;
    let address = registers.address(&instruction).ok_or(Refused::Unknown)?;
    let offset = address.wrapping_sub(first);
    if offset >= served {
        return Err(Refused::Outside);
    }
    let offset = u32::try_from(offset).map_err(|_| Refused::Outside)?;
    operation.run(registers, offset, target);
    registers.instruction = instruction.next_ip();
    Ok(())
}

/// A general register, or a part of one.
#[derive(Clone, Copy)]
struct Part {
    index: usize,
    shift: u32,
    width: Width,
}

impl Part {
    fn of(register: Register) -> Option<Self> {
        let number = register as usize;
        let part = |from: Register, index: usize, shift, width| Self {
            index: number - from as usize + index,
            shift,
            width,
        };
        let is_in = |from: Register, to: Register| (from as usize..=to as usize).contains(&number);
        Some(if is_in(Register::AL, Register::BL) {
            part(Register::AL, 0, 0, Width::One)
        } else if is_in(Register::AH, Register::BH) {
            part(Register::AH, 0, 8, Width::One)
        } else if is_in(Register::SPL, Register::R15L) {
            part(Register::SPL, 4, 0, Width::One)
        } else if is_in(Register::AX, Register::R15W) {
            part(Register::AX, 0, 0, Width::Two)
        } else if is_in(Register::EAX, Register::R15D) {
            part(Register::EAX, 0, 0, Width::Four)
        } else if is_in(Register::RAX, Register::R15) {
            part(Register::RAX, 0, 0, Width::Eight)
        } else {
            return None;
        })
    }
}

impl Registers {
    fn get(&self, part: Part) -> u64 {
        (self.general[part.index] >> part.shift) & part.width.all_ones()
    }

    /// Writes a part. A 32-bit write clears the upper half, narrower ones leave the rest alone.
    fn set(&mut self, part: Part, value: u64) {
        let ones = part.width.all_ones();
        let kept = match part.width {
            Width::Four | Width::Eight => 0,
            Width::One | Width::Two => self.general[part.index] & !(ones << part.shift),
        };
        self.general[part.index] = kept | (value & ones) << part.shift;
    }

    /// Where the memory operand is.
    fn address(&self, instruction: &Instruction) -> Option<u64> {
        if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
            return None;
        }
        let of = |register| match Part::of(register) {
            Some(part) if part.width == Width::Eight => Some(self.get(part)),
            _ => None,
        };
        let base = match instruction.memory_base() {
            // The displacement is absolute already.
            Register::None | Register::RIP => 0,
            register => of(register)?,
        };
        let index = match instruction.memory_index() {
            Register::None => 0,
            register => of(register)?,
        };
        let scaled = index.wrapping_mul(instruction.memory_index_scale().into());
        Some(
            base.wrapping_add(scaled)
                .wrapping_add(instruction.memory_displacement64()),
        )
    }

    fn set_flags(&mut self, which: u64, flags: u64) {
        self.flags = self.flags & !which | flags & which;
    }
}

/// The operand that is not memory.
#[derive(Clone, Copy)]
enum Other {
    Register(Part),
    Immediate(u64),
}

/// Two operands make a result and flags.
#[derive(Clone, Copy)]
enum Arithmetic {
    Add { with_carry: bool },
    Subtract { with_borrow: bool },
    And,
    Or,
    Xor,
}

/// One operand makes a result.
#[derive(Clone, Copy)]
enum Unary {
    Not,
    Negate,
    Increment,
    Decrement,
}

#[derive(Clone, Copy)]
enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// What an instruction does with its memory operand of `width`.
enum Action {
    Load {
        into: Part,
        signed: bool,
    },
    Store(Other),
    /// The result goes to memory, to a register, or (comparisons) nowhere.
    Combine {
        how: Arithmetic,
        other: Other,
        memory_first: bool,
        kept: bool,
    },
    Change(Unary),
    Exchange(Part),
    Bit {
        how: Bit,
        number: u64,
    },
}

struct Operation {
    width: Width,
    action: Action,
}

impl Operation {
    /// What the instruction does, if it is one of those known here.
    fn of(instruction: &Instruction) -> Option<Self> {
        let memory_first = instruction.op0_kind() == OpKind::Memory;
        if !memory_first && (instruction.op_count() < 2 || instruction.op1_kind() != OpKind::Memory)
        {
            return None;
        }
        let width = match instruction.memory_size() {
            MemorySize::UInt8 | MemorySize::Int8 => Width::One,
            MemorySize::UInt16 | MemorySize::Int16 => Width::Two,
            MemorySize::UInt32 | MemorySize::Int32 => Width::Four,
            MemorySize::UInt64 | MemorySize::Int64 => Width::Eight,
            _ => return None,
        };
        let other = || {
            let operand = u32::from(memory_first);
            match instruction.op_kind(operand) {
                OpKind::Register => Part::of(instruction.op_register(operand)).map(Other::Register),
                OpKind::Immediate8
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64 => Some(Other::Immediate(instruction.immediate(operand))),
                _ => None,
            }
        };
        let combine = |how, kept| {
            Some(Action::Combine {
                how,
                other: other()?,
                memory_first,
                kept,
            })
        };
        let load = |signed| match other()? {
            Other::Register(into) if !memory_first => Some(Action::Load { into, signed }),
            _ => None,
        };
        let bit = |how| match other()? {
            Other::Immediate(number) => Some(Action::Bit { how, number }),
            // A register may name a bit far beyond the operand.
            Other::Register(_) => None,
        };
        let action = match instruction.mnemonic() {
            Mnemonic::Mov if memory_first => Action::Store(other()?),
            Mnemonic::Mov | Mnemonic::Movzx => load(false)?,
            Mnemonic::Movsx | Mnemonic::Movsxd => load(true)?,
            Mnemonic::Add => combine(Arithmetic::Add { with_carry: false }, true)?,
            Mnemonic::Adc => combine(Arithmetic::Add { with_carry: true }, true)?,
            Mnemonic::Sub => combine(Arithmetic::Subtract { with_borrow: false }, true)?,
            Mnemonic::Sbb => combine(Arithmetic::Subtract { with_borrow: true }, true)?,
            Mnemonic::And => combine(Arithmetic::And, true)?,
            Mnemonic::Or => combine(Arithmetic::Or, true)?,
            Mnemonic::Xor => combine(Arithmetic::Xor, true)?,
            Mnemonic::Cmp => combine(Arithmetic::Subtract { with_borrow: false }, false)?,
            Mnemonic::Test => combine(Arithmetic::And, false)?,
            Mnemonic::Not => Action::Change(Unary::Not),
            Mnemonic::Neg => Action::Change(Unary::Negate),
            Mnemonic::Inc => Action::Change(Unary::Increment),
            Mnemonic::Dec => Action::Change(Unary::Decrement),
            Mnemonic::Xchg => match other()? {
                Other::Register(part) => Action::Exchange(part),
                Other::Immediate(_) => return None,
            },
            Mnemonic::Bt => bit(Bit::Test)?,
            Mnemonic::Bts => bit(Bit::Set)?,
            Mnemonic::Btr => bit(Bit::Reset)?,
            Mnemonic::Btc => bit(Bit::Complement)?,
            _ => return None,
        };
        Some(Self { width, action })
    }

    fn run(&self, registers: &mut Registers, offset: u32, target: &dyn Mmio) {
        let width = self.width;
        let ones = width.all_ones();
        let read = || target.read(offset, width) & ones;
        let write = |value: u64| target.write(offset, width, value & ones);
        let value_of = |registers: &Registers, other| match other {
            Other::Register(part) => registers.get(part),
            Other::Immediate(value) => value & ones,
        };
        match self.action {
            Action::Load { into, signed } => {
                let value = read();
                let value = if signed { extend(value, width) } else { value };
                registers.set(into, value);
            }
            Action::Store(other) => write(value_of(registers, other)),
            Action::Combine {
                how,
                other,
                memory_first,
                kept,
            } => {
                let (memory, value) = (read(), value_of(registers, other));
                let (left, right) = if memory_first {
                    (memory, value)
                } else {
                    (value, memory)
                };
                let (result, flags) = combine(how, left, right, registers.flags, width);
                registers.set_flags(ARITHMETIC, flags);
                match other {
                    _ if !kept => {}
                    _ if memory_first => write(result),
                    Other::Register(part) => registers.set(part, result),
                    Other::Immediate(_) => {}
                }
            }
            Action::Change(how) => {
                let value = read();
                let add = Arithmetic::Add { with_carry: false };
                let subtract = Arithmetic::Subtract { with_borrow: false };
                let ((result, flags), which) = match how {
                    Unary::Not => ((!value, 0), 0),
                    Unary::Negate => (combine(subtract, 0, value, 0, width), ARITHMETIC),
                    Unary::Increment => (combine(add, value, 1, 0, width), ARITHMETIC & !CARRY),
                    Unary::Decrement => {
                        (combine(subtract, value, 1, 0, width), ARITHMETIC & !CARRY)
                    }
                };
                registers.set_flags(which, flags);
                write(result);
            }
            Action::Exchange(part) => {
                let value = read();
                write(registers.get(part));
                registers.set(part, value);
            }
            Action::Bit { how, number } => {
                let value = read();
                let bit = 1 << (number % (8 * u64::from(width.bytes())));
                registers.set_flags(CARRY, if value & bit == 0 { 0 } else { CARRY });
                match how {
                    Bit::Test => {}
                    Bit::Set => write(value | bit),
                    Bit::Reset => write(value & !bit),
                    Bit::Complement => write(value ^ bit),
                }
            }
        }
    }
}

/// Copies the sign bit of a value of `width` into all bits above it.
fn extend(value: u64, width: Width) -> u64 {
    if value & sign_of(width) == 0 {
        value
    } else {
        value | !width.all_ones()
    }
}

fn sign_of(width: Width) -> u64 {
    width.all_ones() ^ (width.all_ones() >> 1)
}

/// The result of `left` and `right`, which have no bits above `width`, and the arithmetic flags.
fn combine(how: Arithmetic, left: u64, right: u64, flags: u64, width: Width) -> (u64, u64) {
    let ones = width.all_ones();
    let sign = sign_of(width);
    let carry_in = flags & CARRY;
    let (result, carry, overflow, adjust) = match how {
        Arithmetic::Add { with_carry } => {
            let carry_in = if with_carry { carry_in } else { 0 };
            let sum = u128::from(left) + u128::from(right) + u128::from(carry_in);
            let result = left.wrapping_add(right).wrapping_add(carry_in) & ones;
            let overflow = (left ^ result) & (right ^ result) & sign != 0;
            (
                result,
                sum > u128::from(ones),
                overflow,
                left ^ right ^ result,
            )
        }
        Arithmetic::Subtract { with_borrow } => {
            let borrow_in = if with_borrow { carry_in } else { 0 };
            let borrow = u128::from(left) < u128::from(right) + u128::from(borrow_in);
            let result = left.wrapping_sub(right).wrapping_sub(borrow_in) & ones;
            let overflow = (left ^ right) & (left ^ result) & sign != 0;
            (result, borrow, overflow, left ^ right ^ result)
        }
        Arithmetic::And => (left & right, false, false, 0),
        Arithmetic::Or => (left | right, false, false, 0),
        Arithmetic::Xor => (left ^ right, false, false, 0),
    };
    let mut set = adjust & ADJUST;
    for (flag, holds) in [
        (CARRY, carry),
        (PARITY, (result & 0xff).count_ones().is_multiple_of(2)),
        (ZERO, result == 0),
        (SIGN, result & sign != 0),
        (OVERFLOW, overflow),
    ] {
        if holds {
            set |= flag;
        }
    }
    (result, set)
}

#[cfg(test)]
mod tests;
