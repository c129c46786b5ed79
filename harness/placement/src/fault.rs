//! Faults: what goes wrong in a trial, as data.
//!
//! The device's lies are told by `Tamper`, the driver's mistakes made by `Sabotage`; neither a model
//! nor a driver has a line of either.

use crate::own::{Attack, Own};
use cofferdam_machine::frames::Owner;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which layer commits the fault.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// `Tamper`: the device lies.
    Device,
    /// `Sabotage`: the driver is buggy.
    Driver,
}

/// What a wild access aims at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The hypervisor's frames.
    Hypervisor,
    /// The kernel's frames.
    Kernel,
    /// Frames of the driver's own domain that it did not map.
    Driver,
    /// The first tenant's frames.
    Tenant1,
    /// The second tenant's frames.
    Tenant2,
    /// Nobody's frames.
    Free,
    /// The bytes beside a buffer, on the same mapped page.
    Neighbour,
    /// Addresses no memory answers.
    Unbacked,
}

impl Target {
    /// Every class, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Hypervisor,
        Self::Kernel,
        Self::Driver,
        Self::Tenant1,
        Self::Tenant2,
        Self::Free,
        Self::Neighbour,
        Self::Unbacked,
    ];

    /// The owner whose pattern frames it aims at.
    pub const fn owner(self) -> Option<Owner> {
        match self {
            Self::Hypervisor => Some(Owner::Hypervisor),
            Self::Kernel => Some(Owner::Kernel),
            Self::Driver => Some(Owner::Driver),
            Self::Tenant1 => Some(Owner::Tenant1),
            Self::Tenant2 => Some(Owner::Tenant2),
            Self::Free => Some(Owner::Free),
            Self::Neighbour | Self::Unbacked => None,
        }
    }
}

/// How two functions are joined.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Behind one switch, or on one conventional bus.
    Near,
    /// Behind another root port.
    Far,
}

/// What stands still when a device locks its bus (PCI Local Bus 2.2, appendix F).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Lock {
    /// The locked target answers its owner only.
    Resource,
    /// Nobody but the owner uses the bus.
    Bus,
}

/// A fault with its parameters. `nth` counts from 1: the access, DMA, mapping or request of the
/// running workload at which it strikes, after the driver's start. A case of the experiment leaves
/// `nth` and `len` open: 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(tag = "id")]
pub enum Fault {
    /// No fault: the paired clean trial.
    #[serde(rename = "none")]
    None,
    /// Wild DMA write.
    D1 {
        /// Who commits it.
        by: By,
        /// What it aims at.
        target: Target,
        /// Bytes written.
        len: u32,
        /// Which DMA (device) or mapping (driver).
        nth: u32,
    },
    /// One bit of an address is flipped on its way into a descriptor.
    D2 {
        /// Which bit, 0 to 63.
        bit: u8,
        /// Which mapping.
        nth: u32,
    },
    /// An address loses its upper 32 bits. The driver's DMA memory lies above 4 GiB in such a trial.
    D3 {
        /// Which mapping.
        nth: u32,
    },
    /// A DMA write that is too long.
    D4 {
        /// Who commits it: a device that writes on, or a driver that gives an address too far in.
        by: By,
        /// Bytes beyond the end of the buffer.
        extra: u32,
        /// Which DMA write (device) or mapping (driver).
        nth: u32,
    },
    /// The device touches what lies on a buffer's page beside it.
    D5 {
        /// Whether it writes; else it reads, and may learn something.
        write: bool,
        /// Bytes between the end of the buffer and the access.
        offset: u32,
        /// After which DMA in the same direction: a page that is only written cannot be read.
        nth: u32,
    },
    /// DMA to an address after it was unmapped.
    D6 {
        /// Who commits it: a device that writes late, or a driver that unmaps early.
        by: By,
        /// How long after the honest write the device writes again, in microseconds.
        delay_us: u32,
        /// Which DMA (device) or mapping (driver).
        nth: u32,
    },
    /// An I/O virtual address is given to another buffer while the device still uses it.
    D7 {
        /// Which mapping.
        nth: u32,
    },
    /// A DMA write through a mapping that is for reading.
    D8 {
        /// After which DMA read.
        nth: u32,
    },
    /// A write to the registers of a tenant's device, from device to device.
    D9 {
        /// How the two are joined.
        route: Route,
        /// After which DMA write.
        nth: u32,
    },
    /// A write that claims its address is translated already (ATS).
    D10 {
        /// Whether the platform enabled ATS for the device.
        trusted: bool,
        /// What it aims at.
        target: Target,
        /// After which DMA write.
        nth: u32,
    },
    /// A write to a region that firmware had identity-mapped for the device (RMRR).
    D11 {
        /// After which DMA write.
        nth: u32,
    },
    /// DMA of a device whose driver is gone.
    D12 {
        /// Whether the driver died; else it only reset its device.
        death: bool,
        /// How long after its next driver first touches it, in microseconds.
        delay_us: u32,
        /// Whether the next driver stays off the pages of the last.
        quarantine: bool,
        /// Before which request the driver fails.
        nth: u32,
    },
    /// A write under the requester ID of a tenant's device. With ACS ports look who sends (source
    /// validation).
    D13 {
        /// After which DMA write.
        nth: u32,
    },
    /// DMA to a page that a tenant gave back, after a freshly started one filled it. The page was lent
    /// for requests, so data go by zero-copy in such a trial.
    D14 {
        /// How long after it was filled, in microseconds.
        delay_us: u32,
        /// From which request of the first tenant: the page of the next one that brings data is given
        /// back.
        nth: u32,
    },
    /// A register read that never completes.
    B1 {
        /// Which read.
        nth: u32,
    },
    /// A register read that completes late.
    B2 {
        /// How late: thousandths of the completion timeout.
        permille: u32,
        /// Which read.
        nth: u32,
    },
    /// Register reads that end in a retry.
    B3 {
        /// How often, before the read completes.
        count: u32,
        /// From which read.
        nth: u32,
    },
    /// A bus master that keeps its grant.
    B4 {
        /// For how many clocks of the bus (33 MHz).
        clocks: u32,
        /// After which DMA.
        nth: u32,
    },
    /// LOCK# asserted and not released.
    B5 {
        /// What it locks.
        lock: Lock,
        /// For how long, in milliseconds.
        ms: u32,
        /// After which DMA.
        nth: u32,
    },
    /// Flow-control credits are not given back.
    B6 {
        /// Those of posted requests; else of non-posted ones.
        posted: bool,
        /// For how long, in milliseconds.
        ms: u32,
        /// After which DMA.
        nth: u32,
    },
    /// The link goes down.
    B7 {
        /// For how long, in milliseconds; 0: for good, the device is gone.
        ms: u32,
        /// After which DMA.
        nth: u32,
    },
    /// A storm of split locks by the driver's CPU: locked increments across two cache lines.
    B8 {
        /// Within one line instead: the control of a measurement, no fault and in no plan.
        aligned: bool,
        /// Increments a second, at most.
        per_second: u32,
        /// For how long, in milliseconds.
        ms: u32,
        /// Before which request of tenant 2, which is on another core.
        nth: u32,
    },
    /// Register reads that return all ones.
    B9 {
        /// From which read.
        nth: u32,
        /// For how long, in microseconds.
        window_us: u32,
    },
    /// A completion that carries an error.
    B10 {
        /// Poisoned data; else a completer abort.
        poisoned: bool,
        /// Whether the platform makes that error fatal.
        fatal: bool,
        /// Which read.
        nth: u32,
    },
    /// An interrupt storm.
    I1 {
        /// Interrupts a second.
        per_second: u32,
        /// For how long, in milliseconds.
        ms: u32,
        /// After which DMA write.
        nth: u32,
    },
    /// Interrupts are lost.
    I2 {
        /// How many in a row.
        burst: u32,
        /// The first of them.
        nth: u32,
    },
    /// The INTx line is stuck. In such a trial the platform has no message interrupts.
    I3 {
        /// After which DMA write.
        nth: u32,
    },
    /// A forged interrupt message, with the vector of another device.
    I4 {
        /// After which DMA write.
        nth: u32,
    },
    /// An interrupt after the driver disabled them.
    I5 {
        /// How long after, in microseconds.
        delay_us: u32,
        /// Before which request the driver resets its device.
        nth: u32,
    },
    /// The device decodes other addresses than its BAR was given.
    C1 {
        /// Those of a tenant's device on the same bus; else nobody's.
        overlap: bool,
        /// From which register read.
        nth: u32,
    },
    /// The bus-master enable bit goes off.
    C2 {
        /// Who switches it off.
        by: By,
        /// For how long, in milliseconds; 0, and by a driver: until the next reset.
        ms: u32,
        /// After which DMA (device) or before which request (driver).
        nth: u32,
    },
    /// The capability list runs in a circle when the driver starts.
    C3 {
        /// Capabilities in the circle.
        length: u8,
    },
    /// The MSI-X table is corrupted: the same double word of every entry.
    C4 {
        /// Who corrupts it.
        by: By,
        /// Which double word: 0 and 1 address, 2 data, 3 control.
        field: u8,
        /// After which DMA write (device) or before which request (driver).
        nth: u32,
    },
    /// The driver fails, and the function-level reset that follows does not do its work.
    C5 {
        /// Whether nothing is reset at all; else it only takes long.
        ignored: bool,
        /// How long it takes, in milliseconds.
        ms: u32,
        /// Before which request the driver fails.
        nth: u32,
    },
    /// A completion that names no request.
    R1 {
        /// Which completion.
        nth: u32,
        /// The index it names.
        value: u32,
    },
    /// A completion comes twice.
    R2 {
        /// Which completion.
        nth: u32,
    },
    /// What was completed changes after it was published.
    R3 {
        /// How long after, in nanoseconds.
        delay_ns: u32,
        /// Which completion.
        nth: u32,
    },
    /// What publishes a completion is wrong: a phase bit, an index.
    R4 {
        /// Which completion.
        nth: u32,
    },
    /// A chain of descriptors runs in a circle.
    R5 {
        /// Who closes it.
        by: By,
        /// Descriptors in the circle.
        length: u8,
        /// After which descriptor the device reads (device), before which mapping (driver).
        nth: u32,
    },
    /// A doorbell is rung before its descriptor is written.
    R6 {
        /// By how many descriptors too early, where doorbells count.
        depth: u32,
        /// Before which mapping.
        nth: u32,
    },
    /// Wild store by the driver's CPU.
    M1 {
        /// What it aims at.
        target: Target,
        /// Bytes stored.
        len: u32,
        /// Before which request.
        nth: u32,
    },
    /// The driver crashes.
    X1 {
        /// Before which request.
        nth: u32,
    },
    /// The driver spins.
    X2 {
        /// Without yielding, instead of politely.
        raw: bool,
        /// For how long, in milliseconds of device time, when polite.
        ms: u32,
        /// Before which request.
        nth: u32,
    },
    /// The driver waits for ever with a ring held.
    X3 {
        /// At which request.
        nth: u32,
    },
    /// The driver leaks mappings, until it gets no more.
    X4 {
        /// How many it makes for each one it needs and does not take back.
        pins: u32,
        /// From which mapping.
        nth: u32,
    },
    /// The driver crashes, and again while it recovers.
    X5 {
        /// At which of its steps to start: 0 before it touches the device, 1 before it serves.
        step: u8,
        /// How often.
        repeats: u32,
        /// Before which request it crashes first.
        nth: u32,
    },
    /// The driver's domain is killed in the middle of a message.
    X6 {
        /// After how many bytes of the answer's data.
        byte: u32,
        /// Which answer.
        nth: u32,
    },
    /// A user's.
    #[serde(rename = "own")]
    Own {
        /// Which, and which case of it.
        case: Own<Attack>,
        /// The access at which it strikes.
        nth: u32,
    },
}

impl Fault {
    /// Whether the driver dies or is reset on the way to the fault, so that not even a trial in which it
    /// does not act is a clean one.
    pub const fn is_led_up_to(&self) -> bool {
        matches!(self, Self::D12 { .. })
    }

    /// The catalogue's identifier: `D1`, or `none`.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::D1 { .. } => "D1",
            Self::D2 { .. } => "D2",
            Self::D3 { .. } => "D3",
            Self::D4 { .. } => "D4",
            Self::D5 { .. } => "D5",
            Self::D6 { .. } => "D6",
            Self::D7 { .. } => "D7",
            Self::D8 { .. } => "D8",
            Self::D9 { .. } => "D9",
            Self::D10 { .. } => "D10",
            Self::D11 { .. } => "D11",
            Self::D12 { .. } => "D12",
            Self::D13 { .. } => "D13",
            Self::D14 { .. } => "D14",
            Self::B1 { .. } => "B1",
            Self::B2 { .. } => "B2",
            Self::B3 { .. } => "B3",
            Self::B4 { .. } => "B4",
            Self::B5 { .. } => "B5",
            Self::B6 { .. } => "B6",
            Self::B7 { .. } => "B7",
            Self::B8 { .. } => "B8",
            Self::B9 { .. } => "B9",
            Self::B10 { .. } => "B10",
            Self::I1 { .. } => "I1",
            Self::I2 { .. } => "I2",
            Self::I3 { .. } => "I3",
            Self::I4 { .. } => "I4",
            Self::I5 { .. } => "I5",
            Self::C1 { .. } => "C1",
            Self::C2 { .. } => "C2",
            Self::C3 { .. } => "C3",
            Self::C4 { .. } => "C4",
            Self::C5 { .. } => "C5",
            Self::R1 { .. } => "R1",
            Self::R2 { .. } => "R2",
            Self::R3 { .. } => "R3",
            Self::R4 { .. } => "R4",
            Self::R5 { .. } => "R5",
            Self::R6 { .. } => "R6",
            Self::M1 { .. } => "M1",
            Self::X1 { .. } => "X1",
            Self::X2 { .. } => "X2",
            Self::X3 { .. } => "X3",
            Self::X4 { .. } => "X4",
            Self::X5 { .. } => "X5",
            Self::X6 { .. } => "X6",
            Self::Own { case, .. } => case.fault(),
        }
    }

    /// Why hardware and domains are as they were once the fault has struck and been judged, where they
    /// can be: then another trial may follow in its boot. What it really did is looked at after every
    /// trial, and what cannot be put back ends the boot.
    pub const fn stateless(&self) -> Option<&'static str> {
        const FRAMES: &str = "it writes to frames that hold a pattern, which is written anew";
        match self {
            Self::None => Some("nothing happens"),
            Self::D1 {
                by: By::Device,
                target: Target::Neighbour,
                ..
            }
            | Self::D8 { .. } => {
                Some("it changes nothing where it is refused; where it lands, the boot ends")
            }
            Self::D1 { by: By::Device, .. }
            | Self::D10 { .. }
            | Self::D11 { .. }
            | Self::D13 { .. } => Some(FRAMES),
            Self::D5 { write: false, .. } => Some("it reads"),
            Self::D9 { .. } => {
                Some("the other device is left alone where it is refused; else the boot ends")
            }
            Self::I4 { .. } => Some("the forged interrupt is acknowledged"),
            // The others change what a driver or a device knows, or are committed by the driver's
            // domain, whose share in them ends with it. What D4 writes over is the driver's own.
            _ => None,
        }
    }

    /// Where the device of a second tenant is plugged in, as seen from the driver's, if the fault needs
    /// one to show what it does.
    pub const fn sibling(&self) -> Option<Route> {
        match self {
            Self::D9 { route, .. } => Some(*route),
            Self::B4 { .. }
            | Self::B5 { .. }
            | Self::C1 { overlap: true, .. }
            | Self::C5 { .. } => Some(Route::Near),
            _ => None,
        }
    }

    /// Why it shows by the wall clock only, if so.
    pub const fn by_wall(&self) -> Option<&'static str> {
        match self {
            Self::B8 { .. } => Some(
                "a locked bus costs the others time, and under leap nobody else runs meanwhile: \
                 use --clock wall",
            ),
            _ => None,
        }
    }

    /// When it strikes, if that is drawn.
    pub const fn nth_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::None | Self::C3 { .. } => None,
            Self::D1 { nth, .. }
            | Self::D2 { nth, .. }
            | Self::D3 { nth, .. }
            | Self::D4 { nth, .. }
            | Self::D5 { nth, .. }
            | Self::D6 { nth, .. }
            | Self::D7 { nth, .. }
            | Self::D8 { nth, .. }
            | Self::D9 { nth, .. }
            | Self::D10 { nth, .. }
            | Self::D11 { nth, .. }
            | Self::D12 { nth, .. }
            | Self::D13 { nth, .. }
            | Self::D14 { nth, .. }
            | Self::B1 { nth, .. }
            | Self::B2 { nth, .. }
            | Self::B3 { nth, .. }
            | Self::B4 { nth, .. }
            | Self::B5 { nth, .. }
            | Self::B6 { nth, .. }
            | Self::B7 { nth, .. }
            | Self::B8 { nth, .. }
            | Self::B9 { nth, .. }
            | Self::B10 { nth, .. }
            | Self::I1 { nth, .. }
            | Self::I2 { nth, .. }
            | Self::I3 { nth, .. }
            | Self::I4 { nth, .. }
            | Self::I5 { nth, .. }
            | Self::C1 { nth, .. }
            | Self::C2 { nth, .. }
            | Self::C4 { nth, .. }
            | Self::C5 { nth, .. }
            | Self::R1 { nth, .. }
            | Self::R2 { nth, .. }
            | Self::R3 { nth, .. }
            | Self::R4 { nth, .. }
            | Self::R5 { nth, .. }
            | Self::R6 { nth, .. }
            | Self::M1 { nth, .. }
            | Self::X1 { nth, .. }
            | Self::X2 { nth, .. }
            | Self::X3 { nth, .. }
            | Self::X4 { nth, .. }
            | Self::X5 { nth, .. }
            | Self::X6 { nth, .. }
            | Self::Own { nth, .. } => Some(nth),
        }
    }

    /// How many bytes it touches, if that is drawn.
    pub const fn len_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::D1 { len, .. } | Self::M1 { len, .. } => Some(len),
            _ => None,
        }
    }

    /// The same with what is drawn left open: `nth` and `len` 0.
    #[must_use]
    pub const fn open(mut self) -> Self {
        if let Some(nth) = self.nth_mut() {
            *nth = 0;
        }
        if let Some(len) = self.len_mut() {
            *len = 0;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_fault_leaves_when_and_how_long_to_the_draw() {
        let struck = Fault::M1 {
            target: Target::Kernel,
            len: 64,
            nth: 5,
        };
        let open = Fault::M1 {
            target: Target::Kernel,
            len: 0,
            nth: 0,
        };
        assert_eq!(struck.open(), open);
        assert_eq!(Fault::C3 { length: 2 }.open(), Fault::C3 { length: 2 });
    }
}
