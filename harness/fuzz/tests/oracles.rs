//! Every oracle notices a driver that does what it is there for, and says nothing of the same driver
//! that does it right.
//!
//! Two cannot be shown here: a crash ends the process, and a driver that computes without an end is
//! stopped only where it is instrumented. The planted bugs show both.

use cofferdam_fuzz::arena::Heap;
use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::host::{FuzzDma, FuzzHost};
use cofferdam_fuzz::oracle::{ORACLES, Oracle};
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz::world::Detail;
use cofferdam_seam::{
    Bar, Deadline, Device, Direction, DmaRegion, DriverHost, Iova, Mapping, Mmio, Vector, Width,
};
use std::mem::forget;
use std::time::Duration;
use vdevice_edu::{Edu, EduTiming};

/// As in a runner: else nobody knows what the driver frees.
#[global_allocator]
static HEAP: Heap = Heap;

/// What each call does wrong, unless it is told to do it right.
const WRONGS: [(&str, Oracle); 17] = [
    ("panic", Oracle::Panic),
    ("free-heap", Oracle::FreedWhileMapped),
    ("free-region", Oracle::FreedWhileMapped),
    ("stack", Oracle::StackWhileMapped),
    ("beyond", Oracle::DmaOutOfBounds),
    ("stale", Oracle::DmaAfterUnmap),
    ("direction", Oracle::DmaWrongDirection),
    ("foreign", Oracle::DmaUnmapped),
    ("unmap-length", Oracle::BadUnmap),
    ("wait", Oracle::UnboundedWait),
    ("unsent", Oracle::UnsentData),
    ("length", Oracle::LengthBeyondBuffer),
    ("leak-mapping", Oracle::LeakedMapping),
    ("leak-memory", Oracle::LeakedMemory),
    ("bus", Oracle::BusHeld),
    ("resend", Oracle::LeakedBytes),
    ("promise", Oracle::Promise),
];

/// The ways to misuse interrupts.
const INTERRUPTS: [&str; 2] = ["vector", "pin"];

/// A driver that is lent no more memory, cannot say so, and takes back all that it asked for.
const EXHAUST: &str = "exhaust";

const RIGHT: &[Argument] = &[Argument {
    name: "right",
    least: 0,
    most: 1,
}];

static CALLS: [CallSpec; WRONGS.len() + INTERRUPTS.len() + 1] = {
    let mut calls = [CallSpec {
        name: "",
        arguments: RIGHT,
    }; WRONGS.len() + INTERRUPTS.len() + 1];
    let mut at = 0;
    while at < calls.len() {
        calls[at].name = if at < WRONGS.len() {
            WRONGS[at].0
        } else if at < WRONGS.len() + INTERRUPTS.len() {
            INTERRUPTS[at - WRONGS.len()]
        } else {
            EXHAUST
        };
        at += 1;
    }
    calls
};

/// A driver of edu that can do everything wrong.
struct Wrong;

impl Target for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }
    fn driver(&self) -> Crate {
        Crate {
            name: "wrong",
            version: "0",
        }
    }
    fn calls(&self) -> &'static [CallSpec] {
        &CALLS
    }
    fn device(&self) -> Box<dyn Device> {
        Box::new(Edu::new(EduTiming::default()))
    }
    fn start(&self, mut host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        host.set_bus_master(true)?;
        Ok(Box::new(Running {
            host,
            keeps_bus: false,
        }))
    }
}

struct Running {
    host: FuzzHost,
    keeps_bus: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.keeps_bus {
            let _ = self.host.set_bus_master(false);
        }
    }
}

impl Running {
    /// Lets the device copy 64 bytes from there to its own memory.
    fn transfer(&mut self, from: Iova) -> Result<(), Refused> {
        let registers = self.host.map_bar(Bar::ZERO)?;
        for (offset, value) in [(0x80, from.0), (0x88, 0x4_0000), (0x90, 64), (0x98, 1)] {
            registers.write(offset, Width::Eight, value);
        }
        for _ in 0..200 {
            self.host.relax()?;
        }
        Ok(())
    }

    fn mapped(&mut self, len: usize, way: Direction) -> Result<(FuzzDma, Mapping), Refused> {
        let region = self.host.alloc_dma(4096)?;
        let mapping = self.host.map(&region, 0..len, way)?;
        Ok((region, mapping))
    }

    /// Memory on the heap or the stack is lent, and perhaps taken back.
    fn lend(&mut self, bytes: &[u8], right: bool) -> Result<(), Refused> {
        let shared = self.host.share(bytes, Direction::ToDevice)?;
        if right {
            self.host.unshare(shared.iova, bytes.len(), None);
        }
        Ok(())
    }

    fn interrupt(&mut self, misuse: &str, right: bool) -> Result<(), Refused> {
        let registers = self.host.map_bar(Bar::ZERO)?;
        match misuse {
            "vector" => {
                let given = self.host.enable_interrupts(1)?.count;
                let until = Deadline::after(self.host.now(), Duration::from_micros(10));
                let vector = if right { 0 } else { given };
                self.host.wait_any(&[Vector(vector)], until)?;
            }
            _ => {
                // Raised by a register, with no message enabled, and acknowledged by another.
                registers.write32(0x60, 1);
                if right {
                    registers.write32(0x64, 1);
                }
            }
        }
        Ok(())
    }

    fn memory(&mut self, wrong: &str, right: bool, witness: &mut Witness) -> Result<(), Refused> {
        match wrong {
            "free-region" => {
                let (region, mapping) = self.mapped(64, Direction::Both)?;
                if right {
                    self.host.unmap(mapping);
                }
                drop(region);
            }
            "beyond" => {
                let len = if right { 64 } else { 32 };
                let (_region, mapping) = self.mapped(len, Direction::ToDevice)?;
                self.transfer(mapping.iova)?;
                self.host.unmap(mapping);
            }
            "stale" => {
                let (_region, mapping) = self.mapped(64, Direction::ToDevice)?;
                let iova = mapping.iova;
                if right {
                    self.transfer(iova)?;
                    self.host.unmap(mapping);
                } else {
                    self.host.unmap(mapping);
                    self.transfer(iova)?;
                }
            }
            "direction" => {
                let way = if right {
                    Direction::ToDevice
                } else {
                    Direction::FromDevice
                };
                let (_region, mapping) = self.mapped(64, way)?;
                self.transfer(mapping.iova)?;
                self.host.unmap(mapping);
            }
            "foreign" => {
                let (_region, mapping) = self.mapped(64, Direction::ToDevice)?;
                // Cut off to 32 bits.
                let cut = Iova(mapping.iova.0 & 0xffff_ffff);
                self.transfer(if right { mapping.iova } else { cut })?;
                self.host.unmap(mapping);
            }
            "leak-mapping" | "leak-memory" => {
                let (region, mapping) = self.mapped(64, Direction::Both)?;
                if right || wrong == "leak-memory" {
                    self.host.unmap(mapping);
                }
                if right {
                    drop(region);
                } else {
                    forget(region);
                }
            }
            _ => {
                let (region, mapping) = self.mapped(64, Direction::ToDevice)?;
                let mut data = [0; 64];
                witness.secret(&mut data);
                region.write_at(0, &data);
                self.transfer(mapping.iova)?;
                witness.sent();
                if right {
                    region.write_at(0, &[0; 64]);
                }
                self.transfer(mapping.iova)?;
                self.host.unmap(mapping);
            }
        }
        Ok(())
    }
}

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let right = call.argument(0) == 1;
        let mut buffer = [0; 64];
        match call.name() {
            "panic" => assert!(right, "it is wrong"),
            "free-heap" => {
                let bytes = vec![0; 16];
                self.lend(&bytes, right)?;
            }
            "stack" => self.lend(&buffer, right)?,
            "unmap-length" => {
                let shared = self.host.share(&buffer, Direction::ToDevice)?;
                let len = if right { 64 } else { 63 };
                self.host.unshare(shared.iova, len, None);
            }
            "wait" => {
                let registers = self.host.map_bar(Bar::ZERO)?;
                // Liveness answers what was written, inverted.
                registers.write32(4, if right { !3 } else { 0 });
                while registers.read32(4) != 3 {
                    self.host.relax()?;
                }
            }
            "unsent" => {
                witness.mark(&mut buffer);
                let received = if right { 64 } else { 8 };
                buffer[..received].fill(0);
                witness.received("a buffer", &buffer);
            }
            EXHAUST => {
                let bytes = vec![0; 1 << 20];
                for _ in 0..80 {
                    let shared = self.host.share(&bytes, Direction::ToDevice);
                    let at = shared.map_or(Iova(0), |shared| shared.iova);
                    self.host.unshare(at, bytes.len(), None);
                }
            }
            "length" => witness.length("a buffer", if right { 64 } else { 65 }, 64),
            "promise" => witness.promise("it does right", right),
            "bus" => self.keeps_bus = !right,
            name if INTERRUPTS.contains(&name) => self.interrupt(name, right)?,
            name => self.memory(name, right, witness)?,
        }
        Ok(())
    }
}

fn shown(call: &str, right: u8) -> Vec<Oracle> {
    let body = format!("cofferdam program 1\ntarget wrong\nmode model\ncall {call} {right}\n");
    let program = text::parse(&body, &CALLS).expect("a program").program;
    let mut executor = Executor::new(&Wrong).expect("memory");
    let outcome = executor.run(&program, Detail::Close).expect("memory");
    assert!(outcome.started);
    outcome.sightings.iter().map(|it| it.oracle).collect()
}

#[test]
fn each_wrong_is_noticed_and_its_twin_is_not() {
    let interrupts = INTERRUPTS.map(|call| (call, Oracle::InterruptMisuse));
    for (call, oracle) in WRONGS.into_iter().chain(interrupts) {
        let (wrong, right) = (shown(call, 0), shown(call, 1));
        assert!(wrong.contains(&oracle), "{call}: {wrong:?}");
        assert_eq!(right, [], "{call}");
    }
}

#[test]
fn every_oracle_is_shown_here_or_elsewhere() {
    // The first two in tests/faults.rs, those after them by the engine's trials and by the planted bugs, the last
    // above.
    let elsewhere = [
        Oracle::Crash,
        Oracle::WildAccess,
        Oracle::Hang,
        Oracle::MemoryError,
        Oracle::Runaway,
        Oracle::InterruptMisuse,
    ];
    for oracle in ORACLES {
        let here = WRONGS.iter().any(|(_, shown)| *shown == oracle);
        assert!(here != elsewhere.contains(&oracle), "{}", oracle.name());
    }
}

#[test]
fn driver_that_was_refused_memory_is_not_blamed_for_giving_it_back() {
    assert_eq!(shown("exhaust", 0), []);
}
