//! The guest's side: boots, and what came of each access.

use crate::{Cell, Seen, Stray};
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
        IommuMode::Strict => "DMA",
    }
}

/// The cells of each boot: no IOMMU; one without and one with interrupt remapping.
fn boots() -> [(Iommu, Vec<Cell>); 3] {
    let all = |mode: IommuMode, intremap: bool| {
        Stray::ALL.map(|fault| Cell {
            fault,
            iommu: mode,
            intremap,
        })
    };
    let translating = [IommuMode::Passthrough, IommuMode::Lazy, IommuMode::Strict];
    // Caching mode would make Linux invalidate strictly whatever it is told.
    let intel = |interrupt_remapping| Iommu::Intel {
        caching_mode: false,
        interrupt_remapping,
    };
    let forged = |cell: &Cell| cell.fault == Stray::I4;
    let unremapped = translating.iter().flat_map(|mode| all(*mode, false));
    let remapped = translating.iter().flat_map(|mode| all(*mode, true));
    [
        (Iommu::None, all(IommuMode::Off, false).to_vec()),
        (intel(false), unremapped.collect()),
        (intel(true), remapped.filter(forged).collect()),
    ]
}

/// Has the guest commit every cell: three boots.
pub fn observe(guest: &Guest) -> Result<Vec<Observation>, RealityError> {
    let module = DmaModule::build(&guest.tools)?;
    let mut observations = Vec::new();
    for (iommu, cells) in boots() {
        let tasks = cells
            .iter()
            .map(|cell| Task::with("edu-dma", &[cell.fault.id(), domain(cell.iommu)]));
        let mut boot = Boot::new(Machine::new(iommu), tasks.collect());
        boot.devices
            .push("edu,addr=5.0,dma_mask=0xffffffffffffffff".to_owned());
        boot.modules.push(Module::file(&module.path()));
        boot.deadline = Duration::from_secs(180);
        let outcome = guest.run(&boot)?;
        if let Some(complaint) = outcome
            .complaint()
            .filter(|_| outcome.checks.len() < cells.len())
        {
            return Err(RealityError::Ended(complaint));
        }
        for (cell, check) in cells.iter().zip(&outcome.checks) {
            let not_committed = |why: String| RealityError::NotCommitted {
                cell: cell.id(),
                why,
            };
            if check.verdict != Verdict::Passed {
                return Err(not_committed(check.detail.to_string()));
            }
            let seen: Value = check.detail["seen"].clone();
            observations.push(Observation {
                cell: *cell,
                seen: serde_json::from_value(seen)
                    .map_err(|error| not_committed(error.to_string()))?,
                evidence: check
                    .log
                    .iter()
                    .map(|record| record.text.clone())
                    .filter(|text| text.contains("DMAR") || text.contains("INTR-REMAP"))
                    .take(4)
                    .collect(),
                kernel: outcome.release.clone().unwrap_or_default(),
            });
        }
    }
    Ok(observations)
}
