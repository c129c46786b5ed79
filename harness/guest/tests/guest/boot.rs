//! Guests boot behind an IOMMU and their checks come back.

use cofferdam_guest::message::{Task, Verdict};
use cofferdam_guest::{Boot, DmaModule, Ending, Guest, Iommu, Machine, Module};
use std::time::Duration;

/// What stands between edu and memory.
fn iommu(caching_mode: bool) -> Machine {
    Machine::new(Iommu::Intel {
        caching_mode,
        interrupt_remapping: true,
    })
}

/// A machine with QEMU's edu and VFIO's driver.
fn with_edu(machine: Machine, tasks: Vec<Task>) -> Boot {
    let mut boot = Boot::new(machine, tasks);
    boot.devices.push("edu".to_owned());
    boot.modules.push(Module::named("vfio-pci"));
    boot
}

#[test]
fn guest_behind_an_iommu_has_groups_and_survives_its_checks() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut late = Task::new("kernel");
    late.deadline = Duration::ZERO;
    let tasks = vec![
        late,
        Task::new("no-such-check"),
        Task::new("kernel"),
        Task::new("iommu-groups"),
    ];

    let outcome = guest.run(&with_edu(iommu(true), tasks)).expect("a life");

    assert_eq!(outcome.ending, Ending::Finished, "{}", outcome.console);
    let verdicts: Vec<_> = outcome.checks.iter().map(|check| check.verdict).collect();
    assert_eq!(
        verdicts,
        [
            Verdict::Failed,
            Verdict::Failed,
            Verdict::Passed,
            Verdict::Passed
        ],
        "{:#?}",
        outcome.checks
    );
    let late = outcome.checks[0].detail.to_string();
    assert!(late.contains("deadline"), "{late}");
    let groups = &outcome.checks[3].detail["groups"];
    assert!(groups.as_object().is_some_and(|groups| groups.len() > 1));
    let logged = |text: &str| outcome.records().any(|record| record.text.contains(text));
    assert!(logged("DMAR: IOMMU enabled"));
    assert!(logged("VFIO - User Level"), "a module was loaded");
}

#[test]
fn kernel_maps_memory_in_each_type_of_domain() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let Some(module) = DmaModule::or_skip(&guest.tools) else {
        return;
    };
    let tasks = ["identity", "DMA", "DMA-FQ"].map(|kind| Task::with("dma-module", &[kind]));
    let mut boot = with_edu(iommu(false), tasks.to_vec());
    boot.modules.push(Module::file(&module.path()));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    let verdicts: Vec<_> = outcome.checks.iter().map(|check| check.verdict).collect();
    assert_eq!(verdicts, [Verdict::Passed; 3], "{:#?}", outcome.checks);
}
