//! The computer a device is plugged into.
//!
//! [`Machine`] is memory with named owners, an IOMMU, a fabric (PCI Express with root ports and a
//! switch, or one conventional bus) that can hang, lock up and lose devices, message and pin interrupts, a clock that its user moves, and a ledger that knows which
//! DMA was sanctioned. It is deterministic: the same calls end in the same state.
//!
//! Left out so far: the translation requests and device caches of ATS (only that a request may claim to
//! be translated), and the time that an honest transaction, a DMA, an invalidation or the copying of a
//! bounced buffer takes (none).
//!
//! It trusts its user: the privileged layer of a placement, which decides who may call what. It
//! trusts neither devices nor drivers: every address, length, value and time that comes from them
//! may be hostile, and no such input makes it panic, loop without end or allocate without bound.

#![forbid(unsafe_code)]

mod aer;
mod arbiter;
mod bounce;
mod clock;
pub mod config;
mod fabric;
pub mod frames;
mod interrupts;
mod iommu;
mod ledger;
mod machine;
mod memory;
mod port;
mod recording;
mod reset;
mod root_complex;
mod service;
mod topology;

pub use aer::{ErrorRecord, PortError, Severity};
pub use fabric::{Ending, Read, Write};
pub use interrupts::{Delivery, MESSAGES};
pub use iommu::{
    FaultRecord, HIGH_WINDOW as HIGH_IOVA_WINDOW, Path, Refusal, WINDOW as IOVA_WINDOW,
};
pub use ledger::{LIVE_LIMIT, Ledger, Live, Verdict};
pub use machine::{Counts, Machine, MachineError};
pub use memory::{Memory, NoMemory, PhysAddr};
pub use recording::{BusEvent, KEPT};
pub use reset::ResetProgress;
pub use root_complex::DmaEvent;
pub use service::{CHECKED, InterruptCost, UNHANDLED};
pub use topology::Place;
