//! Programs out of programs.
//!
//! Mutators know what actions mean. They aim at what the driver does: a [`Sketch`] tells which
//! registers it reads and how often things happen; the constants it compares with are tried as
//! values. Everything is a function of the random numbers, the sketch and the constants.

use crate::program::{
    ARGUMENTS, Action, CARRIED, Carried, EVENTS, Edit, Event, Mode, Program, Register, Trigger,
};
use crate::random::Random;
use crate::target::{CallSpec, Target};
use crate::world::{Sketch, Spot};

/// Numbers at the edges of things.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    0x10,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];

/// Actions in the longest program that is made out of another: short ones are soon run, and say more.
const GROWN: usize = 16;

/// Bytes in the longest run of one value that overwrites data: a field of a structure is hit more
/// often than one guesses where it is.
const FLOOD: u32 = 128;

/// How often a call is repeated at most: some states are many requests away.
const BURST: u32 = 8;

/// Makes programs for one target.
#[derive(Clone, Debug)]
pub struct Mutator {
    calls: &'static [CallSpec],
    sketch: Sketch,
    /// Its places, one after the other.
    places: Vec<Spot>,
    /// Values worth trying.
    pub constants: Vec<u64>,
}

impl Mutator {
    /// For that target, without any knowledge of it yet.
    pub fn new(target: &dyn Target) -> Self {
        Self {
            calls: target.calls(),
            sketch: Sketch::default(),
            places: Vec::new(),
            constants: Vec::new(),
        }
    }

    /// Takes note of what executions so far had in common.
    pub fn learn(&mut self, sketch: Sketch) {
        self.places = sketch.places.iter().collect();
        self.sketch = sketch;
    }

    /// A program out of nothing.
    pub fn generate(&self, random: &mut Random) -> Program {
        let mut program = Program {
            mode: if random.once_in(8) {
                Mode::Hostile
            } else {
                Mode::Model
            },
            actions: Vec::new(),
        };
        for _ in 0..=random.below(4) {
            program.actions.extend(self.call(random));
        }
        if program.mode == Mode::Hostile {
            program.actions.push(Action::Answers {
                bytes: self.bytes(random, 64),
            });
        }
        for _ in 0..random.below(4) {
            program
                .actions
                .push(self.device_action(program.mode, random));
        }
        program.limit();
        program
    }

    /// Changes a program in some places, with pieces of `other` now and then.
    pub fn mutate(&self, program: &mut Program, other: Option<&Program>, random: &mut Random) {
        let rounds = 1
            + random.below(3)
            + if random.once_in(8) {
                random.below(8)
            } else {
                0
            };
        for _ in 0..rounds {
            self.change(program, other, random);
        }
        while program.actions.len() > GROWN {
            program.actions.remove(random.index(program.actions.len()));
        }
        program.limit();
    }

    fn change(&self, program: &mut Program, other: Option<&Program>, random: &mut Random) {
        let actions = &mut program.actions;
        match random.below(16) {
            0..4 if !actions.is_empty() => {
                let at = random.index(actions.len());
                self.vary(&mut actions[at], random);
            }
            4..8 => {
                let at = random.index(actions.len() + 1);
                actions.insert(at, self.device_action(program.mode, random));
            }
            8..10 => {
                if let Some(call) = self.call(random) {
                    let at = random.index(actions.len() + 1);
                    let times = if random.once_in(4) {
                        1 + random.index(BURST as usize)
                    } else {
                        1
                    };
                    actions.splice(at..at, std::iter::repeat_n(call, times));
                }
            }
            10 if actions.len() > 1 => {
                actions.remove(random.index(actions.len()));
            }
            11 if !actions.is_empty() => {
                let mut copy = actions[random.index(actions.len())].clone();
                self.vary(&mut copy, random);
                actions.insert(random.index(actions.len() + 1), copy);
            }
            12 if actions.len() > 1 => {
                let (one, other) = (random.index(actions.len()), random.index(actions.len()));
                actions.swap(one, other);
            }
            13 | 14 => {
                if let Some(other) = other.filter(|other| !other.actions.is_empty()) {
                    for _ in 0..=random.below(3) {
                        let taken = other.actions[random.index(other.actions.len())].clone();
                        actions.insert(random.index(actions.len() + 1), taken);
                    }
                }
            }
            15 if random.once_in(8) => {
                program.mode = match program.mode {
                    Mode::Model => Mode::Hostile,
                    Mode::Hostile => Mode::Model,
                };
            }
            _ => actions.push(self.device_action(program.mode, random)),
        }
    }

    fn call(&self, random: &mut Random) -> Option<Action> {
        let call = random.index(self.calls.len());
        let spec = self.calls.get(call)?;
        let arguments = spec.arguments.iter().take(ARGUMENTS).map(|argument| {
            let span = argument.most.saturating_sub(argument.least);
            match random.below(8) {
                0 => argument.most,
                1 => argument.least,
                // Small ones go together with what else is small.
                2..6 => argument.least + random.number() % span.min(8).saturating_add(1),
                _ => match span.checked_add(1) {
                    Some(span) => argument.least + random.number() % span,
                    None => random.number(),
                },
            }
        });
        Some(Action::Call {
            call: u16::try_from(call).ok()?,
            arguments: arguments.collect(),
        })
    }

    /// Something the device does.
    fn device_action(&self, mode: Mode, random: &mut Random) -> Action {
        if mode == Mode::Hostile && random.once_in(3) {
            return Action::Answers {
                bytes: self.bytes(random, 64),
            };
        }
        match random.below(24) {
            0..7 => Action::Reply {
                register: self.register(random),
                nth: nth(random, 4),
                value: self.value(random),
            },
            7..16 => {
                let carried = self.carried(random);
                let most = self.sketch.carried[carried as usize];
                Action::Edit {
                    carried,
                    nth: nth(random, most.clamp(1, 16)),
                    edit: self.edit(carried, random),
                }
            }
            16..19 => {
                let (mapping, offset) = self.spot(random);
                Action::Poke {
                    when: self.trigger(random),
                    mapping,
                    offset,
                    bytes: self.bytes(random, 16),
                }
            }
            19 => Action::Config {
                offset: random.pick(&self.sketch.configs).copied().unwrap_or(0),
                nth: nth(random, 2),
                value: low(self.value(random)),
            },
            20 => Action::Interrupt {
                when: self.trigger(random),
                vector: u16::try_from(random.below(4)).unwrap_or(0),
            },
            21 if random.once_in(4) => Action::Vectors {
                most: u16::try_from(random.below(4)).unwrap_or(0),
            },
            21 => Action::Lose {
                nth: nth(random, 4),
            },
            22 => Action::Stall {
                when: self.trigger(random),
                micros: 1 << random.below(20),
            },
            _ => Action::Remove {
                when: self.trigger(random),
            },
        }
    }

    fn edit(&self, carried: Carried, random: &mut Random) -> Edit {
        match random.below(16) {
            0 => Edit::Drop,
            1 => Edit::Repeat {
                slot: *random.pick(&[0, 4, 8, 16]).unwrap_or(&0),
            },
            _ => {
                let (offset, width) = match carried {
                    Carried::Payload if random.once_in(4) => return self.flood(random),
                    Carried::Payload => (self.offset(random), 1 << random.below(4)),
                    Carried::Publish => (0, 1 << random.below(2)),
                    // Often a byte, but the header of a packet has fields.
                    Carried::Status if random.once_in(2) => (0, 1 << random.below(2)),
                    Carried::Status => (4 * random.below(16), 1 << random.below(3)),
                    _ => (4 * random.below(4), 1 << random.below(3)),
                };
                let value = self.value(random).to_le_bytes();
                Edit::Overwrite {
                    offset,
                    bytes: value[..width].to_vec(),
                }
            }
        }
    }

    /// One value all over a part of the data.
    fn flood(&self, random: &mut Random) -> Edit {
        let value = self.value(random).to_le_bytes();
        let width = 1_usize << random.below(4);
        let len = 1 + random.index(FLOOD as usize);
        Edit::Overwrite {
            offset: 16 * random.below(32),
            bytes: value[..width].iter().copied().cycle().take(len).collect(),
        }
    }

    /// A place in mapped memory: where somebody looked or wrote, or any.
    fn spot(&self, random: &mut Random) -> Spot {
        match random.pick(&self.places) {
            Some((mapping, offset)) if !random.once_in(3) => {
                // Fields follow one another.
                let next = if random.once_in(3) {
                    4 * random.below(4)
                } else {
                    0
                };
                (*mapping, offset + next)
            }
            _ => (
                u16::try_from(random.below(self.sketch.maps.clamp(1, 64))).unwrap_or(0),
                self.offset(random),
            ),
        }
    }

    fn vary(&self, action: &mut Action, random: &mut Random) {
        match action {
            Action::Call { call, arguments } => {
                let specs = self
                    .calls
                    .get(usize::from(*call))
                    .map(|spec| spec.arguments);
                match specs {
                    Some(specs) if !specs.is_empty() => {
                        let at = random.index(specs.len());
                        arguments.resize(specs.len().min(ARGUMENTS), 0);
                        if let Some(argument) = arguments.get_mut(at) {
                            *argument = if random.once_in(2) {
                                self.value(random)
                            } else {
                                random.below(8).into()
                            };
                        }
                    }
                    _ => {
                        if let Some(other) = self.call(random) {
                            *action = other;
                        }
                    }
                }
            }
            Action::Reply { nth: at, value, .. } => {
                if random.once_in(3) {
                    *at = nth(random, 8);
                } else {
                    self.vary_value(value, random);
                }
            }
            Action::Config { nth: at, value, .. } => {
                if random.once_in(3) {
                    *at = nth(random, 4);
                } else {
                    let mut wide = u64::from(*value);
                    self.vary_value(&mut wide, random);
                    *value = low(wide);
                }
            }
            Action::Edit {
                carried,
                nth: at,
                edit,
            } => match (random.below(3), &mut *edit) {
                (0, _) => *at = nth(random, self.sketch.carried[*carried as usize].clamp(1, 16)),
                (1, Edit::Overwrite { bytes, .. }) => self.vary_bytes(bytes, random),
                (1, Edit::Repeat { slot }) => *slot = 1 << random.below(8),
                _ => *edit = self.edit(*carried, random),
            },
            Action::Poke {
                when,
                mapping,
                offset,
                bytes,
            } => match random.below(4) {
                0 => *when = self.trigger(random),
                1 | 2 => (*mapping, *offset) = self.spot(random),
                _ => self.vary_bytes(bytes, random),
            },
            Action::Interrupt { when, .. } | Action::Remove { when } => {
                *when = self.trigger(random);
            }
            Action::Lose { nth: at } => *at = nth(random, 8),
            Action::Vectors { most } => *most = u16::try_from(random.below(4)).unwrap_or(0),
            Action::Stall { when, micros } => {
                if random.once_in(2) {
                    *when = self.trigger(random);
                } else {
                    *micros = 1 << random.below(20);
                }
            }
            Action::Answers { bytes } => self.vary_bytes(bytes, random),
        }
    }

    fn vary_value(&self, value: &mut u64, random: &mut Random) {
        *value = match random.below(6) {
            0 => *value ^ (1 << random.below(64)),
            1 => value.wrapping_add(1 + u64::from(random.below(16))),
            2 => value.wrapping_sub(1 + u64::from(random.below(16))),
            3 => *value ^ (u64::from(random.below(256)) << (8 * random.below(8))),
            _ => self.value(random),
        };
    }

    fn vary_bytes(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        match random.below(8) {
            0 => bytes.extend(self.bytes(random, 8)),
            1 => {
                bytes.truncate(random.index(bytes.len() + 1));
            }
            2 | 3 => {
                let width = 1_usize << random.below(4);
                let at = random.index(bytes.len() + 1);
                let value = self.value(random).to_le_bytes();
                for (place, byte) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                    *place = *byte;
                }
            }
            _ => {
                let at = random.index(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match random.below(3) {
                        0 => *byte ^ (1 << random.below(8)),
                        1 => byte.wrapping_add(1),
                        _ => byte_of(random),
                    };
                }
            }
        }
    }

    fn value(&self, random: &mut Random) -> u64 {
        match random.below(8) {
            0..4 => *random.pick(&EDGES).unwrap_or(&0),
            4 if !self.constants.is_empty() => {
                let constant = *random.pick(&self.constants).unwrap_or(&0);
                match random.below(4) {
                    0 => constant.wrapping_add(1),
                    1 => constant.wrapping_sub(1),
                    _ => constant,
                }
            }
            5 => 1 << random.below(64),
            6 => random.below(64).into(),
            _ => random.number() >> (8 * random.below(8)),
        }
    }

    fn bytes(&self, random: &mut Random, most: u32) -> Vec<u8> {
        let len = 1 + random.below(most);
        let mut bytes = Vec::new();
        while bytes.len() < len as usize {
            if random.once_in(3) {
                let width = 1_usize << random.below(4);
                bytes.extend_from_slice(&self.value(random).to_le_bytes()[..width]);
            } else {
                bytes.push(byte_of(random));
            }
        }
        bytes
    }

    fn offset(&self, random: &mut Random) -> u32 {
        match random.below(4) {
            0 => 0,
            1 => 2 * random.below(8),
            2 => random.below(64),
            _ => 4 * random.below(256),
        }
    }

    fn register(&self, random: &mut Random) -> Register {
        let known = random.pick(&self.sketch.registers).copied();
        known.unwrap_or(Register {
            bar: 0,
            offset: 4 * random.below(64),
        })
    }

    fn carried(&self, random: &mut Random) -> Carried {
        let seen: Vec<Carried> = CARRIED
            .into_iter()
            .filter(|carried| self.sketch.carried[*carried as usize] > 0)
            .collect();
        random.pick(&seen).copied().unwrap_or(Carried::Payload)
    }

    fn trigger(&self, random: &mut Random) -> Trigger {
        let event = EVENTS[random.index(EVENTS.len())];
        let most = match event {
            Event::Poll => 8,
            event => self.sketch.counts[event as usize].clamp(1, 64),
        };
        Trigger {
            event,
            nth: 1 + random.below(most),
        }
    }
}

/// A count from 1 to about `most`, small ones first; now and then all.
fn nth(random: &mut Random, most: u32) -> u32 {
    match random.below(6) {
        0 => 0,
        1..4 => 1 + random.below(most.min(3)),
        _ => 1 + random.below(most),
    }
}

fn byte_of(random: &mut Random) -> u8 {
    random.number().to_le_bytes()[0]
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}
