//! Served controllers that are reset while Linux uses them.

use crate::served::{Served, nvme};
use cofferdam_guest::message::Task;
use cofferdam_guest::{Boot, Guest, Iommu, Machine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vdevice_server::Options;

/// Resets of each of two ways.
const TIMES: u64 = 4;

/// Whether a line of a server's trace tells of a write of Initiate FLR, the uppermost bit of Device Control in
/// the PCI Express capability, which is the controller's first.
fn is_flr(line: &str) -> bool {
    let bytes = line.strip_prefix("write 7 0x48 2 = [");
    let high = bytes.and_then(|bytes| bytes.get(4..6));
    high.is_some_and(|high| u8::from_str_radix(high, 16).is_ok_and(|high| high & 0x80 != 0))
}

#[test]
fn linux_goes_on_with_a_served_disk_that_is_reset_under_load() {
    let Some(guest) = Guest::or_skip() else {
        return;
    };
    let mut served = Served::new();
    let mut boot = Boot::new(Machine::new(Iommu::None), Vec::new());
    boot.deadline = Duration::from_secs(300);
    let mut flrs = Vec::new();
    for (number, map_doorbells) in [false, true].into_iter().enumerate() {
        let counted = Arc::new(AtomicU64::new(0));
        flrs.push(Arc::clone(&counted));
        let options = Options {
            map_doorbells,
            trace: Some(Box::new(move |line| {
                let flr = is_flr(&line.to_string());
                counted.fetch_add(flr.into(), Ordering::Relaxed);
            })),
            ..Options::default()
        };
        boot.devices.push(served.add(nvme(number), options));
        let address = format!("0000:00:{:02x}.0", 4 + number);
        let mut task = Task::with("reset-under-load", &[&address, &TIMES.to_string()]);
        task.deadline = Duration::from_secs(120);
        boot.tasks.push(task);
    }

    let outcome = guest.run(&boot).expect("a life");

    assert_eq!(outcome.complaint(), None);
    for (check, flrs) in outcome.checks.iter().zip(&flrs) {
        println!("{}", check.detail);
        assert_eq!(check.detail["resets"], 2 * TIMES);
        assert_eq!(flrs.load(Ordering::Relaxed), TIMES);
        // What a reset ended Linux asks for again, and nothing that was told to be done is lost.
        assert_eq!(check.detail["errors"], 0);
        assert_eq!(check.detail["mismatches"], 0);
    }
    // A request or an interrupt that was lost would be missed by the driver.
    let late = |text: &str| text.contains("timeout");
    assert!(!outcome.records().any(|record| late(&record.text)));
}
