//! The table of checks, and what a check is.
//!
//! A check is a function in a file of its own below `checks/` and one line in [`TABLE`]. It runs as
//! root in a process of its own, in a guest that has `/proc`, `/sys`, `/dev` and nothing else; it
//! may be killed at any moment by its deadline. What it prints to standard error is on the guest's
//! console; standard output is the agent's.

mod across;
mod disk;
mod dma_module;
mod edu_dma;
mod iommu_groups;
mod iops;
mod kernel;
mod liar;
mod nvme;
mod plug;
mod reset;
mod vfio;

use cofferdam_guest::message::Verdict;
use serde_json::{Value, json};
use std::any::Any;
use std::process::ExitCode;

/// A check by name.
pub struct Entry {
    /// How a job asks for it.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// The check; its arguments are the job's.
    pub run: fn(&[String]) -> Result<Value, NotPassed>,
}

/// All checks.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "kernel",
        shows: "the kernel's name, release and command line",
        run: kernel::run,
    },
    Entry {
        name: "iommu-groups",
        shows: "every PCI function is in an IOMMU group; says which, and of what type",
        run: iommu_groups::run,
    },
    Entry {
        name: "across",
        shows: "the first access in which a driver differs between a device, through VFIO, and its model; \
                arguments: a fuzzer's program, the device's PCI address",
        run: across::tells_the_difference,
    },
    Entry {
        name: "disk",
        shows: "a file system on a disk is found again as it was left; arguments: the disk or its NVMe \
                controller's PCI address, MiB",
        run: disk::keeps_a_file_system,
    },
    Entry {
        name: "gone",
        shows: "a function and its disks were taken out; argument: its PCI address",
        run: plug::is_gone,
    },
    Entry {
        name: "reset-under-load",
        shows: "a disk of NVMe goes on and keeps its data while its controller is reset; arguments: its \
                PCI address, how often in each way",
        run: reset::goes_on,
    },
    Entry {
        name: "lying-disk",
        shows: "what becomes of requests to an NVMe disk that lies; arguments: its PCI address, those \
                of disks that do not",
        run: liar::meets_a_liar,
    },
    Entry {
        name: "iops",
        shows: "requests of 4 KiB a second of NVMe disks, in order and at random; arguments: their PCI \
                addresses",
        run: iops::run,
    },
    Entry {
        name: "dma-module",
        shows: "the kernel maps memory for edu the ordinary way; argument: the group's domain type",
        run: dma_module::run,
    },
    Entry {
        name: "edu-dma",
        shows: "what becomes of DMA that goes astray; arguments: the fault, the group's domain type",
        run: edu_dma::run,
    },
    Entry {
        name: "vfio-conformance",
        shows: "our driver passes its suite on QEMU's edu; `plain`: by system calls and INTx; \
                `cdev`: by the device's own node and iommufd",
        run: vfio::conforms,
    },
    Entry {
        name: "vfio-nvme",
        shows: "our driver passes its suite on QEMU's NVMe controller; `plain`: by system calls and \
                INTx",
        run: nvme::conforms,
    },
    Entry {
        name: "vfio-fault",
        shows: "what the IOMMU makes of a buggy driver: D1, D4, D4.in-page, D6, D8, D12; `cdev`: \
                by the device's own node and iommufd",
        run: vfio::fault,
    },
    Entry {
        name: "vfio-handover",
        shows: "an idle NVMe controller is taken from the kernel's driver, reset, and given back",
        run: vfio::takes_from_a_driver,
    },
    Entry {
        name: "vfio-refusals",
        shows: "devices that are somebody's are not taken",
        run: vfio::refuses,
    },
    Entry {
        name: "vfio-release",
        shows: "a device is given back after its holder died",
        run: vfio::released_after_a_crash,
    },
];

/// Why a check did not pass.
#[derive(Debug)]
pub enum NotPassed {
    /// What was expected is not so.
    Failed(Value),
    /// It cannot be looked for here, and why.
    Skipped(String),
}

/// Any error is a failure, so that checks can use `?`.
impl<E: std::error::Error> From<E> for NotPassed {
    fn from(error: E) -> Self {
        Self::Failed(json!({ "error": error.to_string() }))
    }
}

/// Runs one check and prints its verdict as the last line on standard output.
pub fn run(name: &str, arguments: &[String]) -> ExitCode {
    let Some(check) = TABLE.iter().find(|check| check.name == name) else {
        eprintln!("there is no check `{name}`");
        return ExitCode::from(2);
    };
    let ended = std::panic::catch_unwind(|| (check.run)(arguments));
    let (verdict, detail) = match ended {
        Ok(Ok(detail)) => (Verdict::Passed, detail),
        Ok(Err(NotPassed::Failed(detail))) => (Verdict::Failed, detail),
        Ok(Err(NotPassed::Skipped(why))) => (Verdict::Skipped, json!({ "reason": why })),
        Err(payload) => (
            Verdict::Failed,
            json!({ "panic": panic_text(payload.as_ref()) }),
        ),
    };
    println!("{}", json!({ "verdict": verdict, "detail": detail }));
    ExitCode::SUCCESS
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is not text".to_owned())
}
