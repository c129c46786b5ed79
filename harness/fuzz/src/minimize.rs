//! Smaller programs that show the same.

use crate::program::{Action, Edit, Mode, Program, Trigger};

/// Executions that a minimisation may take.
const TRIES: u32 = 4000;

/// The smallest program found for which `shows` still holds, and the tries it took. `shows` must
/// hold for `program`, and say the same each time.
///
/// Delta debugging on the actions, then on what each of them says.
pub fn minimize(program: &Program, mut shows: impl FnMut(&Program) -> bool) -> (Program, u32) {
    let mut best = program.clone();
    let mut tries = 0;
    let mut test = |candidate: &Program, tries: &mut u32| {
        *tries += 1;
        *tries <= TRIES && shows(candidate)
    };
    loop {
        let before = best.clone();
        remove_actions(&mut best, &mut tries, &mut test);
        simplify(&mut best, &mut tries, &mut test);
        if best == before || tries >= TRIES {
            return (best, tries);
        }
    }
}

type Test<'a> = &'a mut dyn FnMut(&Program, &mut u32) -> bool;

fn remove_actions(best: &mut Program, tries: &mut u32, test: Test<'_>) {
    let mut chunk = best.actions.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < best.actions.len() {
            let mut candidate = best.clone();
            let end = (at + chunk).min(candidate.actions.len());
            candidate.actions.drain(at..end);
            if test(&candidate, tries) {
                *best = candidate;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
}

fn simplify(best: &mut Program, tries: &mut u32, test: Test<'_>) {
    if best.mode == Mode::Hostile {
        let mut candidate = best.clone();
        candidate.mode = Mode::Model;
        if test(&candidate, tries) {
            *best = candidate;
        }
    }
    for at in 0..best.actions.len() {
        // Each accepted change makes the action simpler, so this ends.
        while let Some(candidate) = simpler(&best.actions[at]).into_iter().find_map(|action| {
            let mut candidate = best.clone();
            candidate.actions[at] = action;
            test(&candidate, tries).then_some(candidate)
        }) {
            *best = candidate;
        }
    }
}

/// Actions that say less, the simplest first.
fn simpler(action: &Action) -> Vec<Action> {
    let mut out = Vec::new();
    match action {
        Action::Call { call, arguments } => {
            for at in 0..arguments.len() {
                for value in lesser(arguments[at]) {
                    let mut arguments = arguments.clone();
                    arguments[at] = value;
                    let call = *call;
                    out.push(Action::Call { call, arguments });
                }
            }
        }
        Action::Reply {
            register,
            nth,
            value,
        } => {
            let (register, nth) = (*register, *nth);
            out.extend(lesser(*value).map(|value| Action::Reply {
                register,
                nth,
                value,
            }));
        }
        Action::Config { offset, nth, value } => {
            let (offset, nth) = (*offset, *nth);
            let values = lesser((*value).into()).filter_map(|value| u32::try_from(value).ok());
            out.extend(values.map(|value| Action::Config { offset, nth, value }));
        }
        Action::Edit { carried, nth, edit } => {
            let (carried, nth) = (*carried, *nth);
            if let Edit::Overwrite { offset, bytes } = edit {
                let offset = *offset;
                out.extend(fewer(bytes).map(|bytes| Action::Edit {
                    carried,
                    nth,
                    edit: Edit::Overwrite { offset, bytes },
                }));
            }
        }
        Action::Poke {
            when,
            mapping,
            offset,
            bytes,
        } => {
            let (mapping, offset) = (*mapping, *offset);
            out.extend(sooner(*when).map(|when| Action::Poke {
                when,
                mapping,
                offset,
                bytes: bytes.clone(),
            }));
            out.extend(fewer(bytes).map(|bytes| Action::Poke {
                when: *when,
                mapping,
                offset,
                bytes,
            }));
        }
        Action::Interrupt { when, vector } => {
            let vector = *vector;
            out.extend(sooner(*when).map(|when| Action::Interrupt { when, vector }));
        }
        Action::Stall { when, micros } => {
            let micros = *micros;
            out.extend(sooner(*when).map(|when| Action::Stall { when, micros }));
        }
        Action::Remove { when } => out.extend(sooner(*when).map(|when| Action::Remove { when })),
        Action::Answers { bytes } => {
            out.extend(fewer(bytes).map(|bytes| Action::Answers { bytes }))
        }
        Action::Lose { .. } | Action::Vectors { .. } => {}
    }
    out
}

fn lesser(value: u64) -> impl Iterator<Item = u64> {
    let candidates = [
        0,
        1,
        value & 0xff,
        value & 0xffff,
        value & 0xffff_ffff,
        value / 2,
        value.saturating_sub(1),
    ];
    // One less at a time only where that soon ends.
    let smaller =
        move |candidate: &u64| *candidate < value && (value < 64 || value - candidate > 1);
    candidates.into_iter().filter(smaller)
}

fn sooner(when: Trigger) -> impl Iterator<Item = Trigger> {
    let earlier = [1, when.nth / 2, when.nth.saturating_sub(1)];
    earlier
        .into_iter()
        .filter(move |nth| *nth >= 1 && *nth < when.nth)
        .map(move |nth| Trigger { nth, ..when })
}

/// Shorter, or with a byte that is zero.
fn fewer(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let shorter = [0, bytes.len() / 2, bytes.len().saturating_sub(1)];
    let cut = shorter
        .into_iter()
        .filter(|len| *len < bytes.len())
        .map(|len| bytes[..len].to_vec());
    let zeroed = (0..bytes.len()).filter(|at| bytes[*at] != 0).map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at] = 0;
        bytes
    });
    cut.chain(zeroed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(argument: u64) -> Action {
        Action::Call {
            call: 0,
            arguments: vec![argument],
        }
    }

    #[test]
    fn what_does_not_matter_goes() {
        let mut program = Program {
            mode: Mode::Model,
            actions: (0..20).map(call).collect(),
        };
        program.actions.insert(7, Action::Lose { nth: 3 });

        let (small, tries) = minimize(&program, |program| {
            program.actions.contains(&Action::Lose { nth: 3 })
                && program.actions.iter().any(
                    |action| matches!(action, Action::Call { arguments, .. } if arguments[0] >= 5),
                )
        });

        assert_eq!(small.actions, [Action::Lose { nth: 3 }, call(5)]);
        assert!(tries < TRIES, "{tries}");
    }

    #[test]
    fn bytes_shrink_to_those_that_matter() {
        let bytes = vec![7; 100];
        let program = Program {
            mode: Mode::Hostile,
            actions: vec![Action::Answers { bytes }],
        };

        let (small, _) = minimize(&program, |program| {
            program.mode == Mode::Hostile
                && matches!(&program.actions[..], [Action::Answers { bytes }] if bytes.get(2) == Some(&7))
        });

        let bytes = vec![0, 0, 7];
        assert_eq!(small.actions, [Action::Answers { bytes }]);
    }
}
