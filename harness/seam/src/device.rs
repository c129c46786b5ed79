//! What a device model is.

use crate::{Access, Bar, BusPort, PciIdentity, Time, Width};
use core::time::Duration;

/// How a non-posted request ends. A bus that hangs is a value, not a hang of the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Successful completion; bits above the access width are ignored.
    Data(u64),
    /// No completion will ever come. The fabric decides what the CPU sees, and when.
    Never,
    /// Unsupported request.
    Unsupported,
    /// Completer abort.
    Abort,
    /// Successful completion, late. The model has already done what the read does.
    After {
        /// How late.
        delay: Duration,
        /// As in [`Completion::Data`].
        value: u64,
    },
    /// The target asks to be tried again, as only one on a conventional bus can (PCI Local Bus 3.0,
    /// 3.3.3.2.1). The model has not seen the read.
    Retry {
        /// How often in a row; `u32::MAX`: for ever.
        times: u32,
    },
    /// Data that are marked as bad (PCI Express Base 6.0, 2.7.2).
    Poisoned,
}

/// What kind of reset reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Power-on or hot reset: nothing volatile survives.
    Cold,
    /// Function-level reset (PCI Express Base 6.0, 6.6.2): registers and engines, not media.
    FunctionLevel,
}

/// Units of pending work: requests, descriptors, timer expiries; each model says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u32);

/// What a step left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do until the driver or a timer asks.
    Idle,
    /// The budget ran out first: step again.
    More,
}

/// A device model: registers and engines of one PCI function. Configuration space, MSI-X tables
/// and reset plumbing come from the shared PCI layer around it.
///
/// A model is correct: it never lies on purpose (a tampering layer does that) and never trusts the
/// driver. No input may make it panic, loop without end or allocate without bound.
pub trait Device: Send {
    /// Its identity; constant over its life.
    fn describe(&self) -> &PciIdentity;

    /// Answers a read of configuration space in place of the PCI layer, whose bytes are `space`;
    /// `None` leaves it to that layer, as every correct model does.
    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        let _ = (at, width, space, now);
        None
    }

    /// A non-posted read of a register.
    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion;

    /// A posted write to a register. `value` has no bits above the width.
    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>);

    /// Does at most `budget` units of pending work. Called when a `wake_at` time is reached.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress;

    /// Back to the state after reset. In-flight work is dropped and no DMA follows.
    fn reset(&mut self, kind: Reset);

    /// Its page of doorbells, if it has one that may be memory: see [`Doorbells`].
    fn doorbells(&self) -> Option<Doorbells> {
        None
    }
}

/// A page with nothing but doorbells: registers of 32 bits that are written and never read, of which
/// the last value counts, and which mean nothing while what they belong to does not exist. So whoever
/// looks at them often enough need not hear of each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbells {
    /// The BAR.
    pub bar: Bar,
    /// Bytes from its start to the page of 4 KiB.
    pub page: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// Those that mean something now, by their number; there are at most 64.
    pub live: u64,
}
