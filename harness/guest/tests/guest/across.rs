//! One program on our models and on QEMU's devices, through the guest's VFIO.

use cofferdam_guest::message::Task;
use cofferdam_guest::{Boot, Guest, Iommu, Machine, Module};

const EDU: &str =
    "cofferdam program 1\ntarget edu\nmode model\ncall factorial 7\ncall round-trip 100\n";
const NVME: &str =
    "cofferdam program 1\ntarget nvme\nmode model\ncall write 3 4\ncall read 2 6\ncall capacity\n";

#[test]
fn driver_does_the_same_to_a_real_device_as_to_its_model_or_the_first_difference_is_told() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let machine = Machine::new(Iommu::Intel {
        caching_mode: true,
        interrupt_remapping: true,
    });
    let tasks = vec![
        Task::with("across", &[EDU, "0000:00:05.0"]),
        Task::with("across", &[NVME, "0000:00:04.0"]),
    ];
    let mut boot = Boot::new(machine, tasks);
    boot.devices
        .push("edu,addr=5.0,dma_mask=0xffffffffffffffff".to_owned());
    boot.media
        .push("driver=null-co,node-name=null,size=1048576,read-zeroes=on".to_owned());
    boot.devices
        .push("nvme,addr=4.0,serial=none,drive=null".to_owned());
    boot.modules.push(Module::named("vfio_iommu_type1"));
    boot.modules.push(Module::named("vfio-pci"));

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    let [edu, nvme] = [0, 1].map(|place: usize| &outcome.checks[place].detail);
    assert!(edu["difference"].is_null(), "{edu:#}");
    assert!(edu["accesses"].as_u64() > Some(10), "{edu:#}");
    assert_eq!(edu["calls"][1], "factorial: 5040");
    // The model is no copy of QEMU's controller: its revision is the first thing that the driver reads.
    let difference = nvme["difference"].as_str().expect("a difference");
    let first = "access 1: read 32 bits of configuration at 0x8 = ";
    assert!(difference.starts_with(first), "{nvme:#}");
    assert_eq!(nvme["calls"][4], "removal: done");
}
