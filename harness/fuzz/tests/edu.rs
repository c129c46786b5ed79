//! The whole way, with our own driver of edu and with broken ones.

use cofferdam_fuzz::executor::{Executor, Outcome};
use cofferdam_fuzz::finding::{explain, look};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::mutate::Mutator;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::{Action, Program, text};
use cofferdam_fuzz::random::Random;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz::world::Detail;
use cofferdam_seam::service::Compute;
use cofferdam_seam::{
    Bar, Deadline, Device, Direction, DriverHost, Iova, Mmio, Time, Vector, Width,
};
use std::time::Duration;
use vdevice_edu::{Edu, EduTiming};

const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "factorial",
        arguments: &[Argument {
            name: "n",
            least: 0,
            most: 12,
        }],
    },
    CallSpec {
        name: "round-trip",
        arguments: &[Argument {
            name: "length",
            least: 1,
            most: 64,
        }],
    },
];

fn model() -> Box<dyn Device> {
    Box::new(Edu::new(EduTiming::default()))
}

/// Our driver.
struct Ours;

struct Running {
    edu: driver_edu::Edu<FuzzHost>,
    host: FuzzHost,
}

impl Target for Ours {
    fn name(&self) -> &'static str {
        "edu"
    }
    fn driver(&self) -> Crate {
        Crate {
            name: "driver-edu",
            version: "0.1.0",
        }
    }
    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }
    fn device(&self) -> Box<dyn Device> {
        model()
    }
    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let edu = driver_edu::Edu::probe(host)?;
        Ok(Box::new(Running { edu, host }))
    }
}

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let until = Deadline::after(self.host.now(), Duration::from_millis(10));
        match call.name() {
            "factorial" => {
                let n = u32::try_from(call.argument(0)).unwrap_or(0);
                self.edu.factorial(n, until)?;
            }
            _ => {
                let out = vec![7; call.size(0)];
                let mut back = vec![0; call.size(0)];
                witness.mark(&mut back);
                self.edu.round_trip(&out, &mut back, until)?;
                witness.received("round trip", &back);
            }
        }
        Ok(())
    }
}

fn executor(target: &'static dyn Target) -> Executor {
    Executor::new(target).expect("memory")
}

fn parse(target: &dyn Target, body: &str) -> Program {
    let text = format!("cofferdam program 1\ntarget t\nmode model\n{body}");
    text::parse(&text, target.calls())
        .expect("a program")
        .program
}

fn run(executor: &mut Executor, program: &Program) -> Outcome {
    executor.run(program, Detail::Fast).expect("memory")
}

#[test]
fn honest_device_shows_nothing() {
    let mut executor = executor(&Ours);
    let program = parse(
        &Ours,
        "call factorial 5\ncall round-trip 64\ncall factorial 3\n",
    );

    let outcome = executor.run(&program, Detail::Traced).expect("memory");

    let trace = outcome.trace.text(&mut *Ours.decoder());
    assert!(outcome.started && outcome.sightings.is_empty(), "{trace}");
    assert_eq!(outcome.acted, 0);
    assert_eq!(trace.matches("-> done").count(), 3, "{trace}");
}

#[test]
fn execution_repeats_to_the_last_step() {
    let mut executor = executor(&Ours);
    let mutator = Mutator::new(&Ours);
    let mut random = Random::new(1);
    for _ in 0..50 {
        let program = mutator.generate(&mut random);
        let mut told = || {
            let outcome = executor.run(&program, Detail::Traced).expect("memory");
            outcome.trace.text(&mut *Ours.decoder())
        };
        assert_eq!(told(), told());
    }
}

#[test]
fn our_driver_stands_what_a_hostile_device_does() {
    let mut executor = executor(&Ours);
    let mut mutator = Mutator::new(&Ours);
    let mut random = Random::new(2);
    let mut acted = 0;
    for round in 0..20_000 {
        if round % 500 == 0 {
            mutator.learn(executor.sketch());
        }
        let mut program = mutator.generate(&mut random);
        mutator.mutate(&mut program, None, &mut random);
        let outcome = run(&mut executor, &program);
        acted += outcome.acted;
        if !outcome.sightings.is_empty() {
            let shown = look(&mut executor, &program).expect("memory");
            let text = text::print(&program, "edu", CALLS);
            assert!(shown.is_empty(), "{text}\n{shown:#?}");
        }
    }
    assert!(acted > 10_000, "the device acted {acted} times only");
}

/// A driver that does one thing wrong, which its call says.
struct Broken;

const WRONGS: &[CallSpec] = &[
    wrong("panic"),
    wrong("wait-for-ever"),
    wrong("beyond"),
    wrong("nothing"),
    wrong("status-index"),
    wrong("wait-for-answer"),
    wrong("wait-for-interrupt"),
    wrong("capabilities"),
];

const fn wrong(name: &'static str) -> CallSpec {
    CallSpec {
        name,
        arguments: &[],
    }
}

struct Wrong {
    host: FuzzHost,
}

impl Target for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn driver(&self) -> Crate {
        Crate {
            name: "edu",
            version: "0",
        }
    }
    fn calls(&self) -> &'static [CallSpec] {
        WRONGS
    }
    fn device(&self) -> Box<dyn Device> {
        model()
    }
    fn start(&self, mut host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        host.set_bus_master(true)?;
        Ok(Box::new(Wrong { host }))
    }
}

impl Wrong {
    /// Lets the device copy from there to its own memory.
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
}

impl Driver for Wrong {
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        let mut host = self.host;
        let registers = host.map_bar(Bar::ZERO)?;
        match call.name() {
            "panic" => panic!("value {} is wrong", host.now().nanos()),
            "wait-for-ever" => {
                while registers.read32(8) != 1 {
                    host.relax()?;
                }
            }
            "wait-for-answer" => {
                // Liveness answers what was written, inverted.
                registers.write32(4, !3);
                while registers.read32(4) != 3 {
                    host.relax()?;
                }
            }
            "capabilities" => {
                let mut at = host.config_read(0x34, Width::One)?;
                while at != 0 {
                    let offset = u16::try_from(at & 0xff).unwrap_or(0);
                    at = host.config_read(offset + 1, Width::One)?;
                }
            }
            "wait-for-interrupt" => {
                host.enable_interrupts(1)?;
                registers.write32(0x60, 1);
                host.wait_any(&[Vector(0)], Deadline(Time::NEVER))?;
            }
            "beyond" => {
                let region = host.alloc_dma(4096)?;
                let mapping = host.map(&region, 0..32, Direction::ToDevice)?;
                self.transfer(mapping.iova)?;
                host.unmap(mapping);
            }
            "status-index" => {
                // Liveness answers what was written, inverted.
                registers.write32(4, !3);
                let table = [1, 2, 3, 4];
                let index = registers.read32(4) as usize;
                assert_ne!(table[index], 0);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        let _ = self.host.set_bus_master(false);
    }
}

/// The same driver, whose documentation says that its calls block.
struct Blocking;

impl Target for Blocking {
    fn name(&self) -> &'static str {
        "blocking"
    }
    fn driver(&self) -> Crate {
        Broken.driver()
    }
    fn calls(&self) -> &'static [CallSpec] {
        WRONGS
    }
    fn device(&self) -> Box<dyn Device> {
        model()
    }
    fn start(&self, host: FuzzHost, witness: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        Broken.start(host, witness)
    }
    fn blocks(&self) -> bool {
        true
    }
}

/// A driver that does not take the device, and leaves it the bus.
struct Refusing;

impl Target for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }
    fn driver(&self) -> Crate {
        Broken.driver()
    }
    fn calls(&self) -> &'static [CallSpec] {
        WRONGS
    }
    fn device(&self) -> Box<dyn Device> {
        model()
    }
    fn start(&self, mut host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        host.set_bus_master(true)?;
        let registers = host.map_bar(Bar::ZERO)?;
        if registers.read32(0) == 0 {
            host.set_bus_master(false)?;
        }
        Err(Refused::because("no edu"))
    }
}

#[test]
fn refused_device_must_not_keep_the_bus() {
    let mut executor = executor(&Refusing);
    let program = |text| parse(&Refusing, text);

    let left = look(
        &mut executor,
        &program(
            "call nothing
",
        ),
    )
    .expect("memory");
    let taken = look(
        &mut executor,
        &program(
            "reply 0:0x0 #1 = 0x0
",
        ),
    )
    .expect("memory");

    let left: Vec<_> = left.iter().map(|finding| finding.oracle).collect();
    assert_eq!(left, [Oracle::BusHeld]);
    assert_eq!(taken, []);
}

#[test]
fn finding_is_minimised_and_told() {
    let mut executor = executor(&Broken);
    let body = "call nothing\nlose #1\ncall nothing\nreply 0:0x4 #1 = 0xffff\nreply 0:0x8 #3 = 0x1\ncall status-index\ncall nothing\n";
    let program = parse(&Broken, body);

    let found = explain(&mut executor, &program, |it| it.oracle == Oracle::Panic);

    let found = found.expect("memory").expect("the panic");
    assert_eq!(found.program.actions.len(), 2, "{:?}", found.program);
    assert!(
        found.finding.message.contains("index out of bounds"),
        "{:?}",
        found.finding
    );
    for words in ["== status-index", "read32 0:0x4", "!! panic"] {
        assert!(found.trace.contains(words), "{}", found.trace);
    }
    let place = tempfile::tempdir().expect("a directory");
    assert!(found.write(&Broken, place.path()).expect("written"));
    assert!(!found.write(&Broken, place.path()).expect("known"));
    let entries = std::fs::read_dir(place.path()).expect("there").count();
    assert_eq!(entries, 1);
}

#[test]
fn numbers_in_a_message_do_not_change_the_signature() {
    let mut executor = executor(&Broken);
    let signatures = [
        "call panic\n",
        "call nothing\ncall wait-for-ever\n",
        "call beyond\ncall panic\n",
    ]
    .map(|body| {
        let program = parse(&Broken, body);
        let findings = look(&mut executor, &program).expect("memory");
        let panic = findings.into_iter().find(|it| it.oracle == Oracle::Panic);
        panic.map(|finding| finding.signature)
    });

    assert!(signatures[0].is_some());
    assert_eq!(signatures[0], signatures[2]);
    assert_eq!(signatures[1], None);
}

/// What a minimised finding says of a wait: whether it is a defect of a driver that blocks, and why.
fn waited(body: &str) -> (bool, String) {
    let mut executor = executor(&Blocking);
    let program = parse(&Blocking, body);
    let found = explain(&mut executor, &program, |it| {
        it.oracle == Oracle::UnboundedWait
    });
    let finding = found.expect("memory").expect("a wait").finding;
    (finding.defect, finding.message)
}

#[test]
fn wait_that_an_honest_device_ends_is_no_defect_of_a_driver_that_blocks() {
    let (defect, message) = waited("call wait-for-interrupt\nlose #1\n");
    assert!(!defect, "{message}");
    assert!(message.contains("; an honest device ends"), "{message}");
}

#[test]
fn wait_that_no_device_ends_is_told_apart() {
    let (_, message) = waited("call wait-for-ever\n");
    assert!(
        message.contains("does not end the wait either"),
        "{message}"
    );
}

#[test]
fn endless_list_in_configuration_space_is_a_defect_of_any_driver() {
    let (defect, message) =
        waited("call capabilities\nconfig 0x41 #* = 0x40\nconfig 0x34 #* = 0x40\n");
    assert!(defect && message.contains("goes round in"), "{message}");
}

#[test]
fn wait_for_a_device_that_is_gone_is_a_defect_of_any_driver() {
    let (defect, message) = waited("call wait-for-answer\nremove write #1\n");
    assert!(
        defect && message.contains("a device that is gone"),
        "{message}"
    );
}

#[test]
fn device_that_is_pulled_out_answers_all_ones() {
    let mut executor = executor(&Ours);
    let program = parse(&Ours, "call factorial 5\nremove write #2\n");

    let outcome = executor.run(&program, Detail::Traced).expect("memory");

    let trace = outcome.trace.text(&mut *Ours.decoder());
    assert!(
        trace.contains("pulled out") && outcome.sightings.is_empty(),
        "{trace}"
    );
    assert_eq!(outcome.acted, 1);
    assert!(program.actions.contains(&Action::Call {
        call: 0,
        arguments: vec![5]
    }));
}
