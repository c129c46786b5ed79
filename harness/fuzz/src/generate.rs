//! Programs out of bytes.
//!
//! Whoever has bytes gets a program: the campaign's mutators draw them from its random numbers, another
//! fuzzer brings its own. The [`Unstructured`] bytes make choices among what makes sense: registers that
//! the driver reads and counts that events reach, as a [`Sketch`] tells, values at the edges of things or
//! compared with. Any bytes make a valid program, and where they end the simplest choices follow.

use crate::program::{
    ARGUMENTS, Action, CARRIED, Carried, Edit, Event, Mode, Program, Register, Trigger,
};
use crate::target::CallSpec;
use crate::world::{Sketch, Spot};
use arbitrary::{Result, Unstructured};

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

/// Bytes in the longest run of one value that overwrites data: a field of a structure is hit more
/// often than one guesses where it is.
const FLOOD: u32 = 128;

/// Calls, and deeds of the device, in most programs.
const SHORT: u32 = 4;

/// In the others.
const LONG: u32 = 16;

/// Makes programs and actions for one target.
#[derive(Clone, Debug)]
pub struct Generator {
    calls: &'static [CallSpec],
    sketch: Sketch,
    /// Its places, one after the other.
    places: Vec<Spot>,
    constants: Vec<u64>,
}

impl Generator {
    /// For a target with these calls, without any knowledge of it yet.
    pub fn new(calls: &'static [CallSpec]) -> Self {
        Self {
            calls,
            sketch: Sketch::default(),
            places: Vec::new(),
            constants: Vec::new(),
        }
    }

    /// Takes note of what executions so far had in common. The same bytes mean another program then.
    pub fn learn(&mut self, sketch: Sketch) {
        self.places = sketch.places.iter().collect();
        self.sketch = sketch;
    }

    /// Takes values that are worth trying; as with [`Self::learn`], bytes change their meaning.
    pub fn try_values(&mut self, constants: Vec<u64>) {
        self.constants = constants;
    }

    /// The target's calls.
    pub fn calls(&self) -> &'static [CallSpec] {
        self.calls
    }

    /// A program.
    ///
    /// # Errors
    ///
    /// None: choices go on where bytes have ended. The type is that of [`arbitrary`].
    pub fn program(&self, u: &mut Unstructured<'_>) -> Result<Program> {
        let mode = match rarely(u, 8)? {
            true => Mode::Hostile,
            false => Mode::Model,
        };
        let mut program = Program {
            mode,
            actions: Vec::new(),
        };
        for _ in 0..=count(u)? {
            program.actions.extend(self.call(u)?);
        }
        if mode == Mode::Hostile {
            let bytes = self.bytes(64, u)?;
            program.actions.push(Action::Answers { bytes });
        }
        for _ in 0..count(u)? {
            program.actions.push(self.device_action(mode, u)?);
        }
        program.limit();
        Ok(program)
    }

    /// A call of the workload, if the target has any.
    pub(crate) fn call(&self, u: &mut Unstructured<'_>) -> Result<Option<Action>> {
        if self.calls.is_empty() {
            return Ok(None);
        }
        let call = u.choose_index(self.calls.len())?;
        let specs = self.calls[call].arguments.iter().take(ARGUMENTS);
        let mut arguments = Vec::with_capacity(specs.len());
        for argument in specs {
            let (least, most) = (argument.least, argument.most.max(argument.least));
            arguments.push(match below(u, 8)? {
                0 => argument.most,
                1 => argument.least,
                // Small ones go together with what else is small.
                2..6 => u.int_in_range(least..=most.min(least.saturating_add(8)))?,
                _ => u.int_in_range(least..=most)?,
            });
        }
        Ok(Some(Action::Call {
            call: u16::try_from(call).unwrap_or(u16::MAX),
            arguments,
        }))
    }

    /// Something the device does.
    pub(crate) fn device_action(&self, mode: Mode, u: &mut Unstructured<'_>) -> Result<Action> {
        if mode == Mode::Hostile && rarely(u, 3)? {
            let bytes = self.bytes(64, u)?;
            return Ok(Action::Answers { bytes });
        }
        Ok(match below(u, 24)? {
            0..7 => Action::Reply {
                register: self.register(u)?,
                nth: nth(4, u)?,
                value: self.value(u)?,
            },
            7..16 => {
                let carried = self.carried(u)?;
                Action::Edit {
                    carried,
                    nth: nth(self.writes(carried), u)?,
                    edit: self.edit(carried, u)?,
                }
            }
            16..19 => {
                let (mapping, offset) = self.spot(u)?;
                Action::Poke {
                    when: self.trigger(u)?,
                    mapping,
                    offset,
                    bytes: self.bytes(16, u)?,
                }
            }
            19 => Action::Config {
                offset: choose(u, &self.sketch.configs)?.unwrap_or(0),
                nth: nth(2, u)?,
                value: low(self.value(u)?),
            },
            20 => Action::Interrupt {
                when: self.trigger(u)?,
                vector: u.int_in_range(0..=3)?,
            },
            21 if rarely(u, 4)? => Action::Vectors {
                most: u.int_in_range(0..=3)?,
            },
            21 => Action::Lose { nth: nth(4, u)? },
            22 => Action::Stall {
                when: self.trigger(u)?,
                micros: 1 << below(u, 20)?,
            },
            _ => Action::Remove {
                when: self.trigger(u)?,
            },
        })
    }

    /// What happens to a write that carries that.
    pub(crate) fn edit(&self, carried: Carried, u: &mut Unstructured<'_>) -> Result<Edit> {
        Ok(match below(u, 16)? {
            0 => Edit::Drop,
            1 => Edit::Repeat {
                slot: *u.choose(&[0, 4, 8, 16])?,
            },
            _ => {
                let (offset, width) = match carried {
                    Carried::Payload if rarely(u, 4)? => return self.flood(u),
                    Carried::Payload => (self.offset(u)?, 1 << below(u, 4)?),
                    Carried::Publish => (0, 1 << below(u, 2)?),
                    // Often a byte, but the header of a packet has fields.
                    Carried::Status if rarely(u, 2)? => (0, 1 << below(u, 2)?),
                    Carried::Status => (4 * below(u, 16)?, 1 << below(u, 3)?),
                    _ => (4 * below(u, 4)?, 1 << below(u, 3)?),
                };
                let value = self.value(u)?.to_le_bytes();
                Edit::Overwrite {
                    offset,
                    bytes: value[..width].to_vec(),
                }
            }
        })
    }

    /// One value all over a part of the data.
    fn flood(&self, u: &mut Unstructured<'_>) -> Result<Edit> {
        let value = self.value(u)?.to_le_bytes();
        let width = 1_usize << below(u, 4)?;
        let len = 1 + below(u, FLOOD)? as usize;
        Ok(Edit::Overwrite {
            offset: 16 * below(u, 32)?,
            bytes: value[..width].iter().copied().cycle().take(len).collect(),
        })
    }

    /// A place in mapped memory: where somebody looked or wrote, or any.
    pub(crate) fn spot(&self, u: &mut Unstructured<'_>) -> Result<Spot> {
        let known = choose(u, &self.places)?;
        Ok(match known {
            Some((mapping, offset)) if !rarely(u, 3)? => {
                // Fields follow one another.
                let next = match rarely(u, 3)? {
                    true => 4 * below(u, 4)?,
                    false => 0,
                };
                (mapping, offset.saturating_add(next))
            }
            _ => {
                let most = self.sketch.maps.clamp(1, 64);
                let mapping = u16::try_from(below(u, most)?).unwrap_or(0);
                (mapping, self.offset(u)?)
            }
        })
    }

    /// A value that may mean something.
    pub(crate) fn value(&self, u: &mut Unstructured<'_>) -> Result<u64> {
        Ok(match below(u, 8)? {
            0..4 => *u.choose(&EDGES)?,
            4 if !self.constants.is_empty() => {
                let constant = *u.choose(&self.constants)?;
                match below(u, 4)? {
                    0 => constant.wrapping_add(1),
                    1 => constant.wrapping_sub(1),
                    _ => constant,
                }
            }
            5 => 1 << below(u, 64)?,
            6 => below(u, 64)?.into(),
            _ => {
                let shift = 8 * below(u, 8)?;
                u.int_in_range(0..=u64::MAX >> shift)?
            }
        })
    }

    /// From one byte to `most`.
    pub(crate) fn bytes(&self, most: u32, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let len = 1 + below(u, most)? as usize;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            if rarely(u, 3)? {
                let width = 1_usize << below(u, 4)?;
                bytes.extend_from_slice(&self.value(u)?.to_le_bytes()[..width]);
            } else {
                bytes.push(u.arbitrary()?);
            }
        }
        Ok(bytes)
    }

    fn offset(&self, u: &mut Unstructured<'_>) -> Result<u32> {
        Ok(match below(u, 4)? {
            0 => 0,
            1 => 2 * below(u, 8)?,
            2 => below(u, 64)?,
            _ => 4 * below(u, 256)?,
        })
    }

    fn register(&self, u: &mut Unstructured<'_>) -> Result<Register> {
        Ok(match choose(u, &self.sketch.registers)? {
            Some(known) => known,
            None => Register {
                bar: 0,
                offset: 4 * below(u, 64)?,
            },
        })
    }

    fn carried(&self, u: &mut Unstructured<'_>) -> Result<Carried> {
        let mut seen = [Carried::Payload; CARRIED.len()];
        let mut count = 0;
        for carried in CARRIED {
            if self.sketch.carried[carried as usize] > 0 {
                seen[count] = carried;
                count += 1;
            }
        }
        match choose(u, &seen[..count])? {
            Some(seen) => Ok(seen),
            None => u.arbitrary(),
        }
    }

    /// How many writes of that kind an execution has at most.
    pub(crate) fn writes(&self, carried: Carried) -> u32 {
        self.sketch.carried[carried as usize].clamp(1, 16)
    }

    /// A moment that comes.
    pub(crate) fn trigger(&self, u: &mut Unstructured<'_>) -> Result<Trigger> {
        let event: Event = u.arbitrary()?;
        let most = match event {
            Event::Poll => 8,
            event => self.sketch.counts[event as usize].clamp(1, 64),
        };
        Ok(Trigger {
            event,
            nth: 1 + below(u, most)?,
        })
    }
}

/// Below `bound`; 0 if that is 0.
pub(crate) fn below(u: &mut Unstructured<'_>, bound: u32) -> Result<u32> {
    u.int_in_range(0..=bound.saturating_sub(1))
}

/// An index of something that long; 0 if that is nothing.
pub(crate) fn index(u: &mut Unstructured<'_>, len: usize) -> Result<usize> {
    u.int_in_range(0..=len.saturating_sub(1))
}

/// One time in `of`, and not where bytes have ended.
pub(crate) fn rarely(u: &mut Unstructured<'_>, of: u32) -> Result<bool> {
    Ok(below(u, of)? == of - 1)
}

/// One of them, if there are any.
fn choose<T: Copy>(u: &mut Unstructured<'_>, of: &[T]) -> Result<Option<T>> {
    Ok(of.get(index(u, of.len())?).copied())
}

/// How many more, most often few.
fn count(u: &mut Unstructured<'_>) -> Result<u32> {
    let most = if rarely(u, 16)? { LONG } else { SHORT };
    below(u, most)
}

/// A count from 1 to about `most`, small ones first; now and then all.
pub(crate) fn nth(most: u32, u: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match below(u, 6)? {
        0 => 0,
        1..4 => 1 + below(u, most.min(3))?,
        _ => 1 + below(u, most)?,
    })
}

/// Half of a value.
pub(crate) fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{ACTIONS, BYTES, text};
    use crate::random::Random;
    use crate::target::Argument;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::mem::discriminant;

    const CALLS: &[CallSpec] = &[
        CallSpec {
            name: "write",
            arguments: &[
                Argument {
                    name: "sector",
                    least: 0,
                    most: u64::MAX,
                },
                Argument {
                    name: "count",
                    least: 3,
                    most: 3,
                },
            ],
        },
        CallSpec {
            name: "flush",
            arguments: &[],
        },
    ];

    fn program(bytes: &[u8]) -> Program {
        let generator = Generator::new(CALLS);
        let mut u = Unstructured::new(bytes);
        generator.program(&mut u).expect("bytes are never short")
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_program_that_text_can_say(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        ) {
            let program = program(&bytes);
            let mut limited = program.clone();
            limited.limit();

            let text = text::print(&program, "disk", CALLS);
            let again = text::parse(&text, CALLS).expect("a program");

            prop_assert_eq!(&again.program, &program);
            prop_assert_eq!(&limited, &program);
            prop_assert!(program.actions.len() <= ACTIONS);
        }
    }

    #[test]
    fn bytes_reach_every_kind_of_action() {
        let mut random = Random::new(1);
        let (mut kinds, mut edits, mut events) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut hostile, mut longest) = (0, 0);
        for _ in 0..5000 {
            let program = program(&random.bytes::<BYTES>());
            hostile += usize::from(program.mode == Mode::Hostile);
            longest = longest.max(program.actions.len());
            for action in &program.actions {
                kinds.insert(discriminant(action));
                match action {
                    Action::Edit { edit, .. } => {
                        edits.insert(discriminant(edit));
                    }
                    Action::Remove { when } => {
                        events.insert(discriminant(&when.event));
                    }
                    _ => {}
                }
            }
        }

        assert_eq!((kinds.len(), edits.len(), events.len()), (11, 3, 8));
        assert!((250..1250).contains(&hostile), "{hostile} of 5000");
        assert!(longest > 16, "{longest} actions at most");
    }

    #[test]
    fn no_bytes_are_the_simplest_program() {
        let call = Action::Call {
            call: 0,
            arguments: vec![u64::MAX, 3],
        };
        assert_eq!(program(&[]).actions, [call]);
    }
}
