//! What a device can lie about.

use cofferdam_seam::{Iova, RequesterId, Violation};
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
    /// Right after the `nth` DMA read of payload, a read of what lies behind it.
    ReadBeside {
        /// Which read of payload. Writes do not count: what they reached need not be readable.
        nth: u32,
        /// Bytes between the end of the one and the start of the other.
        gap: u64,
        /// Bytes read, at most 4096.
        len: usize,
    },
    /// Right after the `nth` DMA write of payload, a write whose address claims to be translated.
    TranslatedWrite {
        /// Which write of payload.
        nth: u32,
        /// The physical address.
        at: Iova,
        /// What it writes.
        bytes: Vec<u8>,
    },
    /// Right after the `nth` DMA write of payload, a write under another function's requester ID.
    BorrowedWrite {
        /// Which write of payload.
        nth: u32,
        /// Whose ID.
        claimed: RequesterId,
        /// Where it goes, in the other's addresses.
        at: Iova,
        /// What it writes.
        bytes: Vec<u8>,
    },
    /// Writes the range of the last DMA of payload before a function-level reset after it: as soon as
    /// bus mastering is on again.
    WriteAfterReset {
        /// How long after the first access that follows the reset, at the earliest.
        after: Duration,
        /// Decides the bytes.
        bytes_seed: u64,
    },
    /// Writes the range of the last DMA write of payload to the page that is
    /// [named](crate::Tally::recall): an address the device was given once, whose memory has gone to
    /// somebody else meanwhile. If it never wrote there, it does not act.
    Recall {
        /// How long after the naming, at the earliest.
        after: Duration,
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
    /// Overwrites a little-endian field in the `nth` completion entry the device writes. An entry
    /// that is published by a bit inside it goes on in what publishes it.
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
    /// Right after the `nth` completion was published, the same entry once more in the next slot of
    /// the ring, published again. The model does not know: its own next completion follows the first.
    Repeat {
        /// Which completion.
        nth: u32,
        /// Bytes from one slot to the next.
        slot: u64,
        /// How a completion is published.
        publishing: Publishing,
    },
    /// Some time after the `nth` completion was published, its entry changes: every bit of it.
    DoubleFetch {
        /// Which completion.
        nth: u32,
        /// How much later.
        after: Duration,
    },
    /// What publishes the `nth` completion is wrong: an index one too far, a phase bit inverted.
    Published {
        /// Which completion.
        nth: u32,
        /// How a completion is published.
        publishing: Publishing,
    },
    /// Right after the `nth` descriptor of 16 bytes was read, a write that makes the descriptors
    /// from the start of its page point in a circle (virtio 1.2, 2.7.5).
    CircularChain {
        /// Which descriptor.
        nth: u32,
        /// Descriptors in the circle.
        length: u16,
    },
}

/// How a device tells that a completion is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Publishing {
    /// By a count of 16 bits that is at one address for all of them.
    Index,
    /// By a bit inside the entry, in what is written last.
    Phase {
        /// The byte that has it, in what is written last.
        byte: usize,
        /// The bit.
        mask: u8,
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
