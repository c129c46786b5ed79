//! What the machine must show of buses that stand still, links that go down, devices that reach each
//! other and resets that fail.

use crate::{all_is_well, domain, processes, zygote};
use cofferdam_machine::config::{FabricKind, IommuMode};
use cofferdam_placement::placement::Restart;
use cofferdam_placement::trial::{
    DomainEnd, DriverId, End, Fault, Lock, PlacementId, Route, TenantIo, TrialReport, TrialSpec,
};
use cofferdam_placement::zygote::Zygote;

const DRIVERS: [DriverId; 2] = [DriverId::Edu, DriverId::VirtioBlk];
const MS: u64 = 1_000_000;
const TIMEOUT: u64 = 50 * MS;

/// A trial in which the fault must have acted.
fn trial(zygote: &mut Zygote, spec: &TrialSpec) -> TrialReport {
    let report = zygote.run(spec).expect("trial");
    assert!(report.activated > 0, "{spec:?}: {report:#?}");
    report
}

fn on(fabric: FabricKind, placement: PlacementId, driver: DriverId, fault: Fault) -> TrialSpec {
    TrialSpec {
        fabric,
        ..TrialSpec::new(placement, driver, fault)
    }
}

fn frozen(report: &TrialReport) -> [u64; 2] {
    ["tenant1", "tenant2"].map(|name| domain(report, name).frozen_ns)
}

/// The second tenant's requests, and what it saw of its own device.
fn second(report: &TrialReport) -> &TenantIo {
    &report.io[1]
}

fn by(report: &TrialReport) -> &str {
    &report.detection.as_ref().expect("noticed").by
}

#[test]
fn read_that_never_completes_holds_a_shared_bus_to_the_horizon_and_a_contained_port_once() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            let fault = Fault::B1 { nth: 6 };
            let on = |fabric| on(fabric, placement.placement, driver, fault);

            let shared = trial(&mut zygote, &on(FabricKind::Pci));
            assert_eq!(shared.end, End::Horizon);
            assert_eq!(domain(&shared, "tenant1").end, DomainEnd::Frozen);
            assert_eq!(domain(&shared, "tenant2").end, DomainEnd::Alive);

            let contained = trial(&mut zygote, &on(FabricKind::PcieDpc));
            assert_eq!(frozen(&contained), [TIMEOUT, 0], "{contained:#?}");
            assert_eq!(by(&contained), "fabric");
            assert!(contained.resets > 0 && all_is_well(&contained));
        }
    }
}

#[test]
fn late_completion_freezes_its_cpu_until_it_comes_or_the_timeout_does() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for (permille, stands) in [(500, TIMEOUT / 2), (1500, TIMEOUT)] {
            let fault = Fault::B2 { permille, nth: 3 };
            let spec = TrialSpec::new(PlacementId::UserProcess, driver, fault);

            let report = trial(&mut zygote, &spec);

            assert_eq!(frozen(&report), [stands, 0], "{driver:?} {permille}");
            assert_eq!(report.detection.is_some(), permille > 1000);
        }
    }
}

#[test]
fn retries_hold_the_reading_cpu_and_nobody_else() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        let retry = |placement, count| {
            let fault = Fault::B3 { count, nth: 3 };
            on(FabricKind::Pci, placement, driver, fault)
        };
        let some = trial(&mut zygote, &retry(PlacementId::UserProcess, 100_000));
        assert_eq!(frozen(&some), [24 * MS, 0]);
        assert!(all_is_well(&some), "{some:#?}");

        // A device that was reset answers at last.
        let reset = trial(&mut zygote, &retry(PlacementId::UserProcess, u32::MAX));
        assert_eq!(domain(&reset, "tenant1").end, DomainEnd::Alive);
        let endless = trial(&mut zygote, &retry(PlacementId::InKernel, u32::MAX));
        assert_eq!(domain(&endless, "tenant1").end, DomainEnd::Frozen);
        assert_eq!(domain(&endless, "tenant2").end, DomainEnd::Alive);
    }
}

#[test]
fn kept_grant_stops_every_cpu_that_uses_the_bus() {
    let mut zygote = zygote();
    for placement in processes() {
        for driver in DRIVERS {
            let fault = Fault::B4 {
                clocks: 2_000_000,
                nth: 2,
            };
            let spec = on(FabricKind::Pci, placement.placement, driver, fault);
            let report = trial(&mut zygote, &spec);
            // A CPU that asks nothing of the bus meanwhile does not notice; the other tenant's asks.
            for stood in frozen(&report) {
                let stopped = (50 * MS..=60 * MS).contains(&stood);
                assert!(stopped || stood == 0, "{spec:?}: {stood}");
            }
            assert!(
                frozen(&report).into_iter().any(|stood| stood > 0),
                "{spec:?}"
            );
            assert!(all_is_well(&report), "{spec:?}: {report:#?}");
        }
    }
}

#[test]
fn bus_that_is_never_given_back_is_freed_by_who_can_reset_it() {
    let mut zygote = zygote();
    for placement in processes() {
        let fault = Fault::B4 {
            clocks: u32::MAX,
            nth: 6,
        };
        let spec = on(FabricKind::Pci, placement.placement, DriverId::Edu, fault);
        let report = trial(&mut zygote, &spec);
        // Who starts a driver again in place waits for its panic, and has no watchdog over it.
        let freed = matches!(placement.restart, Restart::After(_));
        for stood in frozen(&report) {
            assert_eq!(stood < 200 * MS, freed, "{}: {report:#?}", placement.id);
        }
        // The other tenant's device is reset with the bus.
        assert_eq!(second(&report).device_lost > 0, freed, "{}", placement.id);
    }
}

#[test]
fn locked_device_stops_its_users_and_a_locked_bus_everybody_on_it() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for (lock, stops) in [(Lock::Resource, [false, true]), (Lock::Bus, [true, true])] {
            let fault = Fault::B5 {
                lock,
                ms: 60,
                nth: 2,
            };
            let spec = on(FabricKind::Pci, PlacementId::UserProcess, driver, fault);
            let report = trial(&mut zygote, &spec);
            let stood = frozen(&report).map(|ns| ns > 50 * MS);
            assert_eq!(stood, stops, "{driver:?} {lock:?}: {report:#?}");
        }
    }
}

#[test]
fn starved_write_waits_without_a_timeout_unless_its_port_is_contained() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        let fault = Fault::B6 {
            posted: true,
            ms: 80,
            nth: 2,
        };
        let on = |fabric| on(fabric, PlacementId::UserProcess, driver, fault);

        let plain = trial(&mut zygote, &on(FabricKind::Pcie));
        // Longer than the completion timeout.
        assert!(frozen(&plain)[0] > 60 * MS, "{plain:#?}");
        assert!(plain.detection.is_none_or(|seen| seen.by != "fabric"));

        let contained = trial(&mut zygote, &on(FabricKind::PcieDpc));
        assert!(frozen(&contained)[0] <= MS, "{contained:#?}");
        assert_eq!(by(&contained), "fabric");
        assert!(contained.resets > 0 && all_is_well(&contained));
    }
}

#[test]
fn link_that_went_down_comes_back_after_a_reset_and_a_device_that_is_gone_never() {
    let mut zygote = zygote();
    for fabric in [FabricKind::Pcie, FabricKind::PcieDpc] {
        for driver in DRIVERS {
            let down = |ms| {
                let fault = Fault::B7 { ms, nth: 2 };
                on(fabric, PlacementId::UserProcess, driver, fault)
            };
            let short = trial(&mut zygote, &down(10));
            assert_eq!(by(&short), "fabric");
            assert!(short.resets > 0 && all_is_well(&short), "{short:#?}");

            let gone = trial(&mut zygote, &down(0));
            assert!(gone.io.iter().all(|io| !io.finished), "{gone:#?}");
            let alive = |name| domain(&gone, name).end == DomainEnd::Alive;
            assert!(alive("kernel") && alive("tenant1") && alive("tenant2"));
        }
    }
}

#[test]
fn bad_completion_is_all_ones_or_the_end_or_contained() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for (fatal, fabric, lost) in [
            (false, FabricKind::Pcie, false),
            (true, FabricKind::Pcie, true),
            (true, FabricKind::PcieDpc, false),
        ] {
            for poisoned in [true, false] {
                let fault = Fault::B10 {
                    poisoned,
                    fatal,
                    nth: 3,
                };
                let spec = on(fabric, PlacementId::UserProcess, driver, fault);
                let report = trial(&mut zygote, &spec);
                assert_eq!(report.end == End::SystemLost, lost, "{spec:?}: {report:#?}");
                assert_eq!(by(&report), "fabric", "{spec:?}");
            }
        }
    }
}

#[test]
fn neighbours_registers_are_changed_wherever_no_iommu_stands_between() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for iommu in IommuMode::ALL {
            for (fabric, route, acs, direct) in [
                (FabricKind::Pcie, Route::Near, false, true),
                (FabricKind::Pcie, Route::Near, true, false),
                (FabricKind::Pcie, Route::Far, false, false),
                (FabricKind::Pci, Route::Near, false, true),
            ] {
                let fault = Fault::D9 { route, nth: 2 };
                let clean = on(fabric, PlacementId::UserProcess, driver, fault);
                let spec = TrialSpec {
                    iommu,
                    acs,
                    ..clean
                };

                let report = trial(&mut zygote, &spec);

                let lands = direct || !iommu.translates();
                assert_eq!(second(&report).device_changed, u32::from(lands), "{spec:?}");
                assert_eq!(report.stray[0].verdict, "peer-to-peer");
                assert_eq!(report.stray[0].landed, lands, "{spec:?}");
                assert_eq!(by(&report), if lands { "tenant2" } else { "iommu" });
            }
        }
    }
}

#[test]
fn moved_bar_disturbs_another_device_only_on_a_shared_bus() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for fabric in [FabricKind::Pci, FabricKind::Pcie] {
            for overlap in [false, true] {
                let fault = Fault::C1 { overlap, nth: 3 };
                let spec = on(fabric, PlacementId::UserProcess, driver, fault);
                let report = trial(&mut zygote, &spec);
                let io = second(&report);
                if !(overlap && fabric == FabricKind::Pci) {
                    assert_eq!((io.device_changed, io.device_lost), (0, 0), "{spec:?}");
                }
                assert!(report.resets > 0, "{spec:?}: {report:#?}");
            }
        }
    }
}

#[test]
fn reset_that_is_ignored_takes_along_who_is_on_the_same_bus() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        for (fabric, lost) in [(FabricKind::Pci, true), (FabricKind::Pcie, false)] {
            let fault = Fault::C5 {
                ignored: true,
                ms: 0,
                nth: 4,
            };
            let spec = TrialSpec {
                horizon_ns: 3_000 * MS,
                ..on(fabric, PlacementId::UserProcess, driver, fault)
            };
            let report = trial(&mut zygote, &spec);
            assert_eq!(second(&report).device_lost > 0, lost, "{spec:?}");
            assert!(all_is_well(&report), "{spec:?}: {report:#?}");
            // Twice what software waits after a reset: for the first, and for the second.
            let recovered = report.recovered_after_ns.expect("recovered");
            assert!(recovered >= 100 * MS, "{recovered}");
        }
    }
}

#[test]
fn slow_reset_is_waited_for_as_long_as_it_takes() {
    let mut zygote = zygote();
    for driver in DRIVERS {
        let slow = |ms| {
            let fault = Fault::C5 {
                ignored: false,
                ms,
                nth: 4,
            };
            TrialSpec::new(PlacementId::UserProcess, driver, fault)
        };
        let some = trial(&mut zygote, &slow(300));
        assert!(all_is_well(&some), "{some:#?}");
        assert!(some.recovered_after_ns.expect("recovered") >= 300 * MS);

        let endless = trial(&mut zygote, &slow(60_000));
        assert_eq!(endless.end, End::Horizon);
        assert!(endless.recovered_after_ns.is_none());
        assert!(
            endless
                .domains
                .iter()
                .all(|one| one.end == DomainEnd::Alive)
        );
    }
}
