//! Drivers that do what no process survives: each is a finding, and the next execution follows in the
//! same process.

#![expect(unsafe_code, reason = "wild accesses are the point")]

use cofferdam_fuzz::executor::{Executor, Outcome};
use cofferdam_fuzz::finding::{explain, look};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Action, Mode, Program};
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz::world::Detail;
use cofferdam_instrument::trap::{Way, Window};
use cofferdam_seam::{Bar, Device, DriverHost};
use std::hint::black_box;
use std::ptr;
use std::rc::Rc;
use vdevice_edu::EduTiming;

const fn call(name: &'static str) -> CallSpec {
    CallSpec {
        name,
        arguments: &[],
    }
}

const CALLS: &[CallSpec] = &[
    call("null"),
    call("stack"),
    call("behind"),
    call("end"),
    call("trap"),
    call("nowhere"),
    CallSpec {
        name: "well",
        arguments: &[Argument {
            name: "n",
            least: 0,
            most: 9,
        }],
    },
];

/// What each but the last shows, and in which words.
const SHOWN: [(Oracle, &str); 6] = [
    (Oracle::WildAccess, "reads from address 0x10"),
    (Oracle::WildAccess, "stack runs over"),
    (
        Oracle::WildAccess,
        "writes to 0x40 bytes behind its registers",
    ),
    (Oracle::Crash, "ends the process"),
    (Oracle::Crash, "an instruction that ends programs"),
    (Oracle::WildAccess, "an address that no memory has"),
];

struct Wild;

static WILD: Wild = Wild;

struct Running {
    window: Window,
    len: usize,
}

impl Target for Wild {
    fn name(&self) -> &'static str {
        "wild"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "faults",
            version: "0.1.0",
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(vdevice_edu::Edu::new(EduTiming::default()))
    }

    fn start(&self, mut host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let registers = host.map_bar(Bar::ZERO)?;
        let len = usize::try_from(cofferdam_seam::Mmio::len(&registers)).unwrap_or(0);
        let window = Window::new(Rc::new(registers), Way::Faults).expect("x86-64 Linux");
        Ok(Box::new(Running { window, len }))
    }
}

/// Takes more stack than there is.
#[inline(never)]
fn sink(depth: u64) -> u64 {
    let mut place = [depth; 64];
    black_box(&mut place);
    if depth == u64::MAX {
        return depth;
    }
    sink(depth + 1) + place[0]
}

impl Driver for Running {
    #[inline(never)]
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        let first = self.window.pointer().as_ptr();
        // What is on the heap stays behind, with the driver's stack.
        black_box(vec![0_u8; 4096]);
        // SAFETY: none; that is what is tested.
        unsafe {
            match call.name() {
                "null" => drop(black_box(ptr::without_provenance::<u8>(0x10)).read_volatile()),
                "stack" => drop(black_box(sink(0))),
                "behind" => first.add(self.len + 0x40).write_volatile(1),
                "end" => std::process::abort(),
                "trap" => std::arch::asm!("ud2"),
                "nowhere" => {
                    let far = ptr::without_provenance_mut::<u8>(1 << 63);
                    black_box(far).write_volatile(1);
                }
                // A register, by a fault that is none.
                _ => assert_eq!(first.cast::<u32>().read_volatile(), 0x0100_00ed),
            }
        }
        Ok(())
    }
}

fn program(calls: &[u16]) -> Program {
    let call = |call: &u16| Action::Call {
        call: *call,
        arguments: vec![0],
    };
    Program {
        mode: Mode::Model,
        actions: calls.iter().map(call).collect(),
    }
}

fn run(executor: &mut Executor, calls: &[u16]) -> Outcome {
    let outcome = executor.run(&program(calls), Detail::Fast);
    outcome.expect("memory")
}

const WELL: u16 = 6;

#[test]
fn faults_are_findings_and_the_process_goes_on() {
    let mut executor = Executor::new(&WILD).expect("memory");
    for _ in 0..50 {
        for (call, (oracle, _)) in (0..).zip(SHOWN) {
            let outcome = run(&mut executor, &[WELL, call]);

            let shown: Vec<_> = outcome.sightings.iter().map(|it| it.oracle).collect();
            assert_eq!(shown, [oracle], "{}", CALLS[usize::from(call)].name);
            assert!(outcome.abandoned);
            let outcome = run(&mut executor, &[WELL, WELL]);
            assert!(outcome.sightings.is_empty() && !outcome.abandoned);
        }
    }
}

#[test]
fn fault_is_told_with_its_place_and_made_small() {
    let mut executor = Executor::new(&WILD).expect("memory");
    for (call, (oracle, words)) in (0..).zip(SHOWN) {
        let shown = program(&[WELL, WELL, call, WELL]);

        let found = explain(&mut executor, &shown, |it| it.oracle == oracle);

        let found = found.expect("memory").expect("it shows again");
        assert_eq!(found.program, program(&[call]));
        let finding = &found.finding;
        assert!(finding.message.contains(words), "{finding:?}");
        assert!(found.trace.contains(finding.oracle.name()));
        let place = &finding.location.function;
        assert!(
            place.starts_with("faults::"),
            "{finding:?}\n{}",
            found.trace
        );
        let name = CALLS[usize::from(call)].name;
        assert_eq!(finding.during, name);
    }
}

#[test]
fn places_have_signatures_of_their_own() {
    let mut executor = Executor::new(&WILD).expect("memory");
    let mut signature = |call: u16| {
        let shown = look(&mut executor, &program(&[call])).expect("memory");
        shown[0].signature.clone()
    };

    let (null, again, stack) = (signature(0), signature(0), signature(1));

    assert_eq!(null, again);
    assert_ne!(null, stack);
}
