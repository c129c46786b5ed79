//! Programs: what one execution does to a driver, from both sides.
//!
//! A program is a list of actions. Calls are the workload and happen in their order; everything else
//! is the device's doing and says itself when: at the nth of some event, or whenever a register is
//! read for the nth time. So an answer stays with the question it belongs to when other actions come
//! or go, which is what makes programs shrink and mix well.

pub mod text;

use arbitrary::Arbitrary;
use cofferdam_seam::{Bar, Purpose, Width};
use serde::{Deserialize, Serialize};

/// Actions in the longest program.
pub const ACTIONS: usize = 64;

/// Bytes in the longest piece of data.
pub const BYTES: usize = 256;

/// Arguments of a call.
pub const ARGUMENTS: usize = 4;

/// Who plays the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The honest model, which the program tampers with: reaches deep states.
    #[default]
    Model,
    /// Nobody: every answer comes from the program.
    Hostile,
}

/// One input of the fuzzer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Who plays the device.
    pub mode: Mode,
    /// What happens.
    pub actions: Vec<Action>,
}

/// A register, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Register {
    /// The BAR's index, 0 to 5.
    pub bar: u8,
    /// Bytes from its start.
    pub offset: u32,
}

impl Register {
    /// The register there.
    pub fn new(bar: Bar, offset: u32) -> Self {
        let bar = u8::try_from(bar.index()).unwrap_or(0);
        Self { bar, offset }
    }
}

/// Something that is counted, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Arbitrary)]
pub enum Event {
    /// A call of the workload begins.
    Call,
    /// The driver read a register.
    Read,
    /// The driver wrote a register.
    Write,
    /// The driver polls: a turn of a loop, or a wait.
    Poll,
    /// The device read memory.
    DmaRead,
    /// The device wrote memory.
    DmaWrite,
    /// The driver let the device reach memory.
    Map,
    /// The driver took memory back.
    Unmap,
}

/// All events, in the order of their discriminants.
pub const EVENTS: [Event; 8] = [
    Event::Call,
    Event::Read,
    Event::Write,
    Event::Poll,
    Event::DmaRead,
    Event::DmaWrite,
    Event::Map,
    Event::Unmap,
];

/// The nth of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trigger {
    /// What is counted.
    pub event: Event,
    /// From 1; an action with zero never happens.
    pub nth: u32,
}

/// What a DMA write of the model carries, as far as an edit can aim at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Arbitrary)]
pub enum Carried {
    /// The data of a request.
    Payload,
    /// A status inside a request's buffers.
    Status,
    /// An entry of a completion queue or used ring.
    Completion,
    /// What publishes completions: a used index, a phase bit.
    Publish,
    /// A descriptor that the device writes back.
    Descriptor,
}

/// All of them, in the order of their discriminants.
pub const CARRIED: [Carried; 5] = [
    Carried::Payload,
    Carried::Status,
    Carried::Completion,
    Carried::Publish,
    Carried::Descriptor,
];

impl From<Purpose> for Carried {
    fn from(why: Purpose) -> Self {
        match why {
            Purpose::Descriptor => Self::Descriptor,
            Purpose::Payload => Self::Payload,
            Purpose::Status => Self::Status,
            Purpose::Completion => Self::Completion,
            Purpose::Publish => Self::Publish,
        }
    }
}

/// What happens to a DMA write of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Edit {
    /// These bytes overwrite it from `offset` on, as far as it goes.
    Overwrite {
        /// First byte that changes.
        offset: u32,
        /// What it says then.
        bytes: Vec<u8>,
    },
    /// It is not made.
    Drop,
    /// It is made again, `slot` bytes further on.
    Repeat {
        /// How much further.
        slot: u32,
    },
}

/// One line of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The workload asks the driver for something.
    Call {
        /// Which of the target's calls; beyond them, none.
        call: u16,
        /// Brought into their ranges by the call.
        arguments: Vec<u64>,
    },
    /// A read of a register is answered so, and the model does not see it.
    Reply {
        /// Which register.
        register: Register,
        /// Which of its reads, from 1; 0: all of them.
        nth: u32,
        /// The answer; bits beyond the access's width are dropped.
        value: u64,
    },
    /// A read of configuration space is answered so.
    Config {
        /// Where it starts.
        offset: u16,
        /// Which of the reads that start there, from 1; 0: all of them.
        nth: u32,
        /// The answer; bits beyond the access's width are dropped.
        value: u32,
    },
    /// A DMA write of the model is changed.
    Edit {
        /// What it carries.
        carried: Carried,
        /// Which of those, from 1; 0: all of them.
        nth: u32,
        /// How.
        edit: Edit,
    },
    /// The device writes memory of its own accord, where it may.
    Poke {
        /// When.
        when: Trigger,
        /// Which mapping, from 0 in the order they were made.
        mapping: u16,
        /// First byte in it.
        offset: u32,
        /// What is written; what goes beyond the mapping is cut off.
        bytes: Vec<u8>,
    },
    /// The device interrupts without a cause.
    Interrupt {
        /// When.
        when: Trigger,
        /// Which vector.
        vector: u16,
    },
    /// An interrupt of the model is lost.
    Lose {
        /// Which, from 1.
        nth: u32,
    },
    /// The host has fewer vectors than the driver wants.
    Vectors {
        /// At most so many; at least one is given.
        most: u16,
    },
    /// The device does nothing for a while.
    Stall {
        /// From when on.
        when: Trigger,
        /// For so many microseconds.
        micros: u32,
    },
    /// The device is pulled out: reads are all ones, writes go nowhere, there is no DMA.
    Remove {
        /// When.
        when: Trigger,
    },
    /// Bytes for questions that nothing else answers, in hostile mode.
    Answers {
        /// Taken from the front. When they are used up the answer is zero.
        bytes: Vec<u8>,
    },
}

impl Program {
    /// Whether any action is the device's.
    pub fn is_honest(&self) -> bool {
        self.mode == Mode::Model
            && self
                .actions
                .iter()
                .all(|action| matches!(action, Action::Call { .. }))
    }

    /// Cuts off what is too long. What generators and mutators make passes through here.
    pub fn limit(&mut self) {
        self.actions.truncate(ACTIONS);
        for action in &mut self.actions {
            match action {
                Action::Call { arguments, .. } => arguments.truncate(ARGUMENTS),
                Action::Poke { bytes, .. }
                | Action::Answers { bytes }
                | Action::Edit {
                    edit: Edit::Overwrite { bytes, .. },
                    ..
                } => bytes.truncate(BYTES),
                _ => {}
            }
        }
    }
}

/// As many low bits of a value as an access moves.
pub(crate) fn cut(value: u64, width: Width) -> u64 {
    value & width.all_ones()
}
