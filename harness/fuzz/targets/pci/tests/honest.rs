//! Every kind over the crate's PCI transport, with the honest model: the transport finds the device,
//! the driver starts, and goes without leaving the device the bus.

use cofferdam_fuzz::arena::Heap;
use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets_pci::ALL;

/// As in a runner: what a driver leaves behind goes with its execution.
#[global_allocator]
static HEAP: Heap = Heap;

fn target(name: &str) -> &'static dyn Target {
    let found = ALL.iter().find(|target| target.name() == name);
    *found.expect("a target")
}

/// What the oracles notice, and the trace.
fn run(target: &'static dyn Target, body: &str) -> (Vec<Oracle>, bool, String) {
    let name = target.name();
    let source = format!("cofferdam program 1\ntarget {name}\nmode model\n{body}");
    let parsed = text::parse(&source, target.calls()).expect("a program");
    let mut executor = Executor::new(target).expect("memory");
    let outcome = executor
        .run(&parsed.program, Detail::Traced)
        .expect("memory");
    let told = outcome.sightings.iter().map(|it| it.oracle).collect();
    let trace = outcome.trace.text(&mut *target.decoder());
    (told, outcome.started, trace)
}

#[test]
fn every_kind_starts_over_pci_and_leaves_nothing_but_what_is_never_unshared() {
    for target in ALL {
        let (told, started, trace) = run(*target, "");

        assert!(started, "{}\n{trace}", target.name());
        let lent = |it: &Oracle| matches!(it, Oracle::LeakedMapping | Oracle::FreedWhileMapped);
        assert!(
            told.iter().all(lent),
            "{}: {told:?}\n{trace}",
            target.name()
        );
        // The crate's reset as it goes, through the trapped window.
        assert!(
            trace.contains("write8  device_status (4:0x14) = 0x0"),
            "{trace}"
        );
    }
}

#[test]
fn blocks_and_frames_go_over_pci() {
    for (name, calls) in [
        (
            "virtio-blk-pci",
            "call write 1 2\ncall read 1 2\ncall device-id\n",
        ),
        (
            "virtio-net-pci",
            "call send 64\ncall receive\ncall recycle\n",
        ),
    ] {
        let (_, _, trace) = run(target(name), calls);

        let done = trace.matches("-> done").count();
        assert_eq!(done, calls.lines().count(), "{trace}");
    }
}

#[test]
fn device_whose_bar_lies_elsewhere_is_refused_by_the_hal() {
    let lie = "config 0x20 #* = 0x10000004\n";
    let (told, started, trace) = run(target("virtio-blk-pci"), lie);
    assert!(!started && told.is_empty(), "{told:?}\n{trace}");
    assert!(trace.contains("a BAR lies where"), "{trace}");
}

#[test]
fn driver_that_panics_leaves_no_window_to_the_next() {
    let blk = target("virtio-blk-pci");
    let mut executor = Executor::new(blk).expect("memory");
    let mut told = |device: &str| {
        let body = format!(
            "cofferdam program 1\ntarget virtio-blk-pci\nmode model\ncall read 0 1\n{device}"
        );
        let program = text::parse(&body, blk.calls()).expect("a program").program;
        let outcome = executor.run(&program, Detail::Close).expect("memory");
        let oracles = outcome.sightings.into_iter().map(|it| it.oracle);
        oracles.collect::<Vec<_>>()
    };

    // The doorbell lies beyond the structure.
    let beyond = "reply 4:0x1e #* = 0xffff\n";
    for _ in 0..3 {
        assert!(told(beyond).contains(&Oracle::Panic));
        assert_eq!(told(""), []);
    }
}
