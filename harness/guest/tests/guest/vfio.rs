//! Our driver on QEMU's edu, through the guest's VFIO, behind the guest's IOMMU.

use cofferdam_guest::message::{Check, Task};
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
    let tasks = vec![
        Task::new("vfio-refusals"),
        Task::new("vfio-release"),
        Task::new("vfio-handover"),
        Task::new("vfio-conformance"),
        Task::with("vfio-conformance", &["plain"]),
        Task::with("vfio-fault", &["D1"]),
        Task::with("vfio-fault", &["D4"]),
        Task::with("vfio-fault", &["D4.in-page"]),
        Task::with("vfio-fault", &["D6"]),
        Task::with("vfio-fault", &["D8"]),
        Task::with("vfio-fault", &["D12"]),
    ];
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
    for (fault, wall, landed) in [
        ("D1", Some("iommu"), 0),
        ("D4", Some("iommu"), 0),
        ("D4.in-page", None, 63),
        ("D6", Some("iommu"), 0),
        ("D8", Some("iommu"), 0),
        ("D12", Some("bus-mastering"), 0),
    ] {
        let check = fault_check(&outcome, fault);
        assert_eq!(check.detail["wall"].as_str(), wall, "{fault}");
        assert_eq!(check.detail["bytes_landed"], landed, "{fault}");
        let recorded = wall == Some("iommu");
        let records = check
            .log
            .iter()
            .any(|record| record.text.contains("DMAR: [DMA Write"));
        assert_eq!(records, recorded, "{fault}: what the kernel's log says");
    }
}

fn fault_check<'a>(outcome: &'a Outcome, fault: &str) -> &'a Check {
    let mut checks = outcome.checks.iter();
    checks
        .find(|check| check.detail["fault"] == fault)
        .expect("a report of the fault")
}
