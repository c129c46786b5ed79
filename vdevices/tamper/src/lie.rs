//! What a device can lie about.

use cofferdam_seam::{Iova, Violation};
use core::time::Duration;

/// One lie. `nth` counts from 1 and from [`Tally::arm`](crate::Tally::arm); whatever the device did
/// before then was not counted. A lie with `nth` zero is never told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Right after the `nth` DMA write of payload, one more DMA write.
    WildWrite {
        /// Which write of payload. Reads do not count: what they reached need not be writable.
        nth: u32,
        /// Where it goes.
        aim: Aim,
        /// What it writes.
        bytes: Vec<u8>,
    },
    /// Writes the range of the `nth` DMA write of payload once more, later.
    StaleWrite {
        /// Which write of payload. Reads do not count: what they reached need not be writable.
        nth: u32,
        /// How much later.
        after: Duration,
        /// Decides the bytes.
        bytes_seed: u64,
    },
    /// The `nth` DMA write of payload is longer than it should be.
    Overrun {
        /// Which write of payload.
        nth: u32,
        /// The bytes that follow the honest ones, in the same request.
        extra: Vec<u8>,
    },
    /// Right after the `nth` DMA read of payload, a write to what was read.
    WriteBack {
        /// Which read of payload.
        nth: u32,
        /// Decides the bytes.
        bytes_seed: u64,
    },
    /// The `nth` register read never completes, and the model never sees it.
    NeverCompletes {
        /// Which read.
        nth: u32,
    },
    /// From the `nth` register read on, for a while, reads are all ones and the model does not see
    /// them. Writes, DMA and interrupts pass.
    AllOnes {
        /// The first such read, which lies however short the window is.
        nth: u32,
        /// For how long.
        window: Duration,
    },
    /// The `nth` register read completes late, with what the model then answered.
    Late {
        /// Which read.
        nth: u32,
        /// How late.
        delay: Duration,
    },
    /// The `nth` register read ends in retry, so often in a row, and the model never sees it; what is
    /// then tried again is another read.
    Retries {
        /// Which read.
        nth: u32,
        /// How often; `u32::MAX`: for ever.
        times: u32,
    },
    /// The completion of the `nth` register read carries an error, and the model never sees the read.
    Fails {
        /// Which read.
        nth: u32,
        /// Poisoned data; else a completer abort.
        poisoned: bool,
    },
    /// Breaks a rule of the bus. It acted if the bus has that rule.
    Violates {
        /// What is counted.
        on: Trigger,
        /// After which of them.
        nth: u32,
        /// The breach.
        what: Violation,
    },
    /// Overwrites a little-endian field in the `nth` completion entry the device writes.
    CompletionField {
        /// Which entry.
        nth: u32,
        /// The field's first byte in the entry.
        offset: usize,
        /// Its length in bytes, at most 8; what lies beyond the entry is not written.
        len: usize,
        /// What it is to say.
        value: u64,
    },
}

/// What a breach of the rules waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// A DMA of payload, either way.
    Dma,
    /// A register read.
    Read,
}

/// Where a wild write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// To that address.
    Address(Iova),
    /// Beside the write that triggered it.
    BesideLast {
        /// Bytes between the end of the one and the start of the other.
        gap: u64,
    },
}
