//! Every target with the honest model of its device: it starts, its calls come back, and the oracles
//! are silent but for one defect that needs no hostile device.

use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::oracle::{Oracle, Sighting};
use cofferdam_fuzz::program::text;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_fuzz_targets::ALL;
use std::fmt::Write;

/// The life of a stream. The crate's blocking call waits for sound to be heard, which takes turns that
/// a driver gets only where it is instrumented; so it is not here.
const SOUND: &str = "call streams\ncall formats\ncall set-parameters 64\ncall prepare\ncall submit\n\
    call start\ncall notification\ncall ack-interrupt\ncall stop\ncall release\ncall complete\n\
    call set-parameters 32\ncall prepare\ncall release\n";

/// All calls three times over, each with three sizes of arguments. A request that is submitted is
/// completed: the crate's blocking calls take the next answer for theirs.
fn program(target: &dyn Target) -> String {
    let mut body = format!(
        "cofferdam program 1\ntarget {}\nmode model\n",
        target.name()
    );
    if target.name() == "virtio-sound" {
        return body + SOUND;
    }
    for round in 0..3 {
        for call in target.calls() {
            write!(body, "call {}", call.name).expect("memory");
            for argument in call.arguments {
                let value = match round {
                    0 => argument.least,
                    1 => argument.least.midpoint(argument.most),
                    _ => argument.most,
                };
                write!(body, " {value}").expect("memory");
            }
            body.push('\n');
            if call.name.starts_with("submit") {
                body.push_str("call complete\n");
            }
        }
    }
    body
}

/// Drivers that leave buffers with the device and never take them back: virtio-drivers 0.13.0 calls
/// `Hal::unshare` only for a buffer that was used, not for those that still lie in a queue when the
/// driver is dropped.
const LENDERS: [&str; 5] = [
    "virtio-net",
    "virtio-console",
    "virtio-input",
    "virtio-socket",
    "virtio-sound",
];

#[test]
fn honest_devices_show_nothing_but_what_is_never_unshared() {
    for target in ALL {
        let source = program(*target);
        let parsed = text::parse(&source, target.calls()).expect("a program");
        let mut executor = Executor::new(*target).expect("memory");

        let outcome = executor
            .run(&parsed.program, Detail::Traced)
            .expect("memory");

        let trace = outcome.trace.text(&mut *target.decoder());
        assert!(outcome.started, "{}\n{trace}", target.name());
        let lent = |sighting: &Sighting| {
            sighting.oracle == Oracle::LeakedMapping && sighting.during == "remove"
        };
        assert!(
            outcome.sightings.iter().all(lent),
            "{}\n{trace}",
            target.name()
        );
        let lends = LENDERS.contains(&target.name());
        assert!(
            lends || outcome.sightings.is_empty(),
            "{}\n{trace}",
            target.name()
        );
        let done = trace.matches("-> done").count();
        assert!(
            done >= target.calls().len(),
            "{}: {done} done\n{trace}",
            target.name()
        );
    }
}
