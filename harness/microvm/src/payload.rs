//! The program inside: where it goes, and where its stubs are.

use crate::vm::VmError;
use cofferdam_microvm_abi::{DEEP_STACK, STACK};
use object::elf::FileHeader64;
use object::read::elf::{ElfFile, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};
use std::ops::Range;
use std::sync::OnceLock;

/// Built by the build script from `payload/`.
static ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payload"));

/// A program for guests: where its parts go.
pub struct Payload {
    /// Loaded ranges.
    pub segments: Vec<Segment>,
    /// The first instruction.
    pub entry: u64,
    /// The stubs of exceptions, 16 bytes each.
    pub exceptions: u64,
    /// The stub of interrupts.
    pub interrupt: u64,
    /// Whether it has the heap that a reset leaves alone.
    pub arena: bool,
    /// The edge counters of instrumented drivers; empty if none is.
    pub counters: Range<u64>,
}

/// A loaded range.
pub struct Segment {
    /// Its addresses; zeroes follow the bytes.
    pub range: Range<u64>,
    /// Its bytes.
    pub bytes: &'static [u8],
    /// Whether it may be written.
    pub write: bool,
    /// Whether it may be executed.
    pub execute: bool,
}

/// The payload that was built with this crate.
pub fn payload() -> &'static Payload {
    static PAYLOAD: OnceLock<Payload> = OnceLock::new();
    PAYLOAD.get_or_init(|| parse(ELF).expect("the payload was linked by its own script"))
}

impl Payload {
    /// Its stack.
    pub fn stack(&self) -> Range<u64> {
        if self.arena { DEEP_STACK } else { STACK }
    }

    /// Another one than that which was built with this crate.
    ///
    /// # Errors
    ///
    /// It is no program for this processor.
    pub fn parse(elf: &'static [u8]) -> Result<Self, VmError> {
        parse(elf).map_err(|error| VmError::at("the payload")(&error))
    }
}

fn parse(elf: &'static [u8]) -> object::Result<Payload> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(elf)?;
    let endian = file.endian();
    let mut segments = Vec::new();
    for header in file.elf_program_headers() {
        if header.p_type(endian) != object::elf::PT_LOAD {
            continue;
        }
        let start = header.p_vaddr(endian);
        let flags = header.p_flags(endian);
        let data = header.data(endian, elf);
        segments.push(Segment {
            range: start..start + header.p_memsz(endian),
            bytes: data.unwrap_or_default(),
            write: flags & object::elf::PF_W != 0,
            execute: flags & object::elf::PF_X != 0,
        });
    }
    let symbol = |name| {
        let symbol = file.symbol_by_name(name);
        symbol.map_or(0, |symbol| symbol.address())
    };
    Ok(Payload {
        segments,
        entry: file.entry(),
        exceptions: symbol("payload_exceptions"),
        interrupt: symbol("payload_interrupt"),
        arena: symbol("payload_arena") != 0,
        counters: symbol("__start___sancov_cntrs")..symbol("__stop___sancov_cntrs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_microvm_abi::{RAM, USER};

    #[test]
    fn payload_lies_in_its_memory_and_no_page_is_both_written_and_executed() {
        let payload = payload();
        assert!(payload.segments.len() >= 3);
        for segment in &payload.segments {
            assert!(segment.range.end <= RAM && segment.bytes.len() as u64 <= segment.range.end);
            assert!(!(segment.write && segment.execute));
        }
        let stubs = [payload.exceptions, payload.interrupt];
        assert!(stubs.iter().all(|&at| at != 0 && at < USER), "{stubs:x?}");
        assert!(payload.entry >= USER);
    }
}
