//! Programs out of programs.
//!
//! Mutators know what actions mean. They aim at what the driver does: a [`Sketch`] tells which
//! registers it reads and how often things happen; the constants it compares with are tried as
//! values. What is new in a program is [generated](crate::generate). Everything is a function of the
//! random numbers, the sketch and the constants.

use crate::generate::{Generator, below, index, low, nth, rarely};
use crate::program::{ARGUMENTS, Action, Edit, Mode, Program};
use crate::random::Random;
use crate::target::Target;
use crate::world::Sketch;
use arbitrary::{Result, Unstructured};

/// Actions in the longest program that is made out of another: short ones are soon run, and say more.
const GROWN: usize = 16;

/// How often a call is repeated at most: some states are many requests away.
const BURST: u32 = 8;

/// Bytes that a program is made of.
const WHOLE: usize = 512;

/// Bytes that a change is made of. The longest piece of data takes about half of them.
const CHANGE: usize = 256;

/// Makes programs for one target.
#[derive(Clone, Debug)]
pub struct Mutator {
    generator: Generator,
}

impl Mutator {
    /// For that target, without any knowledge of it yet.
    pub fn new(target: &dyn Target) -> Self {
        Self {
            generator: Generator::new(target.calls()),
        }
    }

    /// Takes note of what executions so far had in common.
    pub fn learn(&mut self, sketch: Sketch) {
        self.generator.learn(sketch);
    }

    /// Takes values that are worth trying.
    pub fn try_values(&mut self, constants: Vec<u64>) {
        self.generator.try_values(constants);
    }

    /// A program out of nothing.
    pub fn generate(&self, random: &mut Random) -> Program {
        let bytes = random.bytes::<WHOLE>();
        let program = self.generator.program(&mut Unstructured::new(&bytes));
        // Choices go on where bytes have ended.
        program.unwrap_or_default()
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
            let bytes = random.bytes::<CHANGE>();
            // As in `generate`; a change that failed would be none.
            let _ = self.change(program, other, &mut Unstructured::new(&bytes));
        }
        while program.actions.len() > GROWN {
            program.actions.remove(random.index(program.actions.len()));
        }
        program.limit();
    }

    fn change(
        &self,
        program: &mut Program,
        other: Option<&Program>,
        u: &mut Unstructured<'_>,
    ) -> Result<()> {
        let actions = &mut program.actions;
        match below(u, 16)? {
            0..4 if !actions.is_empty() => {
                let at = index(u, actions.len())?;
                self.vary(&mut actions[at], u)?;
            }
            4..8 => {
                let at = index(u, actions.len() + 1)?;
                actions.insert(at, self.generator.device_action(program.mode, u)?);
            }
            8..10 => {
                if let Some(call) = self.generator.call(u)? {
                    let at = index(u, actions.len() + 1)?;
                    let times = if rarely(u, 4)? {
                        1 + index(u, BURST as usize)?
                    } else {
                        1
                    };
                    actions.splice(at..at, std::iter::repeat_n(call, times));
                }
            }
            10 if actions.len() > 1 => {
                actions.remove(index(u, actions.len())?);
            }
            11 if !actions.is_empty() => {
                let mut copy = actions[index(u, actions.len())?].clone();
                self.vary(&mut copy, u)?;
                actions.insert(index(u, actions.len() + 1)?, copy);
            }
            12 if actions.len() > 1 => {
                let (one, other) = (index(u, actions.len())?, index(u, actions.len())?);
                actions.swap(one, other);
            }
            13 | 14 => {
                if let Some(other) = other.filter(|other| !other.actions.is_empty()) {
                    for _ in 0..=below(u, 3)? {
                        let taken = other.actions[index(u, other.actions.len())?].clone();
                        actions.insert(index(u, actions.len() + 1)?, taken);
                    }
                }
            }
            15 if rarely(u, 8)? => {
                program.mode = match program.mode {
                    Mode::Model => Mode::Hostile,
                    Mode::Hostile => Mode::Model,
                };
            }
            _ => actions.push(self.generator.device_action(program.mode, u)?),
        }
        Ok(())
    }

    fn vary(&self, action: &mut Action, u: &mut Unstructured<'_>) -> Result<()> {
        match action {
            Action::Call { call, arguments } => {
                let calls = self.generator.calls();
                let specs = calls.get(usize::from(*call)).map(|spec| spec.arguments);
                match specs {
                    Some(specs) if !specs.is_empty() => {
                        let at = index(u, specs.len())?;
                        arguments.resize(specs.len().min(ARGUMENTS), 0);
                        if let Some(argument) = arguments.get_mut(at) {
                            *argument = if rarely(u, 2)? {
                                self.generator.value(u)?
                            } else {
                                below(u, 8)?.into()
                            };
                        }
                    }
                    _ => {
                        if let Some(other) = self.generator.call(u)? {
                            *action = other;
                        }
                    }
                }
            }
            Action::Reply { nth: at, value, .. } => {
                if rarely(u, 3)? {
                    *at = nth(8, u)?;
                } else {
                    self.vary_value(value, u)?;
                }
            }
            Action::Config { nth: at, value, .. } => {
                if rarely(u, 3)? {
                    *at = nth(4, u)?;
                } else {
                    let mut wide = u64::from(*value);
                    self.vary_value(&mut wide, u)?;
                    *value = low(wide);
                }
            }
            Action::Edit {
                carried,
                nth: at,
                edit,
            } => match (below(u, 3)?, &mut *edit) {
                (0, _) => *at = nth(self.generator.writes(*carried), u)?,
                (1, Edit::Overwrite { bytes, .. }) => self.vary_bytes(bytes, u)?,
                (1, Edit::Repeat { slot }) => *slot = 1 << below(u, 8)?,
                _ => *edit = self.generator.edit(*carried, u)?,
            },
            Action::Poke {
                when,
                mapping,
                offset,
                bytes,
            } => match below(u, 4)? {
                0 => *when = self.generator.trigger(u)?,
                1 | 2 => (*mapping, *offset) = self.generator.spot(u)?,
                _ => self.vary_bytes(bytes, u)?,
            },
            Action::Interrupt { when, .. } | Action::Remove { when } => {
                *when = self.generator.trigger(u)?;
            }
            Action::Lose { nth: at } => *at = nth(8, u)?,
            Action::Vectors { most } => *most = u16::try_from(below(u, 4)?).unwrap_or(0),
            Action::Stall { when, micros } => {
                if rarely(u, 2)? {
                    *when = self.generator.trigger(u)?;
                } else {
                    *micros = 1 << below(u, 20)?;
                }
            }
            Action::Answers { bytes } => self.vary_bytes(bytes, u)?,
        }
        Ok(())
    }

    fn vary_value(&self, value: &mut u64, u: &mut Unstructured<'_>) -> Result<()> {
        *value = match below(u, 6)? {
            0 => *value ^ (1 << below(u, 64)?),
            1 => value.wrapping_add(1 + u64::from(below(u, 16)?)),
            2 => value.wrapping_sub(1 + u64::from(below(u, 16)?)),
            3 => *value ^ (u64::from(below(u, 256)?) << (8 * below(u, 8)?)),
            _ => self.generator.value(u)?,
        };
        Ok(())
    }

    fn vary_bytes(&self, bytes: &mut Vec<u8>, u: &mut Unstructured<'_>) -> Result<()> {
        match below(u, 8)? {
            0 => bytes.extend(self.generator.bytes(8, u)?),
            1 => {
                bytes.truncate(index(u, bytes.len() + 1)?);
            }
            2 | 3 => {
                let width = 1_usize << below(u, 4)?;
                let at = index(u, bytes.len() + 1)?;
                let value = self.generator.value(u)?.to_le_bytes();
                for (place, byte) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                    *place = *byte;
                }
            }
            _ => {
                let at = index(u, bytes.len())?;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match below(u, 3)? {
                        0 => *byte ^ (1 << below(u, 8)?),
                        1 => byte.wrapping_add(1),
                        _ => u.arbitrary()?,
                    };
                }
            }
        }
        Ok(())
    }
}
