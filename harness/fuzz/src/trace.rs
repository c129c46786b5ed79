//! What happened in an execution, for the author of the driver.

use crate::oracle::Oracle;
use crate::program::Register;
use crate::target::Decode;
use cofferdam_seam::{Bar, Direction, Iova, Purpose, Time, VectorSet, Width};
use std::fmt::Write as _;

/// Steps that are kept. A loop without an end says the same again and again.
const KEPT: usize = 4096;

/// Bytes of data that are shown.
const SHOWN: usize = 32;

/// One step.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are what the steps are about")]
pub enum Step {
    /// A call of the workload begins.
    Enter { during: &'static str },
    /// It ended.
    Leave { how: String },
    /// The driver read a register.
    Read {
        register: Register,
        width: Width,
        value: u64,
    },
    /// The driver wrote a register.
    Write {
        register: Register,
        width: Width,
        value: u64,
    },
    /// The driver read configuration space.
    ConfigRead {
        offset: u16,
        width: Width,
        value: u32,
    },
    /// The driver wrote configuration space.
    ConfigWrite {
        offset: u16,
        width: Width,
        value: u32,
    },
    /// The device read memory.
    DmaRead {
        at: Iova,
        why: Purpose,
        bytes: Vec<u8>,
        allowed: bool,
    },
    /// The device wrote memory.
    DmaWrite {
        at: Iova,
        why: Purpose,
        bytes: Vec<u8>,
        allowed: bool,
    },
    /// The program suppressed a DMA write.
    Dropped { at: Iova, why: Purpose },
    /// The program wrote memory in the device's name.
    Poked {
        mapping: u16,
        offset: u32,
        bytes: Vec<u8>,
    },
    /// The driver let the device reach memory.
    Mapped {
        id: u64,
        at: Iova,
        len: usize,
        way: Direction,
    },
    /// The driver took memory back.
    Unmapped { id: u64 },
    /// The device sent an interrupt message.
    Message { vector: u16, lost: bool },
    /// The program raised an interrupt.
    Injected { vector: u16 },
    /// The driver was told of interrupts.
    Taken { vectors: VectorSet },
    /// The program made the device pause.
    Stalled { micros: u32 },
    /// The program pulled the device out.
    Removed,
    /// An oracle noticed something.
    Sighted { oracle: Oracle, words: String },
}

/// The steps of an execution; empty unless they were asked for.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    on: bool,
    steps: Vec<(Time, Step)>,
    left_out: usize,
}

impl Trace {
    /// The driver's register accesses, in order, each with its time.
    pub fn accesses(&self) -> impl Iterator<Item = &(Time, Step)> {
        let access = |step: &Step| matches!(step, Step::Read { .. } | Step::Write { .. });
        self.steps.iter().filter(move |(_, step)| access(step))
    }

    pub(crate) fn new(on: bool) -> Self {
        Self {
            on,
            ..Self::default()
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, now: Time, step: impl FnOnce() -> Step) {
        if self.on {
            self.push(now, step());
        }
    }

    fn push(&mut self, now: Time, step: Step) {
        // What an oracle noticed is never left out.
        if self.steps.len() < KEPT || matches!(step, Step::Sighted { .. }) {
            self.steps.push((now, step));
        } else {
            self.left_out += 1;
        }
    }

    /// The steps, as text: one a line, with the device's words for registers and memory.
    pub fn text(&self, decoder: &mut dyn Decode) -> String {
        let mut text = String::new();
        let mut last: Option<String> = None;
        let mut repeated = 0_usize;
        for (now, step) in &self.steps {
            let said = say(step, decoder);
            if last.as_ref() == Some(&said) {
                repeated += 1;
                continue;
            }
            again(&mut text, &mut repeated);
            let indent = match step {
                Step::Enter { .. } => "",
                _ => "  ",
            };
            let _ = writeln!(text, "{:>14}  {indent}{said}", now.to_string());
            last = Some(said);
        }
        again(&mut text, &mut repeated);
        if self.left_out > 0 {
            let _ = writeln!(text, "{:>14}  ... and {} steps more", "", self.left_out);
        }
        text
    }
}

fn again(text: &mut String, repeated: &mut usize) {
    if *repeated > 0 {
        let _ = writeln!(text, "{:>14}    ... {repeated} times more", "");
        *repeated = 0;
    }
}

fn say(step: &Step, decoder: &mut dyn Decode) -> String {
    match step {
        Step::Enter { during } => format!("== {during}"),
        Step::Leave { how } => format!("-> {how}"),
        Step::Read {
            register,
            width,
            value,
        } => {
            let (name, words) = named(*register, *value, decoder);
            format!("read{:<2} {name} = {value:#x}{words}", width.bytes() * 8)
        }
        Step::Write {
            register,
            width,
            value,
        } => {
            let (name, words) = named(*register, *value, decoder);
            if let Some(bar) = Bar::new(register.bar) {
                let bytes = u8::try_from(width.bytes()).unwrap_or(8);
                decoder.wrote(bar, register.offset, bytes, *value);
            }
            format!("write{:<2} {name} = {value:#x}{words}", width.bytes() * 8)
        }
        Step::ConfigRead {
            offset,
            width,
            value,
        } => format!("config read{} {offset:#x} = {value:#x}", width.bytes() * 8),
        Step::ConfigWrite {
            offset,
            width,
            value,
        } => format!("config write{} {offset:#x} = {value:#x}", width.bytes() * 8),
        Step::DmaRead {
            at,
            why,
            bytes,
            allowed,
        } => dma("reads", *at, *why, bytes, *allowed, decoder),
        Step::DmaWrite {
            at,
            why,
            bytes,
            allowed,
        } => dma("writes", *at, *why, bytes, *allowed, decoder),
        Step::Dropped { at, why } => {
            format!("program: the device does not write {why:?} at {at}")
        }
        Step::Poked {
            mapping,
            offset,
            bytes,
        } => format!(
            "program: the device writes m{mapping}+{offset:#x} = {}",
            hex(bytes)
        ),
        Step::Mapped { id, at, len, way } => {
            format!("map m{id}: {len} bytes at {at}, {}", ways(*way))
        }
        Step::Unmapped { id } => format!("unmap m{id}"),
        Step::Message { vector, lost } => {
            let lost = if *lost { ", lost by the program" } else { "" };
            format!("device interrupts, vector {vector}{lost}")
        }
        Step::Injected { vector } => format!("program: interrupt of vector {vector}"),
        Step::Taken { vectors } => {
            let vectors: Vec<_> = vectors.iter().map(|vector| vector.0.to_string()).collect();
            format!("driver takes interrupts {}", vectors.join(", "))
        }
        Step::Stalled { micros } => format!("program: the device pauses for {micros} us"),
        Step::Removed => "program: the device is pulled out".to_owned(),
        Step::Sighted { oracle, words } => format!("!! {}: {words}", oracle.name()),
    }
}

fn named(register: Register, value: u64, decoder: &dyn Decode) -> (String, String) {
    let place = format!("{}:{:#x}", register.bar, register.offset);
    let Some(bar) = Bar::new(register.bar) else {
        return (place, String::new());
    };
    let name = decoder.register(bar, register.offset);
    let words = decoder.value(bar, register.offset, value);
    (
        name.map_or(place.clone(), |name| format!("{name} ({place})")),
        words.map_or(String::new(), |words| format!(" ({words})")),
    )
}

fn dma(
    verb: &str,
    at: Iova,
    why: Purpose,
    bytes: &[u8],
    allowed: bool,
    decoder: &mut dyn Decode,
) -> String {
    let said = match decoder.dma(at, why, bytes) {
        Some(words) => words,
        None => format!("{why:?}, {} bytes: {}", bytes.len(), hex(bytes)),
    };
    let verdict = if allowed {
        ""
    } else {
        "  [refused by the ledger]"
    };
    format!("device {verb} {at}: {said}{verdict}")
}

const fn ways(way: Direction) -> &'static str {
    match way {
        Direction::ToDevice => "the device reads",
        Direction::FromDevice => "the device writes",
        Direction::Both => "both ways",
    }
}

fn hex(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(SHOWN);
    let mut text = shown.fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    if bytes.len() > SHOWN {
        text += "...";
    }
    text
}
