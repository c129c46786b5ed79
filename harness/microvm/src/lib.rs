//! A driver in a KVM guest of its own: the wall is the processor's.
//!
//! - [`Kvm`]: whether this host has it, and whether it is native or emulated;
//! - [`MicroVm`]: a guest with one CPU, its private memory, and windows onto those frames of the machine
//!   that its owner gave it. Nothing else is behind its addresses, so a wild access ends in an exit;
//! - [`VmDriver`]: a driver of the [payload](cofferdam_microvm_abi::Driver) behind the service of its class,
//!   over any host: registers become exits, interrupts are injected, all else is a hypercall.
//!
//! The payload runs at privilege level 3 under tables that the VMM builds; an emulated KVM runs that
//! natively, and level 0 instruction by instruction.
//!
//! Left out: more than one CPU, an interrupt controller (the VMM injects vectors itself), and devices of
//! the guest's own. It trusts KVM and the host it is given; every word from the guest is taken for
//! hostile.

#![expect(
    clippy::cast_possible_truncation,
    reason = "an x86-64 guest's words fit an x86-64 host's sizes"
)]

mod calls;
mod kvm;
mod layout;
mod payload;
mod services;
mod vm;
mod watchdog;

pub use calls::result;
pub use calls::{CallError, VmDriver};
pub use cofferdam_microvm_abi::{Call, Driver, MACHINE, Planted, Service, bell, complaint, tenant};
pub use kvm::{DEVICE, Kvm, Nature, Unavailable};
pub use payload::Payload;
pub use services::{HostWorld, Locate, Nowhere, Silence, World};
pub use vm::{Counts, Death, MicroVm, Snapshot, VmError, Window};
pub use watchdog::Patience;
