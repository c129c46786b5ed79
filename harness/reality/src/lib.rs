//! The model held against reality: the same stray accesses by the same device, once in a Linux guest
//! behind QEMU's IOMMU and once on our machine.
//!
//! Each [`Cell`] is a fault in an IOMMU mode. [`guest`] has the guest commit it (QEMU's edu, the
//! kernel's own DMA mappings, `edu_dma.rs` of the guest's agent); [`model`] commits it on
//! `cofferdam_machine` with our model of edu, register by register the same. Where the two disagree
//! a cell carries the reason, or it is a defect of the model.
//!
//! And the faults that only a driver can meet: [`liars`] serves controllers that lie to the guest's own
//! driver of NVMe, and [`linux`] says what became of it, by the guest's own words. There is no model of
//! that driver; what our placements did with the same faults stands beside it in the report.
//!
//! Left out: whatever edu cannot do (ATS, peer-to-peer requests), and forged messages in the format
//! of remapped interrupts: QEMU's edu carries no requester ID there, so nothing could be validated.
//!
//! It trusts the guest's words about its own memory and its own programs, and nothing else of it.

#![forbid(unsafe_code)]

pub mod guest;
pub mod liars;
pub mod linux;
pub mod model;

use cofferdam_experiment::record::Record;
use cofferdam_machine::config::IommuMode;
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};

/// A stray access that edu can commit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Stray {
    /// To an address that nobody mapped.
    D1,
    /// 63 bytes beyond a mapped buffer, on its page.
    #[serde(rename = "D4.in-page")]
    D4InPage,
    /// 63 bytes beyond a mapped buffer, on the next page.
    #[serde(rename = "D4.cross")]
    D4Cross,
    /// To a page that was taken away between two transfers.
    D6,
    /// To what is mapped for reading.
    D8,
    /// An interrupt message that is none of the device's.
    I4,
}

impl Stray {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::D1,
        Self::D4InPage,
        Self::D4Cross,
        Self::D6,
        Self::D8,
        Self::I4,
    ];

    /// Its name, in records and in the guest.
    pub const fn id(self) -> &'static str {
        match self {
            Self::D1 => "D1",
            Self::D4InPage => "D4.in-page",
            Self::D4Cross => "D4.cross",
            Self::D6 => "D6",
            Self::D8 => "D8",
            Self::I4 => "I4",
        }
    }
}

/// Who mapped memory for the device in the guest. The model has one kind of mapping.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The kernel's DMA API (D1: nobody).
    Kernel,
    /// VFIO, for a driver in a process; always strict.
    Vfio,
}

/// A fault in a mode.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct Cell {
    /// The access.
    pub fault: Stray,
    /// The IOMMU mode.
    pub iommu: IommuMode,
    /// Whether interrupts are remapped.
    pub intremap: bool,
    /// Who mapped.
    pub way: Way,
}

impl Cell {
    /// Its name: `D6/lazy`.
    pub fn id(&self) -> String {
        let mode = match self.iommu {
            IommuMode::Off => "off",
            IommuMode::Passthrough => "passthrough",
            IommuMode::Lazy => "lazy",
            IommuMode::Strict => "strict",
            IommuMode::Bounce => "bounce",
        };
        let by = match self.way {
            Way::Kernel => "",
            Way::Vfio => "/vfio",
        };
        match (self.fault, self.intremap) {
            (Stray::I4, true) => format!("I4.remapped/{mode}{by}"),
            (fault, _) => format!("{}/{mode}{by}", fault.id()),
        }
    }
}

/// What was seen of one access: bytes that changed, or interrupts that were raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// Bytes that changed where they should not, or forged interrupts.
    pub landed: u64,
    /// D6: each transfer that came so long after the unmapping, ns, and the bytes that it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Try>,
}

/// One transfer after an unmapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Try {
    /// How long after, ns.
    pub after_ns: u64,
    /// Bytes that changed.
    pub landed: u64,
}

impl Seen {
    /// The latest transfer after an unmapping that still landed, ns.
    pub fn window_ns(&self) -> Option<u64> {
        self.tries
            .iter()
            .filter(|one| one.landed > 0)
            .map(|one| one.after_ns)
            .max()
    }
}

/// A cell, seen in both worlds. A line of `trials.jsonl` with the mechanism `linux-guest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Version of this form: that of the process records beside it.
    pub schema: u32,
    /// Always `linux-guest`.
    pub mechanism: String,
    /// The cell's name.
    pub cell: String,
    /// The cell.
    #[serde(flatten)]
    pub of: Cell,
    /// What the guest saw.
    pub reality: Seen,
    /// What the model shows.
    pub model: Seen,
    /// Whether both landed or neither did.
    pub agrees: bool,
    /// Why they need not agree, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<String>,
    /// What the guest's kernel said about it.
    pub evidence: Vec<String>,
    /// The guest's kernel.
    pub kernel: String,
}

impl Comparison {
    /// Whether the two worlds agree, or the reason why not is known.
    pub fn holds(&self) -> bool {
        self.agrees || self.explained.is_some()
    }
}

/// Why reality differs from the model in a cell, where that is known and not the model's fault.
fn explanation(cell: Cell, reality: &Seen, model: &Seen) -> Option<&'static str> {
    match cell.fault {
        Stray::I4 if cell.intremap && reality.landed > model.landed => Some(
            "QEMU passes messages of the compatibility format on while it remaps interrupts \
             (vtd_interrupt_remap_msi, hw/i386/intel_iommu.c); hardware blocks them unless the \
             kernel allows them, which Linux does not (VT-d 4.0, 5.1.4)",
        ),
        _ => None,
    }
}

/// Holds what the guest saw against the model.
pub fn compare(observation: &guest::Observation) -> Comparison {
    let model = model::commit(observation.cell);
    let reality = observation.seen.clone();
    let agrees = (reality.landed > 0) == (model.landed > 0);
    let explained = explanation(observation.cell, &reality, &model).filter(|_| !agrees);
    Comparison {
        schema: 1,
        mechanism: "linux-guest".into(),
        cell: observation.cell.id(),
        of: observation.cell,
        reality,
        model,
        agrees,
        explained: explained.map(str::to_owned),
        evidence: observation.evidence.clone(),
        kernel: observation.kernel.clone(),
    }
}

/// A line of `trials.jsonl` with the mechanism `linux-guest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Line {
    /// The model held against the guest.
    Comparison(Box<Comparison>),
    /// Linux's own driver and a lying controller.
    Trial(Box<linux::Trial>),
}

/// Any line of `trials.jsonl`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "its form alone is asked for")]
enum Any {
    /// A trial of our placements.
    Record(Box<Record>),
    /// What a Linux guest did.
    Guest(Line),
}

/// The form of a line of `trials.jsonl`, as JSON Schema (draft 2020-12), for programs that read it.
pub fn trials_schema() -> Schema {
    schema_for!(Any)
}

/// What a Linux guest did, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reality {
    /// The model held against it.
    pub comparisons: Vec<Comparison>,
    /// Its own driver and lying controllers.
    pub trials: Vec<linux::Trial>,
}

impl Reality {
    /// Whether no guest was asked.
    pub fn is_empty(&self) -> bool {
        self.comparisons.is_empty() && self.trials.is_empty()
    }

    /// Its lines, as they are written.
    pub fn lines(self) -> impl Iterator<Item = Line> {
        let comparisons = self.comparisons.into_iter();
        let trials = self.trials.into_iter();
        comparisons
            .map(|one| Line::Comparison(Box::new(one)))
            .chain(trials.map(|one| Line::Trial(Box::new(one))))
    }
}

impl FromIterator<Line> for Reality {
    fn from_iter<I: IntoIterator<Item = Line>>(lines: I) -> Self {
        let mut all = Self::default();
        for line in lines {
            match line {
                Line::Comparison(one) => all.comparisons.push(*one),
                Line::Trial(one) => all.trials.push(*one),
            }
        }
        all
    }
}
