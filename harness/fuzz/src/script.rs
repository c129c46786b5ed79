//! A program as the world carries it out: each kind of action where it is looked for.

use crate::program::ARGUMENTS;
use crate::program::{Action, Carried, Edit, Event, Program, Register, Trigger};
use std::ops::Range;

/// The answer to a question that may be asked again and again.
#[derive(Clone, Copy)]
struct Answer<K> {
    of: K,
    nth: u32,
    seen: u32,
    value: u64,
}

/// What happens to a DMA write. Bytes are a range of [`Script::bytes`].
#[derive(Clone)]
pub enum Deed {
    /// See [`Action::Poke`].
    Poke {
        /// Which mapping.
        mapping: u16,
        /// Where in it.
        offset: u32,
        /// What.
        bytes: Range<usize>,
    },
    /// See [`Action::Interrupt`].
    Interrupt(u16),
    /// See [`Action::Stall`].
    Stall(u32),
    /// See [`Action::Remove`].
    Remove,
}

/// See [`Edit`].
#[derive(Clone)]
pub enum Change {
    /// These bytes, from there on.
    Overwrite(u32, Range<usize>),
    /// Not made.
    Drop,
    /// Made again so much further on.
    Repeat(u32),
}

/// One call of the workload.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Which.
    pub call: u16,
    /// Its arguments.
    arguments: [u64; ARGUMENTS],
    given: usize,
}

impl Asked {
    /// Its arguments.
    pub fn arguments(&self) -> &[u64] {
        &self.arguments[..self.given]
    }
}

/// The program of the running execution. All of its buffers are reused.
#[derive(Default)]
pub struct Script {
    replies: Vec<Answer<Register>>,
    configs: Vec<Answer<u16>>,
    edits: Vec<(Carried, u32, Change)>,
    timed: Vec<(Trigger, Deed)>,
    /// The events that any of them waits for, a bit each.
    awaited: u8,
    lost: Vec<u32>,
    vectors: Option<u16>,
    calls: Vec<Asked>,
    bytes: Vec<u8>,
    /// How far the workload has come.
    called: usize,
}

impl Script {
    /// Takes up a program; its answers go to `answers`.
    pub fn load(&mut self, program: &Program, answers: &mut Vec<u8>) {
        self.replies.clear();
        self.configs.clear();
        self.edits.clear();
        self.timed.clear();
        self.awaited = 0;
        self.lost.clear();
        self.vectors = None;
        self.calls.clear();
        self.bytes.clear();
        self.called = 0;
        for action in &program.actions {
            self.add(action, answers);
        }
        for (when, _) in &self.timed {
            self.awaited |= 1 << when.event as u8;
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn add(&mut self, action: &Action, answers: &mut Vec<u8>) {
        match action {
            Action::Call { call, arguments } => {
                let given = arguments.len().min(ARGUMENTS);
                let mut asked = Asked {
                    call: *call,
                    arguments: [0; ARGUMENTS],
                    given,
                };
                asked.arguments[..given].copy_from_slice(&arguments[..given]);
                self.calls.push(asked);
            }
            Action::Reply {
                register,
                nth,
                value,
            } => self.replies.push(Answer {
                of: *register,
                nth: *nth,
                seen: 0,
                value: *value,
            }),
            Action::Config { offset, nth, value } => self.configs.push(Answer {
                of: *offset,
                nth: *nth,
                seen: 0,
                value: (*value).into(),
            }),
            Action::Edit { carried, nth, edit } => {
                let change = match edit {
                    Edit::Overwrite { offset, bytes } => {
                        Change::Overwrite(*offset, self.keep(bytes))
                    }
                    Edit::Drop => Change::Drop,
                    Edit::Repeat { slot } => Change::Repeat(*slot),
                };
                self.edits.push((*carried, *nth, change));
            }
            Action::Poke {
                when,
                mapping,
                offset,
                bytes,
            } => {
                let bytes = self.keep(bytes);
                let deed = Deed::Poke {
                    mapping: *mapping,
                    offset: *offset,
                    bytes,
                };
                self.timed.push((*when, deed));
            }
            Action::Interrupt { when, vector } => {
                self.timed.push((*when, Deed::Interrupt(*vector)));
            }
            Action::Lose { nth } => self.lost.push(*nth),
            Action::Vectors { most } => self.vectors = Some(*most),
            Action::Stall { when, micros } => self.timed.push((*when, Deed::Stall(*micros))),
            Action::Remove { when } => self.timed.push((*when, Deed::Remove)),
            Action::Answers { bytes } => answers.extend_from_slice(bytes),
        }
    }

    /// The next call of the workload.
    pub fn next_call(&mut self) -> Option<Asked> {
        let next = self.calls.get(self.called).copied();
        self.called += usize::from(next.is_some());
        next
    }

    /// The scripted answer to a read of a register.
    #[inline]
    pub fn reply(&mut self, register: Register) -> Option<u64> {
        if self.replies.is_empty() {
            return None;
        }
        answer(&mut self.replies, register)
    }

    /// The scripted answer to a read of configuration space.
    #[inline]
    pub fn config(&mut self, offset: u16) -> Option<u64> {
        if self.configs.is_empty() {
            return None;
        }
        answer(&mut self.configs, offset)
    }

    /// Whether anything happens to DMA writes.
    #[inline]
    pub fn edits(&self) -> bool {
        !self.edits.is_empty()
    }

    /// What happens to the `nth` DMA write that carries that.
    pub fn edits_of(&self, carried: Carried, nth: u32) -> impl Iterator<Item = &Change> {
        self.edits
            .iter()
            .filter(move |(of, at, _)| *of == carried && (*at == nth || *at == 0))
            .map(|(_, _, change)| change)
    }

    /// Whether anything waits for that event.
    #[inline]
    pub fn awaits(&self, event: Event) -> bool {
        self.awaited & 1 << event as u8 != 0
    }

    /// Whether something still waits for the driver to go on polling.
    pub fn awaits_polls(&self, polls: u32) -> bool {
        let mut waiting = self.timed.iter();
        waiting.any(|(when, _)| when.event == Event::Poll && when.nth > polls)
    }

    /// The next deed from `place` on that happens now; `place` is then behind it.
    pub fn next_deed(&self, place: &mut usize, now: Trigger) -> Option<Deed> {
        let rest = self.timed.get(*place..)?;
        let found = rest.iter().position(|(when, _)| *when == now)?;
        *place += found + 1;
        Some(rest[found].1.clone())
    }

    /// Whether the `nth` interrupt of the model is lost.
    pub fn loses(&self, nth: u32) -> bool {
        self.lost.iter().any(|lost| *lost == nth || *lost == 0)
    }

    /// How many vectors there are at most.
    pub fn vectors(&self) -> Option<u16> {
        self.vectors
    }

    /// The bytes of an action.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

fn answer<K: PartialEq + Copy>(answers: &mut [Answer<K>], of: K) -> Option<u64> {
    let mut given = None;
    for answer in answers.iter_mut().filter(|answer| answer.of == of) {
        answer.seen = answer.seen.saturating_add(1);
        if answer.nth == 0 || answer.nth == answer.seen {
            given = Some(answer.value);
        }
    }
    given
}
