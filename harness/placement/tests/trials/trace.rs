//! A trace tells what happened and changes none of it.

use crate::zygote;
use cofferdam_placement::trace::{Trace, What};
use cofferdam_placement::trial::{
    By, ClockKind, DriverId, Fault, PlacementId, Target, TrialReport, TrialSpec,
};

const KINDS: [Fault; 5] = [
    Fault::None,
    Fault::D1 {
        by: By::Device,
        target: Target::Tenant2,
        len: 64,
        nth: 5,
    },
    Fault::B1 { nth: 20 },
    Fault::X1 { nth: 5 },
    Fault::I4 { nth: 3 },
];

fn traced(spec: &TrialSpec) -> (TrialReport, Trace) {
    zygote().run_traced(spec).expect("trial")
}

fn count(trace: &Trace, which: impl Fn(&What) -> bool) -> usize {
    let events = trace.events.iter();
    events.filter(|event| which(&event.what)).count()
}

#[test]
fn report_is_the_same_with_a_trace_and_without() {
    let mut zygote = zygote();
    for driver in DriverId::ALL {
        for placement in [PlacementId::InKernel, PlacementId::UserProcess] {
            for fault in KINDS {
                let spec = TrialSpec::new(placement, driver, fault);
                let bare = zygote.run(&spec).expect("trial").replayed();

                let (report, trace) = zygote.run_traced(&spec).expect("trial");

                assert_eq!(report.replayed(), bare, "{spec:?}");
                assert!(!trace.events.is_empty());
            }
        }
    }
}

#[test]
fn everything_that_is_counted_is_in_the_trace() {
    for driver in DriverId::ALL {
        let spec = TrialSpec::new(PlacementId::UserProcess, driver, Fault::None);

        let (report, trace) = traced(&spec);

        let counts = &report.counts;
        assert_eq!(trace.dropped, 0);
        let of = |which: fn(&What) -> bool| count(&trace, which) as u64;
        assert_eq!(
            of(|what| matches!(what, What::Read { .. })),
            counts.mmio_reads
        );
        assert_eq!(
            of(|what| matches!(what, What::Write { .. })),
            counts.mmio_writes
        );
        assert_eq!(of(|what| matches!(what, What::Dma(_))), counts.dma_requests);
        assert_eq!(of(|what| matches!(what, What::Mapped { .. })), counts.maps);
        let asked = of(|what| matches!(what, What::Asked { .. }));
        let answered = of(|what| matches!(what, What::Answered { good: true, .. }));
        assert!(asked >= 2 * u64::from(spec.requests), "{asked} requests");
        assert_eq!(asked, answered);
    }
}

#[test]
fn blocked_write_is_there_with_verdict_and_refusal_and_after_it_the_activation() {
    let spec = TrialSpec::new(PlacementId::InKernel, DriverId::VirtioBlk, KINDS[1]);

    let (report, trace) = traced(&spec);

    assert_eq!(report.stray_blocked, 1);
    let stray = trace.events.iter().position(|event| match &event.what {
        What::Dma(dma) => dma.stray.as_deref() == Some("foreign (tenant2)"),
        _ => false,
    });
    let stray = stray.expect("the stray write is in the trace");
    let What::Dma(dma) = &trace.events[stray].what else {
        unreachable!("it is a DMA");
    };
    assert!(
        dma.fault
            .as_deref()
            .is_some_and(|why| why.contains("not mapped"))
    );
    assert_eq!((dma.moved, dma.reached), (0, None));
    let activated = trace
        .events
        .iter()
        .position(|event| event.what == What::Activated);
    assert!(activated.is_some_and(|at| at > stray));
    assert_eq!(
        count(&trace, |what| matches!(what, What::Noticed { .. })),
        1
    );
}

#[test]
fn freeze_and_thaw_death_and_restart_are_there_in_order() {
    let (_, frozen) = traced(&TrialSpec::new(
        PlacementId::UserProcess,
        DriverId::VirtioBlk,
        KINDS[2],
    ));
    let froze = frozen
        .events
        .iter()
        .position(|e| matches!(e.what, What::Froze { .. }));
    let thawed = frozen
        .events
        .iter()
        .position(|e| matches!(e.what, What::Thawed { .. }));
    assert!(froze.is_some() && froze < thawed);

    let (report, died) = traced(&TrialSpec::new(
        PlacementId::UserProcess,
        DriverId::Edu,
        KINDS[3],
    ));
    assert_eq!(report.domains[1].restarts, 1);
    let dead = died
        .events
        .iter()
        .position(|e| matches!(e.what, What::Died { .. }));
    let again = died
        .events
        .iter()
        .position(|e| matches!(e.what, What::Restarted { .. }));
    assert!(dead.is_some() && dead < again);
}

#[test]
fn trial_by_the_wall_clock_has_a_trace_too() {
    let spec = TrialSpec {
        clock: ClockKind::Wall,
        ..TrialSpec::new(PlacementId::InKernel, DriverId::Edu, Fault::None)
    };

    let (report, trace) = traced(&spec);

    assert!(report.io.iter().all(|io| io.finished));
    assert!(count(&trace, |what| matches!(what, What::Asked { .. })) > 0);
    assert!(trace.events.is_sorted_by_key(|event| event.at_ns));
}
