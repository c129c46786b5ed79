//! The tables of a guest's processor: segments, gates, pages.
//!
//! Addresses are the same before and after translation (Intel SDM, volume 3A, 4.5: four levels). Level 3
//! may do with the payload's segments what their headers allow, and with the windows what it likes; what
//! lies below [`USER`] is level 0's.

use crate::payload::{Payload, Segment};
use cofferdam_microvm_abi::{
    ARENA, BAR_WINDOW, BARS, CALL, HEAP, HYPERCALL, MACHINE, MACHINE_LEN, RAM, SYSTEM_STACK, USER,
    VECTORS, page,
};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use std::ops::Range;

const GDT: u64 = 0x1000;
const TSS: u64 = 0x1800;
const IDT: u64 = 0x7000;
/// Level 4, level 3, and a level 2 table for each GiB that holds anything.
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const LOW: u64 = 0x4000;
const WINDOWS: u64 = 0x5000;
const DEVICES: u64 = 0x6000;
/// Level 1 tables of the private memory.
const PAGES: u64 = 0x8000;

/// The tables of a driver that does not see the windows: levels 4 and 3. The others are shared.
pub const BLIND: u64 = 0xc000;
const BLIND_PDPT: u64 = 0xd000;

const PAGE: u64 = 0x1000;
const LARGE: u64 = 0x20_0000;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const LEVEL_3: u64 = 1 << 2;
const IS_LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Selectors: index times 8, plus the privilege level.
const CODE_0: u16 = 0x08;
const DATA_3: u16 = 0x28 | 3;
const CODE_3: u16 = 0x30 | 3;
const TASK: u16 = 0x40;

/// Who writes a byte range of the guest's private memory before it runs.
pub trait Fill {
    /// Writes a word.
    fn word(&mut self, at: u64, value: u64);
}

/// Writes all tables.
pub fn tables(memory: &mut impl Fill, payload: &Payload) {
    segments(memory);
    gates(memory, payload);
    pages(memory, payload);
}

fn segments(memory: &mut impl Fill) {
    // Flat segments (SDM 3A, 3.4.5): code and data of level 0, then data and code of level 3.
    memory.word(GDT + 0x08, 0x00af_9b00_0000_ffff);
    memory.word(GDT + 0x10, 0x00cf_9300_0000_ffff);
    memory.word(GDT + 0x28, 0x00cf_f300_0000_ffff);
    memory.word(GDT + 0x30, 0x00af_fb00_0000_ffff);
    // RSP0 is at byte 4 of the TSS (SDM 3A, 8.7), so it takes parts of two words.
    memory.word(TSS, SYSTEM_STACK << 32);
    memory.word(TSS + 8, SYSTEM_STACK >> 32);
}

fn gates(memory: &mut impl Fill, payload: &Payload) {
    let mut gate = |vector: u8, at: u64| {
        // A 64-bit interrupt gate (SDM 3A, 7.14.1).
        let low = at & 0xffff | u64::from(CODE_0) << 16 | 0x8e << 40 | (at >> 16 & 0xffff) << 48;
        memory.word(IDT + 16 * u64::from(vector), low);
        memory.word(IDT + 16 * u64::from(vector) + 8, at >> 32);
    };
    for vector in 0..32 {
        gate(vector, payload.exceptions + 16 * u64::from(vector));
    }
    for vector in VECTORS..VECTORS + 64 {
        gate(vector, payload.interrupt);
    }
}

fn pages(memory: &mut impl Fill, payload: &Payload) {
    let through = PRESENT | WRITE | LEVEL_3;
    memory.word(PML4, PDPT | through);
    memory.word(PDPT, LOW | through);
    memory.word(PDPT + 8 * (MACHINE >> 30), WINDOWS | through);
    memory.word(PDPT + 8 * (HYPERCALL >> 30), DEVICES | through);

    for table in 0..RAM / LARGE {
        memory.word(LOW + 8 * table, (PAGES + table * PAGE) | through);
    }
    let mut own = |range: Range<u64>, rights: u64| {
        for at in range.step_by(PAGE as usize) {
            memory.word(PAGES + 8 * (at / PAGE), at | PRESENT | rights);
        }
    };
    // The tables themselves and the stack of level 0.
    own(0..SYSTEM_STACK, WRITE | NO_EXECUTE);
    for Segment {
        range,
        write,
        execute,
        ..
    } in &payload.segments
    {
        let level = if range.start < USER { 0 } else { LEVEL_3 };
        let write = if *write { WRITE } else { 0 };
        let execute = if *execute { 0 } else { NO_EXECUTE };
        own(
            range.start..range.end.next_multiple_of(PAGE),
            level | write | execute,
        );
    }
    let arena = payload.arena.then_some(ARENA);
    let own_data = [
        payload.stack(),
        HEAP,
        CALL..CALL + page::DATA + page::DATA_MAX,
    ];
    for range in own_data.into_iter().chain(arena) {
        own(range, LEVEL_3 | WRITE | NO_EXECUTE);
    }

    // Another root, from which nobody sees the windows.
    memory.word(BLIND, BLIND_PDPT | through);
    memory.word(BLIND_PDPT, LOW | through);
    memory.word(BLIND_PDPT + 8 * (HYPERCALL >> 30), DEVICES | through);

    let rights = PRESENT | WRITE | LEVEL_3 | IS_LARGE | NO_EXECUTE;
    for at in (0..MACHINE_LEN).step_by(LARGE as usize) {
        memory.word(WINDOWS + 8 * (at / LARGE), (MACHINE + at) | rights);
    }
    let base = HYPERCALL & !(0x4000_0000 - 1);
    for at in (HYPERCALL..BARS + 6 * BAR_WINDOW).step_by(LARGE as usize) {
        memory.word(DEVICES + 8 * ((at - base) / LARGE), at | rights);
    }
}

/// What is writable for level 3 and private: all of a guest's state but its processor's, for a guest whose
/// stack is used down to that address. Not what nobody may rely on: an arena, and what is below the stack.
pub fn state(payload: &Payload, stack: u64) -> Vec<Range<u64>> {
    let data = payload.segments.iter().filter(|segment| segment.write);
    let heap = (!payload.arena).then_some(HEAP);
    // Functions keep 128 bytes below their stack without saying so (System V ABI, 3.2.2).
    let used = stack.saturating_sub(128).max(payload.stack().start)..payload.stack().end;
    data.map(|segment| segment.range.clone())
        .chain(heap)
        .chain([used, CALL..CALL + page::DATA])
        .collect()
}

/// The processor in 64-bit mode, at level 3.
pub fn special_registers(sregs: &mut kvm_sregs) {
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        dpl: 3,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: CODE_3,
        type_: 11,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: DATA_3,
        type_: 3,
        db: 1,
        ..flat
    };
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: TASK,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    sregs.gdt = kvm_dtable {
        base: GDT,
        limit: 0x3f,
        ..Default::default()
    };
    sregs.idt = kvm_dtable {
        base: IDT,
        limit: 0xfff,
        ..Default::default()
    };
    sregs.cr3 = PML4;
    // PG, AM, WP, NE, ET, MP, PE; PAE, OSFXSR, OSXMMEXCPT; NXE, LMA, LME (SDM 3A, 2.5; 2.2.1).
    sregs.cr0 = 0x8005_0033;
    sregs.cr4 = 0x620;
    sregs.efer = 0xd00;
}

/// At the payload's first instruction, interrupts on.
pub fn registers(payload: &Payload) -> kvm_regs {
    kvm_regs {
        rip: payload.entry,
        rsp: payload.stack().end,
        rflags: 0x202,
        ..Default::default()
    }
}
