//! The guest's side: boots, and what came of each access.

use crate::{Cell, Seen, Stray, Way};
use cofferdam_guest::message::{Task, Verdict};
use cofferdam_guest::{Boot, DmaModule, DmaModuleError, Guest, GuestError, Iommu, Machine, Module};
use cofferdam_machine::config::IommuMode;
use serde_json::Value;
use std::time::Duration;
use thiserror::Error;

/// What the guest saw of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The cell.
    pub cell: Cell,
    /// What was seen.
    pub seen: Seen,
    /// What the guest's kernel logged meanwhile about DMA and interrupts.
    pub evidence: Vec<String>,
    /// `uname -r` of the guest.
    pub kernel: String,
}

/// Why there are no observations. Never a finding.
#[derive(Debug, Error)]
pub enum RealityError {
    /// The guest could not be booted.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The kernel module could not be built.
    #[error(transparent)]
    Module(#[from] DmaModuleError),
    /// The guest did not do what it was asked to.
    #[error("the guest could not commit {cell}: {why}")]
    NotCommitted {
        /// Which cell.
        cell: String,
        /// What it said.
        why: String,
    },
    /// No device could be served to it.
    #[error("cannot serve a device to the guest: {0}")]
    Serve(std::io::Error),
    /// The guest's life ended early.
    #[error("the guest ended early: {0}")]
    Ended(String),
}

/// The type of a group's domain in each mode, as Linux names it.
const fn domain(mode: IommuMode) -> &'static str {
    match mode {
        IommuMode::Off => "off",
        IommuMode::Passthrough => "identity",
        IommuMode::Lazy => "DMA-FQ",
        // An untrusted device's domain is a strict one; no life of the guest has such a device.
        IommuMode::Strict | IommuMode::Bounce => "DMA",
    }
}

/// A life of the guest: its IOMMU, the kernel's own modules it needs, and the cells it commits.
struct Life {
    iommu: Iommu,
    modules: &'static [&'static str],
    cells: Vec<Cell>,
}

/// No IOMMU; one without and one with interrupt remapping; one for VFIO.
fn lives() -> [Life; 4] {
    let all = |iommu: IommuMode, intremap: bool, way: Way| {
        Stray::ALL.map(|fault| Cell {
            fault,
            iommu,
            intremap,
            way,
        })
    };
    let translating = [IommuMode::Passthrough, IommuMode::Lazy, IommuMode::Strict];
    let intel = |caching_mode, interrupt_remapping| Iommu::Intel {
        caching_mode,
        interrupt_remapping,
    };
    let forges = |cell: &Cell| cell.fault == Stray::I4;
    let kernel = |intremap| {
        translating
            .map(|mode| all(mode, intremap, Way::Kernel))
            .concat()
    };
    [
        Life {
            iommu: Iommu::None,
            modules: &[],
            cells: all(IommuMode::Off, false, Way::Kernel).to_vec(),
        },
        // Caching mode would make Linux invalidate strictly whatever it is told.
        Life {
            iommu: intel(false, false),
            modules: &[],
            cells: kernel(false),
        },
        Life {
            iommu: intel(false, true),
            modules: &[],
            cells: kernel(true).into_iter().filter(forges).collect(),
        },
        Life {
            iommu: intel(true, true),
            modules: &["vfio_iommu_type1", "vfio-pci"],
            cells: all(IommuMode::Strict, true, Way::Vfio)
                .into_iter()
                .filter(|cell| !forges(cell))
                .collect(),
        },
    ]
}

/// What a cell may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the guest's agent is asked for a cell.
fn task(cell: &Cell) -> Task {
    let mut task = match (cell.way, cell.fault) {
        (Way::Kernel, fault) => Task::with("edu-dma", &[fault.id(), domain(cell.iommu)]),
        // VFIO's runs overrun a page unless told otherwise.
        (Way::Vfio, Stray::D4Cross) => Task::with("vfio-fault", &["D4"]),
        (Way::Vfio, fault) => Task::with("vfio-fault", &[fault.id()]),
    };
    task.deadline = PATIENCE;
    task
}

/// What the agent saw.
fn seen(cell: &Cell, detail: &Value) -> Result<Seen, String> {
    match cell.way {
        Way::Kernel => {
            serde_json::from_value(detail["seen"].clone()).map_err(|error| error.to_string())
        }
        Way::Vfio => detail["bytes_landed"]
            .as_u64()
            .map(|landed| Seen {
                landed,
                tries: Vec::new(),
            })
            .ok_or_else(|| "no count of bytes".to_owned()),
    }
}

/// Has the guest commit every cell. Its lives run side by side: mostly they wait for edu.
pub fn observe(guest: &Guest) -> Result<Vec<Observation>, RealityError> {
    let module = DmaModule::build(&guest.tools)?;
    let lives = lives();
    let lived: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = lives
            .iter()
            .map(|life| scope.spawn(|| live(guest, &module, life)))
            .collect();
        running.into_iter().map(|life| life.join()).collect()
    });
    let mut observations = Vec::new();
    for life in lived {
        observations.extend(life.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    Ok(observations)
}

/// One life of the guest.
fn live(guest: &Guest, module: &DmaModule, life: &Life) -> Result<Vec<Observation>, RealityError> {
    let tasks = life.cells.iter().map(task).collect();
    let mut boot = Boot::new(Machine::new(life.iommu), tasks);
    boot.devices
        .push("edu,addr=5.0,dma_mask=0xffffffffffffffff".to_owned());
    boot.modules
        .extend(life.modules.iter().map(|name| Module::named(name)));
    boot.modules.push(Module::file(&module.path()));
    boot.deadline = Duration::from_secs(300);
    let outcome = guest.run(&boot)?;
    if outcome.checks.len() < life.cells.len() {
        return Err(RealityError::Ended(outcome.complaint().unwrap_or_default()));
    }
    let mut observations = Vec::new();
    for (cell, check) in life.cells.iter().zip(&outcome.checks) {
        let not_committed = |why: String| RealityError::NotCommitted {
            cell: cell.id(),
            why,
        };
        if check.verdict != Verdict::Passed {
            return Err(not_committed(check.detail.to_string()));
        }
        observations.push(Observation {
            cell: *cell,
            seen: seen(cell, &check.detail).map_err(not_committed)?,
            evidence: check
                .log
                .iter()
                .map(|record| record.text.clone())
                .filter(|text| text.contains("DMAR: [") || text.contains("INTR-REMAP"))
                .take(4)
                .collect(),
            kernel: outcome.release.clone().unwrap_or_default(),
        });
    }
    Ok(observations)
}
