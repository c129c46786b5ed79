//! Our driver of NVMe on QEMU's controller, through the guest's VFIO, behind the guest's IOMMU.

use cofferdam_guest::message::{Task, Verdict};
use cofferdam_guest::{Boot, Guest, Iommu, Machine, Module};
use std::io::Write;

/// Bytes of the disk.
const DISK: usize = 1 << 20;

#[test]
fn our_nvme_driver_conforms_on_a_real_controller() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut medium = tempfile::NamedTempFile::new().expect("a disk");
    medium.write_all(&vec![0; DISK]).expect("a disk");
    let machine = Machine::new(Iommu::Intel {
        caching_mode: true,
        interrupt_remapping: true,
    });
    let tasks = vec![
        Task::new("vfio-nvme"),
        Task::with("vfio-nvme", &["plain"]),
        Task::new("vfio-nvme"),
    ];
    let mut boot = Boot::new(machine, tasks);
    boot.media.push(format!(
        "driver=file,node-name=disk,filename={}",
        medium.path().display()
    ));
    boot.devices
        .push("nvme,addr=4.0,serial=none,drive=disk".to_owned());
    boot.modules.push(Module::named("vfio_iommu_type1"));
    boot.modules.push(Module::named("vfio-pci"));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    let verdicts: Vec<_> = outcome.checks.iter().map(|check| check.verdict).collect();
    assert_eq!(verdicts, [Verdict::Passed; 3], "{:#?}", outcome.checks);
    for check in &outcome.checks {
        assert_eq!(check.detail["sectors"], DISK / 512);
    }
    let stray = |text: &str| text.contains("DMAR: [DMA");
    assert!(!outcome.records().any(|record| stray(&record.text)));
}
