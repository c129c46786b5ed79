//! Programs as text: a version line, then one action a line.
//!
//! ```text
//! cofferdam program 1
//! target virtio-blk
//! mode model
//! call read 0 1
//! reply 4:0x14 #2 = 0xff
//! edit completion #1 +0 = ffff0000
//! poke write #3 m1 +2 = 0100
//! ```
//!
//! What follows `#` and a blank is a comment. Numbers are decimal or, with `0x`, hexadecimal; bytes are
//! hexadecimal digits. Calls go by their names, so a program survives that the target gets new ones.

use super::{Action, CARRIED, Carried, EVENTS, Edit, Event, Mode, Program, Register, Trigger};
use crate::target::CallSpec;
use std::fmt::Write as _;
use thiserror::Error;

/// The first line of every program. A change that old programs do not survive changes the number.
const VERSION: &str = "cofferdam program 1";

/// A program that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {why}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub why: String,
}

/// A program as text. Actions that no text can say (a call that the target does not have) are left
/// out: they do nothing.
pub fn print(program: &Program, target: &str, calls: &[CallSpec]) -> String {
    let mode = match program.mode {
        Mode::Model => "model",
        Mode::Hostile => "hostile",
    };
    let mut text = format!("{VERSION}\ntarget {target}\nmode {mode}\n");
    for action in &program.actions {
        if line(action, calls, &mut text).is_some() {
            text.push('\n');
        }
    }
    text
}

/// One action as text.
pub fn print_action(action: &Action, calls: &[CallSpec]) -> Option<String> {
    let mut text = String::new();
    line(action, calls, &mut text)?;
    Some(text)
}

fn line(action: &Action, calls: &[CallSpec], to: &mut String) -> Option<()> {
    // Writing to a string cannot fail.
    let _ = match action {
        Action::Call { call, arguments } => {
            let spec = calls.get(usize::from(*call))?;
            let _ = write!(to, "call {}", spec.name);
            for argument in arguments {
                let _ = write!(to, " {argument}");
            }
            Ok(())
        }
        Action::Reply {
            register,
            nth,
            value,
        } => write!(
            to,
            "reply {}:{:#x} {} = {value:#x}",
            register.bar,
            register.offset,
            counted(*nth)
        ),
        Action::Config { offset, nth, value } => {
            write!(to, "config {offset:#x} {} = {value:#x}", counted(*nth))
        }
        Action::Edit { carried, nth, edit } => {
            let (carried, nth) = (carried_name(*carried), counted(*nth));
            match edit {
                Edit::Overwrite { offset, bytes } => {
                    write!(to, "edit {carried} {nth} +{offset} = {}", hex(bytes))
                }
                Edit::Drop => write!(to, "drop {carried} {nth}"),
                Edit::Repeat { slot } => write!(to, "repeat {carried} {nth} +{slot}"),
            }
        }
        Action::Poke {
            when,
            mapping,
            offset,
            bytes,
        } => write!(
            to,
            "poke {} m{mapping} +{offset} = {}",
            trigger(*when),
            hex(bytes)
        ),
        Action::Interrupt { when, vector } => {
            write!(to, "interrupt {} {vector}", trigger(*when))
        }
        Action::Lose { nth } => write!(to, "lose #{nth}"),
        Action::Vectors { most } => write!(to, "vectors {most}"),
        Action::Stall { when, micros } => write!(to, "stall {} {micros}", trigger(*when)),
        Action::Remove { when } => write!(to, "remove {}", trigger(*when)),
        Action::Answers { bytes } => write!(to, "answers {}", hex(bytes)),
    };
    Some(())
}

fn counted(nth: u32) -> String {
    match nth {
        0 => "#*".to_owned(),
        nth => format!("#{nth}"),
    }
}

fn trigger(when: Trigger) -> String {
    format!("{} #{}", event_name(when.event), when.nth)
}

const fn event_name(event: Event) -> &'static str {
    match event {
        Event::Call => "call",
        Event::Read => "read",
        Event::Write => "write",
        Event::Poll => "poll",
        Event::DmaRead => "dma-read",
        Event::DmaWrite => "dma-write",
        Event::Map => "map",
        Event::Unmap => "unmap",
    }
}

const fn carried_name(carried: Carried) -> &'static str {
    match carried {
        Carried::Payload => "payload",
        Carried::Status => "status",
        Carried::Completion => "completion",
        Carried::Publish => "publish",
        Carried::Descriptor => "descriptor",
    }
}

/// Bytes as digits; none as a dash, so that a line has always as many words.
fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A program that was read, and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The target's name.
    pub target: String,
    /// The program.
    pub program: Program,
}

/// Reads which target a program is for, whatever its actions are.
///
/// # Errors
///
/// The first two lines are not those of a program.
pub fn target_of(text: &str) -> Result<String, ParseError> {
    let mut lines = Lines::new(text);
    header(&mut lines)
}

/// Reads a program for a target that has those calls.
///
/// # Errors
///
/// The first place that is wrong.
pub fn parse(text: &str, calls: &[CallSpec]) -> Result<Parsed, ParseError> {
    let mut lines = Lines::new(text);
    let target = header(&mut lines)?;
    let mut program = Program::default();
    if let Some(mut words) = lines.next() {
        words.expect("mode")?;
        program.mode = words.named("a mode, `model` or `hostile`", |word| match word {
            "model" => Some(Mode::Model),
            "hostile" => Some(Mode::Hostile),
            _ => None,
        })?;
        words.end()?;
    }
    for mut words in lines {
        if program.actions.len() == super::ACTIONS {
            return Err(words.error(format!("more than {} actions", super::ACTIONS)));
        }
        let action = action(&mut words, calls)?;
        words.end()?;
        program.actions.push(action);
    }
    Ok(Parsed { target, program })
}

/// Reads what a program has the device do. Calls of the workload are left out, whatever they are.
///
/// # Errors
///
/// The first place that is wrong.
pub fn parse_device(text: &str) -> Result<Parsed, ParseError> {
    let is_call = |line: &&str| line.split_whitespace().next() == Some("call");
    // Left blank, so that errors name the line of the file.
    let lines = text
        .lines()
        .map(|line| if is_call(&line) { "" } else { line });
    parse(&lines.collect::<Vec<_>>().join("\n"), &[])
}

fn header(lines: &mut Lines<'_>) -> Result<String, ParseError> {
    let missing = |line, what: &str| ParseError {
        line,
        column: 1,
        why: format!("expected `{what}`, found the end"),
    };
    let mut words = lines.next().ok_or_else(|| missing(1, VERSION))?;
    for word in VERSION.split(' ') {
        words.expect(word)?;
    }
    words.end()?;
    let mut words = lines.next().ok_or_else(|| missing(2, "target NAME"))?;
    words.expect("target")?;
    let target = words.word("a target's name")?.to_owned();
    words.end()?;
    Ok(target)
}

fn action(words: &mut Words<'_>, calls: &[CallSpec]) -> Result<Action, ParseError> {
    const KINDS: &str = "an action: call, reply, config, edit, drop, repeat, poke, interrupt, lose, vectors, stall, remove or answers";
    let kind = words.word(KINDS)?;
    Ok(match kind {
        "call" => call(words, calls)?,
        "reply" => {
            let register = words.named("a register, BAR:OFFSET", |word| {
                let (bar, offset) = word.split_once(':')?;
                let bar = number(bar).and_then(|bar| u8::try_from(bar).ok());
                let offset = number(offset).and_then(|offset| u32::try_from(offset).ok());
                Some(Register {
                    bar: bar.filter(|bar| *bar < 6)?,
                    offset: offset?,
                })
            })?;
            let nth = words.counted()?;
            words.expect("=")?;
            let value = words.number()?;
            Action::Reply {
                register,
                nth,
                value,
            }
        }
        "config" => {
            let offset = words.number()?;
            let nth = words.counted()?;
            words.expect("=")?;
            Action::Config {
                offset,
                nth,
                value: words.number()?,
            }
        }
        "edit" | "drop" | "repeat" => {
            let carried = words.named(
                "what a DMA carries: payload, status, completion, publish or descriptor",
                |word| CARRIED.into_iter().find(|&it| carried_name(it) == word),
            )?;
            let nth = words.counted()?;
            let edit = match kind {
                "edit" => {
                    let offset = words.offset()?;
                    words.expect("=")?;
                    Edit::Overwrite {
                        offset,
                        bytes: words.bytes()?,
                    }
                }
                "drop" => Edit::Drop,
                _ => Edit::Repeat {
                    slot: words.offset()?,
                },
            };
            Action::Edit { carried, nth, edit }
        }
        "poke" => {
            let when = words.trigger()?;
            let mapping = words.named("a mapping, mN", |word| {
                u16::try_from(number(word.strip_prefix('m')?)?).ok()
            })?;
            let offset = words.offset()?;
            words.expect("=")?;
            Action::Poke {
                when,
                mapping,
                offset,
                bytes: words.bytes()?,
            }
        }
        "interrupt" => Action::Interrupt {
            when: words.trigger()?,
            vector: words.number()?,
        },
        "lose" => Action::Lose {
            nth: words.counted()?,
        },
        "vectors" => Action::Vectors {
            most: words.number()?,
        },
        "stall" => Action::Stall {
            when: words.trigger()?,
            micros: words.number()?,
        },
        "remove" => Action::Remove {
            when: words.trigger()?,
        },
        "answers" => Action::Answers {
            bytes: words.bytes()?,
        },
        _ => return Err(words.error(format!("expected {KINDS}; found `{kind}`"))),
    })
}

fn call(words: &mut Words<'_>, calls: &[CallSpec]) -> Result<Action, ParseError> {
    let known = || {
        let names: Vec<_> = calls.iter().map(|spec| spec.name).collect();
        format!("a call of this target: {}", names.join(", "))
    };
    let name = words.word(&known())?;
    let found = calls.iter().position(|spec| spec.name == name);
    let call = found
        .and_then(|at| u16::try_from(at).ok())
        .ok_or_else(|| words.error(format!("expected {}; found `{name}`", known())))?;
    let mut arguments = Vec::new();
    while !words.is_empty() {
        if arguments.len() == super::ARGUMENTS {
            words.word("")?;
            return Err(words.error(format!("more than {} arguments", super::ARGUMENTS)));
        }
        arguments.push(words.number()?);
    }
    Ok(Action::Call { call, arguments })
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !word.starts_with('+') => word.parse().ok(),
        _ => None,
    }
}

/// The lines that say anything.
struct Lines<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.lines().enumerate(),
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Words<'a>;

    fn next(&mut self) -> Option<Words<'a>> {
        self.lines.find_map(|(index, line)| {
            let said = match line.find("# ") {
                Some(comment) => &line[..comment],
                None => line.strip_suffix('#').unwrap_or(line),
            };
            let words = Words {
                number: index + 1,
                whole: said,
                at: 0,
                last: 0,
            };
            (!words.is_empty()).then_some(words)
        })
    }
}

/// A line, word by word.
struct Words<'a> {
    number: usize,
    whole: &'a str,
    at: usize,
    /// Where the last word began.
    last: usize,
}

impl<'a> Words<'a> {
    fn rest(&self) -> &'a str {
        &self.whole[self.at..]
    }

    fn is_empty(&self) -> bool {
        self.rest().trim().is_empty()
    }

    /// The error at the last word.
    fn error(&self, why: String) -> ParseError {
        let column = self.whole[..self.last].chars().count() + 1;
        ParseError {
            line: self.number,
            column,
            why,
        }
    }

    fn word(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        let rest = self.rest();
        let start = self.at + (rest.len() - rest.trim_start().len());
        self.last = start;
        let word = self.whole[start..].split_whitespace().next();
        let Some(word) = word else {
            return Err(self.error(format!("expected {expected}, found the end of the line")));
        };
        self.at = start + word.len();
        Ok(word)
    }

    fn named<T>(
        &mut self,
        expected: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, ParseError> {
        let word = self.word(expected)?;
        read(word).ok_or_else(|| self.error(format!("expected {expected}; found `{word}`")))
    }

    fn expect(&mut self, what: &str) -> Result<(), ParseError> {
        let expected = format!("`{what}`");
        self.named(&expected, |word| (word == what).then_some(()))
    }

    fn end(&mut self) -> Result<(), ParseError> {
        if self.is_empty() {
            return Ok(());
        }
        let word = self.word("")?;
        Err(self.error(format!("expected the end of the line; found `{word}`")))
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, ParseError> {
        self.named("a number in its range", |word| {
            T::try_from(number(word)?).ok()
        })
    }

    fn counted(&mut self) -> Result<u32, ParseError> {
        self.named("a count, #N or #*", |word| {
            match word.strip_prefix('#')? {
                "*" => Some(0),
                nth => u32::try_from(number(nth)?).ok(),
            }
        })
    }

    fn offset(&mut self) -> Result<u32, ParseError> {
        self.named("an offset, +N", |word| {
            u32::try_from(number(word.strip_prefix('+')?)?).ok()
        })
    }

    fn trigger(&mut self) -> Result<Trigger, ParseError> {
        let event = self.named(
            "an event: call, read, write, poll, dma-read, dma-write, map or unmap",
            |word| EVENTS.into_iter().find(|&it| event_name(it) == word),
        )?;
        let nth = self.counted()?;
        Ok(Trigger { event, nth })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, ParseError> {
        let expected = "bytes, two hexadecimal digits each, or `-` for none";
        let bytes = self.named(expected, |word| {
            if word == "-" {
                return Some(Vec::new());
            }
            let digits = word.as_bytes();
            let (pairs, []) = digits.as_chunks::<2>() else {
                return None;
            };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
            pairs.iter().map(byte).collect()
        })?;
        if bytes.len() > super::BYTES {
            return Err(self.error(format!("more than {} bytes", super::BYTES)));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
