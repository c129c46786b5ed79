//! A trial as text: a line an event.

use super::Story;
use super::decode::Decoder;
use cofferdam_experiment::catalogue::{driver, fabric_name, fault_named, iommu_name, placement};
use cofferdam_experiment::replay::Replayed;
use cofferdam_placement::trace::{Dma, What};
use cofferdam_placement::trial::{ClockKind, Fault};
use cofferdam_seam::{Direction, Purpose};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A trial as text: what it is and how to run it again, what happened, how it ended.
pub fn text(story: &Story<'_>) -> String {
    let mut lines = head(story);
    let mut teller = Teller::new(story);
    let mut last: Option<(String, u64)> = None;
    for event in &story.trace.events {
        if teller.is_a_heartbeat(&event.what) {
            continue;
        }
        let told = teller.tell(&event.what);
        if let Some((before, times)) = &mut last
            && *before == told
        {
            *times += 1;
            continue;
        }
        repeated(&mut lines, last.take());
        line(&mut lines, event.at_ns, &told);
        last = Some((told, 0));
    }
    repeated(&mut lines, last);
    if story.trace.dropped > 0 {
        let dropped = story.trace.dropped;
        line(
            &mut lines,
            story.report.ended_at_ns,
            &format!("{} not kept", counted(dropped, "more event")),
        );
    }
    lines + &tail(story)
}

fn line(lines: &mut String, at_ns: u64, told: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "{:>9}.{:03} us  {told}", at_ns / 1000, at_ns % 1000);
}

/// A driver that polls says the same again and again.
fn repeated(lines: &mut String, last: Option<(String, u64)>) {
    if let Some((_, times @ 1..)) = last {
        let _ = writeln!(
            lines,
            "{:16}  (the same {} more)",
            "",
            counted(times, "time")
        );
    }
}

fn head(story: &Story<'_>) -> String {
    let spec = &story.record.spec;
    let address = story.address;
    let fault = fault_named(spec.fault.id()).map_or("not in the catalogue", |fault| fault.line);
    let parameters = match spec.fault {
        Fault::None => String::new(),
        _ => format!(" {}", serde_json::to_value(spec.fault).unwrap_or_default()),
    };
    let clock = match spec.clock {
        ClockKind::Leap => "leap: it comes out the same every time",
        ClockKind::Wall => "wall: it does not come out the same every time",
    };
    format!(
        "trial      {address}: {}\n\
         fault      {}: {fault}{parameters}\n\
         driver     {}, in the domain {}; {}\n\
         platform   IOMMU {}, fabric {}, interrupts {}remapped\n\
         workload   {} a tenant, seed {}\n\
         clock      {clock}\n\
         run again  cofferdam replay {address}\n\
         left out   sleeps, and waits that only a heartbeat interrupts\n\n",
        story.record.cell,
        spec.fault.id(),
        driver(spec.driver).id,
        story.domain(story.server()),
        placement(spec.placement).line,
        iommu_name(spec.iommu),
        fabric_name(spec.fabric),
        if spec.intremap { "" } else { "not " },
        counted(spec.requests.into(), "request"),
        spec.seed,
    )
}

fn tail(story: &Story<'_>) -> String {
    let verdict = &story.record.verdict;
    let mut lines = format!("\nrecorded   {}", verdict.outcome.name());
    if !verdict.hurt.is_empty() {
        let _ = write!(lines, "; hurt: {}", verdict.hurt.join(", "));
    }
    if !verdict.corrupted.is_empty() {
        let _ = write!(lines, "; corrupted: {}", verdict.corrupted.join(", "));
    }
    if let Some(seen) = &story.record.report.detection {
        let (by, what) = (&seen.by, &seen.what);
        let _ = write!(
            lines,
            "; noticed by {by} after {} ns: {what}",
            seen.after_ns
        );
    }
    lines + "\n" + &conclusion(story.replayed) + "\n"
}

/// Whether a trial came out as recorded, in a line.
pub fn conclusion(replayed: &Replayed) -> String {
    match replayed {
        Replayed::Same => "replayed   as recorded, bit for bit".to_owned(),
        Replayed::Differs {
            field,
            recorded,
            now,
        } => format!("replayed   NOT as recorded: {field} was {recorded} and is {now}"),
        Replayed::NotRepeatable => {
            "replayed   run again by the wall clock, where no two trials are the same: not compared"
                .to_owned()
        }
    }
}

/// So many of a thing.
fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Who is to be told of: the first column.
fn by(who: &str, what: impl std::fmt::Display) -> String {
    format!("{who:<10}  {what}")
}

/// An address as hexadecimal digits in groups of four: `0x1000_2000`.
fn address(at: u64) -> String {
    let digits = format!("{at:x}");
    let first = digits.len() % 4;
    let (head, rest) = digits.split_at(first);
    let mut groups: Vec<&str> = Vec::new();
    if !head.is_empty() {
        groups.push(head);
    }
    groups.extend(
        rest.as_bytes()
            .chunks(4)
            .filter_map(|group| str::from_utf8(group).ok()),
    );
    format!("0x{}", groups.join("_"))
}

/// Words for events, in their order: some depend on what came before.
pub(super) struct Teller<'a> {
    story: &'a Story<'a>,
    decoder: Decoder,
    /// Address and length of the mappings that are.
    mappings: BTreeMap<u64, (u64, u64)>,
    /// Vectors and peers that domains wait for.
    waits: BTreeMap<usize, (u64, u64)>,
}

impl<'a> Teller<'a> {
    pub fn new(story: &'a Story<'a>) -> Self {
        Self {
            story,
            decoder: Decoder::of(story.record.spec.driver),
            mappings: BTreeMap::new(),
            waits: BTreeMap::new(),
        }
    }

    /// Whether it is a sleep, or an interruption of a wait that goes on: a domain that waits for
    /// no device wakes now and then to show that it is alive.
    fn is_a_heartbeat(&mut self, what: &What) -> bool {
        match *what {
            What::Waits {
                who,
                vectors,
                bells,
                ..
            } => {
                let waits = (vectors, bells);
                let before = self.waits.insert(who, waits);
                waits == (0, 0) || before == Some(waits)
            }
            What::Wakes {
                who,
                vectors: 0,
                bells: 0,
            } if !self.awaits_a_vector(who) => true,
            What::Wakes { who, .. } | What::Died { who, .. } => {
                self.waits.remove(&who);
                false
            }
            _ => false,
        }
    }

    fn awaits_a_vector(&self, who: usize) -> bool {
        self.waits.get(&who).is_some_and(|waits| waits.0 != 0)
    }

    /// Who did it, and what.
    fn tell(&mut self, what: &What) -> String {
        by(self.who(what), self.words(what))
    }

    fn who<'b>(&self, what: &'b What) -> &'b str
    where
        'a: 'b,
    {
        match what {
            What::Read { .. }
            | What::Write { .. }
            | What::Config { .. }
            | What::Interrupts { .. }
            | What::Mapped { .. }
            | What::Unmapped { .. }
            | What::Taken { .. }
            | What::Serves => "driver",
            What::Dma(_) | What::Message { .. } => "device",
            What::Invalidated { .. } => "iommu",
            What::Froze { cpu, .. } | What::Thawed { cpu } => {
                if *cpu == 0 {
                    "CPU 0"
                } else {
                    "CPU 1"
                }
            }
            What::Noticed { by, .. } => by,
            What::Activated => "fault",
            What::Asked { tenant, .. } | What::Answered { tenant, .. } => {
                if *tenant == 1 {
                    "tenant1"
                } else {
                    "tenant2"
                }
            }
            What::SystemLost => self.story.domain(0),
            What::Refused { by: who, .. }
            | What::Rang { by: who, .. }
            | What::Waits { who, .. }
            | What::Wakes { who, .. }
            | What::Reset { by: who }
            | What::Died { who, .. }
            | What::Restarted { who, .. }
            | What::Finished { who } => self.story.domain(*who),
        }
    }

    /// What happened, without who did it.
    pub fn words(&mut self, what: &What) -> String {
        match what {
            What::Read {
                bar, offset, value, ..
            } => {
                let register = self.decoder.register(*bar, *offset);
                match value {
                    Some(value) => {
                        let value = self.decoder.value(*bar, *offset, *value);
                        format!("reads {register} = {value}")
                    }
                    None => format!("reads {register}, and nothing comes back"),
                }
            }
            What::Write {
                bar,
                offset,
                width,
                value,
            } => {
                self.decoder.wrote(*bar, *offset, *width, *value);
                let register = self.decoder.register(*bar, *offset);
                let value = self.decoder.value(*bar, *offset, *value);
                format!("writes {register} = {value}")
            }
            What::Config {
                write,
                offset,
                value,
                ..
            } => {
                let verb = if *write { "writes" } else { "reads" };
                match configuration(*offset) {
                    Some(name) => format!("{verb} {name} (configuration+{offset:#x}) = {value:#x}"),
                    None => format!("{verb} configuration+{offset:#x} = {value:#x}"),
                }
            }
            What::Interrupts { kind, count } => {
                format!(
                    "is given {}",
                    counted((*count).into(), &format!("{kind} vector"))
                )
            }
            What::Mapped {
                id,
                iova,
                phys,
                len,
                way,
                chosen,
            } => {
                self.mappings.insert(*id, (*iova, *len));
                let way = match way {
                    Direction::ToDevice => "the device may read",
                    Direction::FromDevice => "the device may write",
                    Direction::Both => "the device may read and write",
                };
                let chosen = if *chosen { ", which it chose" } else { "" };
                let (iova, phys) = (address(*iova), address(*phys));
                format!("maps {len} B at {phys} as IOVA {iova}{chosen}: {way}")
            }
            What::Unmapped { id } => match self.mappings.remove(id) {
                Some((iova, len)) => format!("unmaps {len} B at IOVA {}", address(iova)),
                None => format!("unmaps mapping {id}"),
            },
            What::Refused { call, .. } => format!("is refused {call}"),
            What::Dma(dma) => self.dma(dma),
            What::Message { data, became, .. } => format!("interrupt message {data:#x}: {became}"),
            What::Taken { vectors } => format!("is told of vectors {}", vector_list(*vectors)),
            What::Invalidated { times } => {
                format!("carries out {}", counted(*times, "invalidation"))
            }
            What::Rang { peers, .. } => format!("rings {}", self.story.domains(*peers)),
            What::Waits {
                vectors,
                bells,
                until_ns,
                ..
            } => self.waits(*vectors, *bells, *until_ns),
            What::Wakes { vectors, bells, .. } => match self.causes(*vectors, *bells) {
                Some(causes) => format!("wakes by {causes}"),
                None => "wakes, its time is over".to_owned(),
            },
            What::Froze { until_ns, .. } => match until_ns {
                &u64::MAX => "stands still for good".to_owned(),
                until => format!("stands still until {} us", until / 1000),
            },
            What::Thawed { .. } => "goes on".to_owned(),
            What::Reset { .. } => "resets the device".to_owned(),
            What::Serves => "serves".to_owned(),
            What::Died { how, .. } => format!("dies: {how}"),
            What::Restarted { times, .. } => format!("is started again, time {times}"),
            What::Noticed { what, .. } => format!("notices: {what}"),
            What::Activated => "strikes".to_owned(),
            What::Asked { nth, ask, .. } => format!("asks, request {nth}: {ask}"),
            What::Answered { nth, good, .. } => {
                let how = if *good { "well" } else { "with an error" };
                format!("is answered {how}, request {nth}")
            }
            What::Finished { .. } => "has finished".to_owned(),
            What::SystemLost => "stops, and everything on it".to_owned(),
        }
    }

    fn dma(&mut self, dma: &Dma) -> String {
        let verb = if dma.write { "write" } else { "read" };
        let why = match dma.why {
            Purpose::Descriptor => "descriptor",
            Purpose::Payload => "payload",
            Purpose::Status => "status",
            Purpose::Completion => "completion",
            Purpose::Publish => "publishes",
        };
        let (len, iova) = (dma.len, address(dma.iova));
        let mut words = format!("DMA {verb} {len} B at IOVA {iova}, {why}");
        match (&dma.stray, self.decoder.dma(dma)) {
            // A stray one is what it does, not what it says.
            (Some(verdict), _) => words += &format!(": {verdict}"),
            (None, Some(carried)) => words += &format!(": {carried}"),
            (None, None) => {}
        }
        if dma.moved > 0
            && (dma.stray.is_some()
                || dma
                    .path
                    .as_deref()
                    .is_some_and(|path| path.contains("stale")))
        {
            let owner = dma.owner.as_deref().unwrap_or("nobody");
            let reached = dma
                .reached
                .map_or_else(String::new, |at| format!(" at {}", address(at)));
            let moved = dma.moved;
            words += &format!(", {moved} B landed in the memory of {owner}{reached}");
            if let Some(path) = &dma.path {
                words += &format!(" ({path})");
            }
        }
        if let Some(fault) = &dma.fault {
            words += &format!(", {fault}");
        }
        words
    }

    fn waits(&self, vectors: u64, bells: u64, until_ns: u64) -> String {
        let mut words = match self.causes(vectors, bells) {
            Some(causes) => format!("waits for {causes}"),
            None => "sleeps".to_owned(),
        };
        if until_ns != u64::MAX {
            words += &format!(" until {}.{:03} us", until_ns / 1000, until_ns % 1000);
        }
        words
    }

    fn causes(&self, vectors: u64, bells: u64) -> Option<String> {
        let mut causes = Vec::new();
        if vectors != 0 {
            causes.push(format!("vector {}", vector_list(vectors)));
        }
        if bells != 0 {
            causes.push(self.story.domains(bells));
        }
        (!causes.is_empty()).then(|| causes.join(", or "))
    }
}

/// Names of the header's registers (PCI Local Bus 3.0, 6.1).
const fn configuration(offset: u16) -> Option<&'static str> {
    Some(match offset {
        0x00 => "vendor and device ID",
        0x04 => "command",
        0x06 => "status",
        0x08 => "revision and class",
        0x0e => "header type",
        0x10..0x28 => "base address",
        0x2c => "subsystem ID",
        0x34 => "capabilities pointer",
        _ => return None,
    })
}

fn vector_list(vectors: u64) -> String {
    let set = (0..64).filter(|bit| vectors >> bit & 1 == 1);
    let names: Vec<String> = set.map(|bit: u32| bit.to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_grouped_by_four_digits() {
        for (at, written) in [
            (0, "0x0"),
            (0x1000, "0x1000"),
            (0x1_0000, "0x1_0000"),
            (0x1000_2000, "0x1000_2000"),
            (u64::MAX, "0xffff_ffff_ffff_ffff"),
        ] {
            assert_eq!(address(at), written);
        }
    }
}
