//! What counts as a defect of a driver, and who notices.

use cofferdam_machine::Verdict;
use serde::{Deserialize, Serialize};

/// A kind of defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oracle {
    /// The driver panicked.
    Panic,
    /// The driver ended the process, or would have: an abort, or an instruction that only ends programs.
    Crash,
    /// An execution did not end, by the clock on the wall.
    Hang,
    /// The driver accessed memory that is not its own.
    WildAccess,
    /// AddressSanitizer saw the driver access memory that is not its own, or no longer.
    MemoryError,
    /// The driver freed memory that the device may still write or read.
    FreedWhileMapped,
    /// A call returned and left part of its stack to the device.
    StackWhileMapped,
    /// The honest device was sent beyond what was mapped.
    DmaOutOfBounds,
    /// The honest device was sent to what is no longer mapped.
    DmaAfterUnmap,
    /// The honest device was sent against a mapping's direction.
    DmaWrongDirection,
    /// The honest device was sent to memory that was never mapped.
    DmaUnmapped,
    /// The driver takes back a mapping that it does not hold.
    BadUnmap,
    /// The driver computes without an end, and does not look at the device.
    Runaway,
    /// The driver waits for the device and heeds no deadline.
    UnboundedWait,
    /// Data are returned as the device's that it never sent.
    UnsentData,
    /// The driver says that more was received than there is room for.
    LengthBeyondBuffer,
    /// Mappings are left after the driver was removed.
    LeakedMapping,
    /// DMA memory is left after the driver was removed.
    LeakedMemory,
    /// The device may still master the bus after the driver was removed.
    BusHeld,
    /// Data of an earlier request went to the device again.
    LeakedBytes,
    /// The driver waits for a vector that it does not have, or goes while its device still interrupts.
    InterruptMisuse,
    /// The adapter found a promise of the driver broken.
    Promise,
}

/// All of them.
pub const ORACLES: [Oracle; 22] = [
    Oracle::Panic,
    Oracle::Crash,
    Oracle::Hang,
    Oracle::WildAccess,
    Oracle::MemoryError,
    Oracle::FreedWhileMapped,
    Oracle::StackWhileMapped,
    Oracle::DmaOutOfBounds,
    Oracle::DmaAfterUnmap,
    Oracle::DmaWrongDirection,
    Oracle::DmaUnmapped,
    Oracle::BadUnmap,
    Oracle::Runaway,
    Oracle::UnboundedWait,
    Oracle::UnsentData,
    Oracle::LengthBeyondBuffer,
    Oracle::LeakedMapping,
    Oracle::LeakedMemory,
    Oracle::BusHeld,
    Oracle::LeakedBytes,
    Oracle::InterruptMisuse,
    Oracle::Promise,
];

impl Oracle {
    /// Its name in findings and lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::WildAccess => "wild-access",
            Self::MemoryError => "memory-error",
            Self::FreedWhileMapped => "freed-while-mapped",
            Self::StackWhileMapped => "stack-while-mapped",
            Self::DmaOutOfBounds => "dma-out-of-bounds",
            Self::DmaAfterUnmap => "dma-after-unmap",
            Self::DmaWrongDirection => "dma-wrong-direction",
            Self::DmaUnmapped => "dma-unmapped",
            Self::BadUnmap => "bad-unmap",
            Self::Runaway => "runaway",
            Self::UnboundedWait => "unbounded-wait",
            Self::UnsentData => "unsent-data",
            Self::LengthBeyondBuffer => "length-beyond-buffer",
            Self::LeakedMapping => "leaked-mapping",
            Self::LeakedMemory => "leaked-memory",
            Self::BusHeld => "bus-held",
            Self::LeakedBytes => "leaked-bytes",
            Self::InterruptMisuse => "interrupt-misuse",
            Self::Promise => "promise",
        }
    }

    /// What it says about the driver, for lists.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Panic => "the driver panicked (arithmetic overflow and index checks included)",
            Self::Crash => {
                "the driver ended the process: an abort, memory that is not to be had, or a panic within a panic"
            }
            Self::Hang => {
                "an execution did not end by the clock on the wall: the driver, or its adapter, goes round without a comparison or a call that could be counted"
            }
            Self::WildAccess => {
                "the driver read, wrote or jumped to what is not its own: a wild pointer, an address behind its registers, or its stack ran over"
            }
            Self::MemoryError => {
                "AddressSanitizer (`--asan`) saw the driver read or write beyond a block of its heap, a variable on its stack or DMA memory, or what it freed"
            }
            Self::FreedWhileMapped => {
                "heap or DMA memory was freed while the device could still reach it"
            }
            Self::StackWhileMapped => {
                "a call returned while the device could still reach its stack frame"
            }
            Self::DmaOutOfBounds => "the honest device was sent beyond the mapped bytes",
            Self::DmaAfterUnmap => "the honest device was sent to bytes that were mapped once",
            Self::DmaWrongDirection => {
                "the honest device was sent to write what it may only read, or to read what it may only write"
            }
            Self::DmaUnmapped => "the honest device was sent to an address that was never mapped",
            Self::BadUnmap => {
                "a mapping was taken back that the driver did not hold, or of another size"
            }
            Self::Runaway => "the driver computes without an end and without looking at the device",
            Self::UnboundedWait => {
                "the driver waits for the device without a deadline (no defect where its documentation says that calls block, unless it goes round in configuration space, or reads registers of a device that is gone; each tells whether an honest device ends it)"
            }
            Self::UnsentData => "data were returned as received that the device never sent",
            Self::LengthBeyondBuffer => "more bytes were reported as received than the buffer has",
            Self::LeakedMapping => "the device can reach memory after the driver was removed",
            Self::LeakedMemory => {
                "memory for devices, which the system keeps in place, is held after the driver was removed"
            }
            Self::BusHeld => {
                "the device is still bus master after the driver was removed, or did not take it"
            }
            Self::LeakedBytes => "the device was given data of a request that was over",
            Self::InterruptMisuse => {
                "the driver waits for a vector that it was not given, or goes while its honest device holds the interrupt pin"
            }
            Self::Promise => "the adapter found a promise of the driver's documentation broken",
        }
    }

    /// The oracle of that name.
    pub fn named(name: &str) -> Option<Self> {
        ORACLES.into_iter().find(|oracle| oracle.name() == name)
    }

    /// Whether it is a defect of any driver. The wait for a silent device is one only where the
    /// driver promises to come back.
    pub const fn is_defect(self, driver_blocks: bool) -> bool {
        !(matches!(self, Self::UnboundedWait) && driver_blocks)
    }

    /// Whether only a driver that is built with AddressSanitizer shows it.
    pub const fn needs_asan(self) -> bool {
        matches!(self, Self::MemoryError)
    }

    /// What the ledger's verdict on an honest device's request says about the driver.
    pub const fn of_dma(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Sanctioned => None,
            Verdict::WrongDirection => Some(Self::DmaWrongDirection),
            Verdict::OutOfBounds => Some(Self::DmaOutOfBounds),
            Verdict::UseAfterUnmap { .. } => Some(Self::DmaAfterUnmap),
            Verdict::Foreign { .. } | Verdict::PeerToPeer | Verdict::Unbacked => {
                Some(Self::DmaUnmapped)
            }
        }
    }
}

/// Where in the driver something was noticed, as cheaply as it can be told while fuzzing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A panic's own place.
    Source {
        /// The file.
        file: &'static str,
        /// The line, from 1.
        line: u32,
    },
    /// Return addresses, innermost first.
    Frames(Vec<usize>),
    /// Nothing but the call of the workload.
    Call,
}

/// Something an oracle noticed during an execution.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Which oracle.
    pub oracle: Oracle,
    /// Where.
    pub place: Place,
    /// Tells sightings of one oracle apart, before anybody has looked at the place.
    pub key: u64,
    /// The call of the workload it happened in: `probe`, a name, or `remove`.
    pub during: &'static str,
    /// In words; empty unless the execution was traced.
    pub words: String,
    /// It is a defect of any driver, whatever its documentation says of waits: the driver goes round in
    /// configuration space, which answers at once, or reads registers of a device that is gone.
    pub evident: bool,
}
