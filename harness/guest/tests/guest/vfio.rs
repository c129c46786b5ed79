//! Our driver on QEMU's edu, through the guest's VFIO, behind the guest's IOMMU.

use cofferdam_guest::message::{Check, Task, Verdict};
use cofferdam_guest::{Boot, Guest, Iommu, Machine, Module, Outcome};

/// Behind VFIO mappings are strict: whatever goes astray is stopped and reported, but for what
/// shares a page with its buffer.
#[test]
fn buggy_driver_on_a_real_device_is_contained_by_the_page() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let machine = Machine::new(Iommu::Intel {
        caching_mode: true,
        interrupt_remapping: true,
    });
    let faults = [
        ("D1", Some("iommu"), 0),
        ("D4", Some("iommu"), 0),
        ("D4.in-page", None, 63),
        ("D6", Some("iommu"), 0),
        ("D8", Some("iommu"), 0),
        ("D12", Some("bus-mastering"), 0),
    ];
    let mut tasks = vec![
        Task::new("vfio-refusals"),
        Task::new("vfio-release"),
        Task::new("vfio-handover"),
        Task::new("vfio-conformance"),
        Task::with("vfio-conformance", &["plain"]),
    ];
    // The kernel reports three refused accesses in five seconds and keeps quiet about a fourth, so the
    // two doors' faults are kept apart.
    tasks.extend(faults.map(|(fault, ..)| Task::with("vfio-fault", &[fault])));
    tasks.push(Task::with("vfio-conformance", &["cdev"]));
    tasks.push(Task::with("vfio-conformance", &["cdev", "plain"]));
    tasks.extend(faults.map(|(fault, ..)| Task::with("vfio-fault", &[fault, "cdev"])));
    let expected = tasks.len();
    let mut boot = Boot::new(machine, tasks);
    boot.devices
        .push("edu,addr=5.0,dma_mask=0xffffffffffffffff".to_owned());
    boot.devices.push("nvme,addr=4.0,serial=none".to_owned());
    boot.modules.push(Module::named("vfio_iommu_type1"));
    boot.modules.push(Module::named("vfio-pci"));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    assert_eq!(outcome.checks.len(), expected);
    for check in &outcome.checks {
        let passed = check.verdict == Verdict::Passed;
        assert!(passed || is_skipped(check), "{check:?}");
    }
    let doors = ["group", "cdev"];
    let both = faults
        .iter()
        .flat_map(|fault| doors.map(|door| (fault, door)));
    for (&(fault, wall, landed), door) in both {
        let Some(check) = fault_check(&outcome, fault, door) else {
            continue;
        };
        assert_eq!(check.detail["wall"].as_str(), wall, "{fault} {door}");
        assert_eq!(check.detail["bytes_landed"], landed, "{fault} {door}");
        let recorded = wall == Some("iommu");
        let records = check
            .log
            .iter()
            .any(|record| record.text.contains("DMAR: [DMA Write"));
        assert_eq!(
            records, recorded,
            "{fault} {door}: what the kernel's log says"
        );
    }
}

/// The report of a fault whose device was opened through that door; `None` if it was skipped because
/// the kernel has no such door.
fn fault_check<'a>(outcome: &'a Outcome, fault: &str, door: &str) -> Option<&'a Check> {
    let mut checks = outcome.checks.iter().filter(|check| {
        let arguments = &check.arguments;
        check.name == "vfio-fault" && arguments[0] == fault && is_cdev(check) == (door == "cdev")
    });
    let check = checks.next().expect("a report of the fault");
    if is_skipped(check) {
        return None;
    }
    assert_eq!(check.detail["door"], door, "{fault}");
    Some(check)
}

/// Whether it was to open the device by its own node.
fn is_cdev(check: &Check) -> bool {
    check.arguments.iter().any(|argument| argument == "cdev")
}

/// Debian's kernels have no iommufd. Nothing else may be skipped.
fn is_skipped(check: &Check) -> bool {
    let skipped = check.verdict == Verdict::Skipped;
    if skipped {
        let reason = check.detail["reason"].as_str().unwrap_or_default();
        assert!(is_cdev(check) && reason.contains("CONFIG_"), "{reason}");
    }
    skipped
}
