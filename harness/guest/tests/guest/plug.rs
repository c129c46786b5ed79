//! Served devices that are plugged into a running guest, and taken out again.

use crate::served::{Served, disk, nvme, with_files};
use cofferdam_guest::message::{Task, Verdict};
use cofferdam_guest::{Answer, Boot, Ending, Guest, Iommu, Machine, Order};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use vdevice_server::Options;

/// Where what is plugged into the root port is found.
const ADDRESS: &str = "0000:01:00.0";

/// A machine with a root port that can be plugged into.
fn with_port(tasks: Vec<Task>) -> Boot {
    let mut boot = with_files(Machine::new(Iommu::None), tasks);
    let port = "pcie-root-port,id=root1,chassis=1,slot=1,addr=4.0";
    boot.devices.push(port.to_owned());
    boot.deadline = Duration::from_secs(240);
    boot
}

fn served_at(path: &Path) -> Value {
    json!({
        "driver": "vfio-user-pci", "id": "served", "bus": "root1", "rombar": 0,
        "socket": { "type": "unix", "path": path },
    })
}

/// Used, taken out, plugged in and used again, twice.
fn comings_and_goings(path: &Path) -> Boot {
    let uses = || [disk(ADDRESS), Task::with("gone", &[ADDRESS])];
    let mut boot = with_port([uses(), uses()].concat());
    boot.orders = vec![
        Order::plug(0, served_at(path)),
        Order::unplug(1, "served"),
        Order::plug(2, served_at(path)),
        Order::unplug(3, "served"),
    ];
    boot
}

#[test]
fn served_disk_comes_and_goes_and_its_server_is_told_and_serves_the_next_one() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut served = Served::new();
    let options = Options {
        pin_only: true,
        ..Options::default()
    };
    let path = served.serve(nvme(0), options);

    let outcome = guest.run(&comings_and_goings(&path)).expect("a life");

    assert_eq!(outcome.complaint(), None, "{:?}", outcome.answers);
    let done = |answer: &Answer| *answer == Answer::Done(json!({}));
    assert!(outcome.answers.iter().all(done), "{:?}", outcome.answers);
    assert_eq!(served.ended(), ["the peer closed the connection"; 2]);
}

/// QEMU 11.1 ends with an assertion when a device with MSI-X has been taken out: it removes the region of
/// its pending bits (`vfio_user_msix_teardown`) from one that has been removed already.
#[test]
fn server_outlives_qemu_which_a_device_with_msix_that_is_taken_out_ends() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut served = Served::new();
    let path = served.serve(nvme(0), Options::default());
    let boot = comings_and_goings(&path);
    let mut next = with_port(vec![disk(ADDRESS)]);
    next.orders = vec![Order::plug(0, served_at(&path))];

    let first = guest.run(&boot).expect("a life");
    let second = guest.run(&next).expect("a life");

    match &first.ending {
        Ending::Died(why) => {
            assert!(why.contains("memory_region_del_subregion"), "{why}");
            let used = first.checks.first().expect("it was plugged in");
            assert_eq!(used.verdict, Verdict::Passed, "{used:?}");
            assert!(
                matches!(first.answers[1], Answer::Silent(_)),
                "{:?}",
                first.answers
            );
        }
        _ => {
            println!("this QEMU takes out devices with MSI-X");
            assert_eq!(first.complaint(), None);
        }
    }
    assert_eq!(second.complaint(), None);
    assert!(!served.ended().is_empty(), "the server is told");
}
