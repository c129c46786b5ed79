//! What a device can lie about.

use cofferdam_seam::Iova;
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
    /// After the `nth` DMA write of payload, interrupts without a cause: the vectors that the
    /// model raised last.
    Storm {
        /// Which write of payload.
        nth: u32,
        /// From one to the next.
        every: Duration,
        /// For how long.
        length: Duration,
    },
    /// Messages that the model raises are not sent. The pin is a level and cannot be lost.
    LostInterrupts {
        /// The first of them.
        nth: u32,
        /// How many in a row.
        burst: u32,
    },
    /// From the `nth` DMA write of payload on the pin stays up, resets or not.
    PinStuck {
        /// Which write of payload.
        nth: u32,
    },
    /// After the first reset, one message in spite of it: the device remembers what its vector
    /// said, and does not heed its bus-master enable bit.
    LateMessage {
        /// How long after.
        after: Duration,
        /// Where to.
        at: Iova,
        /// What it says.
        data: u32,
    },
    /// The function's bus-master enable bit goes off after the `nth` DMA write of payload.
    MasterOff {
        /// Which write of payload.
        nth: u32,
        /// For how long, unless a reset comes first; zero: until then.
        length: Duration,
    },
    /// A double word of every entry of the MSI-X table is overwritten after the `nth` DMA write of
    /// payload.
    MsixTable {
        /// Which write of payload.
        nth: u32,
        /// 0 and 1 address, 2 data, 3 control.
        field: u8,
        /// What it says then.
        value: u32,
    },
    /// The capability list runs in a circle, armed or not: the last of the first `length`
    /// capabilities points to the first. It is told when that pointer is read.
    CapabilityCircle {
        /// Capabilities in the circle; all there are if they are fewer.
        length: u8,
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
