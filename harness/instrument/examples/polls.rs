//! A driver that is nothing but register accesses and poll loops, for the tests of instrumented builds:
//! `cofferdam instrument --crate polls -- run -p cofferdam-instrument --example polls`.
//!
//! It prints a line for each thing that went as it should, and panics otherwise. With the argument
//! `endless` it polls memory that nobody writes, and must die of it.

use cofferdam_instrument::coverage;
use cofferdam_instrument::steps::{STEPS, Stepping, Turn};
use cofferdam_instrument::trap::{Way, Window, settle};
use cofferdam_seam::{Mmio, Width};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

/// Registers that remember every access.
#[derive(Default)]
struct Registers {
    value: Cell<u64>,
    seen: RefCell<Vec<String>>,
}

impl Mmio for Registers {
    fn read(&self, offset: u32, width: Width) -> u64 {
        self.value.set(self.value.get() + 0x0101_0101_0101_0101);
        let value = self.value.get() & width.all_ones();
        self.seen
            .borrow_mut()
            .push(format!("read {offset:#x} {width:?} {value:#x}"));
        value
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        self.seen
            .borrow_mut()
            .push(format!("write {offset:#x} {width:?} {value:#x}"));
    }

    fn len(&self) -> u64 {
        4096
    }
}

/// What a driver may do to its registers.
#[inline(never)]
fn drive(first: NonNull<u8>) -> u64 {
    // SAFETY: the window has 4096 bytes.
    unsafe {
        first.add(0x10).write_volatile(1);
        first.add(0x12).cast::<u16>().write_volatile(2);
        let long = first.add(0x14).cast::<u32>();
        long.write_volatile(3);
        long.write_volatile(3);
        // Read, changed and written back.
        long.write_volatile(long.read_volatile() | 0x8000_0000);
        let status = first.add(0x20).cast::<u64>();
        while status.read_volatile() & 0xff < 8 {}
        status.write_volatile(u64::MAX);
        u64::from(first.add(3).read_volatile())
            + u64::from(first.add(6).cast::<u16>().read_volatile())
    }
}

fn trace(way: Way) -> (u64, Vec<String>) {
    let registers = Rc::new(Registers::default());
    let window = Window::new(registers.clone(), way).expect("a window");
    let result = drive(window.pointer());
    settle();
    (result, registers.seen.take())
}

/// Waits for memory to change, as a driver that polls its completion queue does.
#[inline(never)]
fn poll(memory: &Cell<u32>) {
    // SAFETY: a reference is valid; volatile because others write it.
    while unsafe { memory.as_ptr().read_volatile() } == 0 {}
}

/// The device: it writes the memory at its third turn, or gives the driver up then.
struct Device {
    memory: Cell<u32>,
    turns: Cell<u32>,
    answers: bool,
}

impl Turn for Device {
    fn turn(&self) {
        self.turns.set(self.turns.get() + 1);
        if self.turns.get() == 3 {
            assert!(self.answers, "the driver does not come back");
            self.memory.set(1);
        }
    }
}

fn main() {
    assert!(
        coverage::is_instrumented("polls"),
        "this program is for instrumented builds: see its first lines"
    );

    let (faults, callbacks) = (trace(Way::Faults), trace(Way::Callbacks));
    assert_eq!(faults, callbacks, "the two ways differ");
    println!("{} accesses agree", faults.1.len());

    let device = Rc::new(Device {
        memory: Cell::new(0),
        turns: Cell::new(0),
        answers: std::env::args().nth(1).is_none_or(|told| told != "endless"),
    });
    let stepping = Stepping::new(device.clone());
    poll(&device.memory);
    drop(stepping);
    assert_eq!(device.turns.get(), 3);
    println!("memory changed after 3 turns of {STEPS} steps");
}
