//! What happened in a trial, event by event, as the hardware process saw it.
//!
//! A trace is for reading, not for judging: outcomes come from the
//! [`TrialReport`](crate::trial::TrialReport), which is the same with a trace and without. Words are
//! the hardware's; what a register or a descriptor means is left to whoever knows the device.

use cofferdam_seam::{Direction, Purpose};
use serde::{Deserialize, Serialize};

/// Events kept of a trial; the first stay, the rest is counted.
pub const LIMIT: usize = 200_000;

/// The events of a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// In the order of their times.
    pub events: Vec<Event>,
    /// Events that came after [`LIMIT`] of them.
    pub dropped: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Device time, ns.
    pub at_ns: u64,
    /// What happened.
    pub what: What,
}

/// What happened. Domains are named by their index in the placement; the supervisor's is one past the
/// last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The driver read a register.
    Read {
        /// Which BAR.
        bar: u8,
        /// Byte offset.
        offset: u32,
        /// Bytes.
        width: u8,
        /// What came back; `None` if nothing has so far.
        value: Option<u64>,
    },
    /// The driver wrote a register.
    Write {
        /// Which BAR.
        bar: u8,
        /// Byte offset.
        offset: u32,
        /// Bytes.
        width: u8,
        /// The value.
        value: u64,
    },
    /// The driver read or wrote configuration space.
    Config {
        /// Whether it wrote.
        write: bool,
        /// Byte offset.
        offset: u16,
        /// Bytes.
        width: u8,
        /// The value.
        value: u32,
    },
    /// The driver was given interrupts.
    Interrupts {
        /// Of that kind.
        kind: String,
        /// So many.
        count: u16,
    },
    /// The driver mapped memory for the device.
    Mapped {
        /// The mapping's name.
        id: u64,
        /// Where the device finds it.
        iova: u64,
        /// Where it is.
        phys: u64,
        /// Bytes.
        len: u64,
        /// Which way.
        #[serde(with = "DirectionOf")]
        way: Direction,
        /// Whether the driver chose the address.
        chosen: bool,
    },
    /// The driver took a mapping back.
    Unmapped {
        /// Its name.
        id: u64,
    },
    /// A call was refused.
    Refused {
        /// Whose.
        by: usize,
        /// Which, in words.
        call: String,
    },
    /// A memory request of a device.
    Dma(Dma),
    /// An interrupt message of a device.
    Message {
        /// Its requester ID.
        by: String,
        /// What it said.
        data: u32,
        /// What became of it, in words.
        became: String,
    },
    /// The driver took these vectors.
    Taken {
        /// By bit.
        vectors: u64,
    },
    /// IOTLB entries were invalidated.
    Invalidated {
        /// So often.
        times: u64,
    },
    /// A domain rang the doorbells of others.
    Rang {
        /// Who.
        by: usize,
        /// Whose, by bit.
        peers: u64,
    },
    /// A domain began to wait.
    Waits {
        /// Who.
        who: usize,
        /// For these interrupt vectors, by bit.
        vectors: u64,
        /// For these peers, by bit.
        bells: u64,
        /// Until then at the latest, ns; `u64::MAX` is for ever.
        until_ns: u64,
    },
    /// A domain's wait ended.
    Wakes {
        /// Who.
        who: usize,
        /// By these vectors.
        vectors: u64,
        /// By these peers.
        bells: u64,
    },
    /// A CPU stands still.
    Froze {
        /// Which.
        cpu: usize,
        /// Until then, ns; `u64::MAX` is to the horizon.
        until_ns: u64,
    },
    /// It goes on.
    Thawed {
        /// Which.
        cpu: usize,
    },
    /// The device was reset.
    Reset {
        /// By whom.
        by: usize,
    },
    /// The driver serves, for the first time or again.
    Serves,
    /// A domain died.
    Died {
        /// Who.
        who: usize,
        /// How, in words.
        how: String,
    },
    /// A domain was started again.
    Restarted {
        /// Who.
        who: usize,
        /// For the how manieth time.
        times: u32,
    },
    /// Somebody noticed something.
    Noticed {
        /// Who.
        by: String,
        /// What.
        what: String,
    },
    /// The fault struck.
    Activated,
    /// A tenant made a request.
    Asked {
        /// Which tenant.
        tenant: u8,
        /// Its number, from 0.
        nth: u32,
        /// What it asks, in words.
        ask: String,
    },
    /// A tenant's request was answered.
    Answered {
        /// Which tenant.
        tenant: u8,
        /// Its number.
        nth: u32,
        /// Whether with success.
        good: bool,
    },
    /// A tenant has done all it meant to.
    Finished {
        /// Who.
        who: usize,
    },
    /// The privileged layer stopped, and all on it.
    SystemLost,
}

/// A memory request of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dma {
    /// Its requester ID.
    pub by: String,
    /// First address asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub len: u64,
    /// Whether it was a write.
    pub write: bool,
    /// What the device says it is for.
    #[serde(with = "PurposeOf")]
    pub why: Purpose,
    /// The ledger's verdict, if it was not sanctioned: what should have happened.
    pub stray: Option<String>,
    /// Bytes that were moved.
    pub moved: u64,
    /// Why no more were, in words.
    pub fault: Option<String>,
    /// How its last page was reached, where something translates, in words.
    pub path: Option<String>,
    /// The first physical address it reached.
    pub reached: Option<u64>,
    /// Whose memory that is.
    pub owner: Option<String>,
    /// Its bytes, at most 64, if it was no payload and arrived.
    pub bytes: Vec<u8>,
}

/// [`Purpose`], for serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Purpose", rename_all = "kebab-case")]
enum PurposeOf {
    Descriptor,
    Payload,
    Status,
    Completion,
    Publish,
}

/// [`Direction`], for serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Direction", rename_all = "kebab-case")]
enum DirectionOf {
    ToDevice,
    FromDevice,
    Both,
}
