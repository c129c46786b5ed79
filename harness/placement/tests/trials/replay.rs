//! Under leap a trial is its specification: the same every time, and under either name of the same
//! topology.

use crate::{processes, zygote};
use cofferdam_placement::trial::{By, DriverId, Fault, PlacementId, Target, TrialSpec};

fn faults() -> Vec<Fault> {
    vec![
        Fault::None,
        Fault::D1 {
            by: By::Device,
            target: Target::Tenant2,
            len: 64,
            nth: 5,
        },
        Fault::D1 {
            by: By::Driver,
            target: Target::Kernel,
            len: 64,
            nth: 2,
        },
        Fault::D6 {
            by: By::Device,
            delay_us: 100,
            nth: 3,
        },
        Fault::M1 {
            target: Target::Tenant1,
            len: 64,
            nth: 3,
        },
        Fault::B1 { nth: 20 },
        Fault::B9 {
            nth: 20,
            window_us: 1000,
        },
        Fault::X1 { nth: 5 },
        Fault::X2 {
            raw: false,
            ms: 300,
            nth: 5,
        },
        Fault::X2 {
            raw: true,
            ms: 0,
            nth: 5,
        },
    ]
}

#[test]
fn leap_trials_replay() {
    let (mut one, mut other) = (zygote(), zygote());
    for placement in processes() {
        for driver in [DriverId::Edu, DriverId::VirtioBlk] {
            for fault in faults() {
                let spec = TrialSpec::new(placement.placement, driver, fault);

                let first = one.run(&spec).expect("trial").replayed();
                let second = other.run(&spec).expect("trial").replayed();

                assert_eq!(first, second, "{spec:?}");
            }
        }
    }
}

#[test]
fn kernel_and_hypervisor_are_one_topology() {
    let mut zygote = zygote();
    for driver in [DriverId::Edu, DriverId::VirtioBlk] {
        for fault in faults() {
            let mut kernel = zygote
                .run(&TrialSpec::new(PlacementId::InKernel, driver, fault))
                .expect("trial")
                .replayed();
            let spec = TrialSpec::new(PlacementId::Hypervisor, driver, fault);

            let hypervisor = zygote.run(&spec).expect("trial").replayed();

            kernel.domains[0].name = "hypervisor".into();
            assert_eq!(kernel, hypervisor, "{fault:?}");
        }
    }
}
