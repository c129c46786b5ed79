//! A trial as Chrome trace events, which ui.perfetto.dev opens: a track for each domain, CPU and
//! tenant, for the device and for the IOMMU.
//!
//! A track has at most one duration open at a time, and every one that begins ends, with the trial at
//! the latest.

use super::Story;
use super::text::Teller;
use cofferdam_placement::trace::What;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Groups of tracks.
const DOMAINS: u64 = 1;
const CPUS: u64 = 2;
const DEVICE: u64 = 3;
const REQUESTS: u64 = 4;

/// A track: its group, and its number there.
type Track = (u64, u64);

const MODEL: Track = (DEVICE, 0);
const IOMMU: Track = (DEVICE, 1);

/// A trial as a JSON document.
pub fn document(story: &Story<'_>) -> Value {
    let mut timeline = Timeline::default();
    timeline.name(story);
    let mut teller = Teller::new(story);
    for event in &story.trace.events {
        let words = teller.words(&event.what);
        timeline.enter(story, event.at_ns, &event.what, words);
    }
    let last = story.trace.events.last().map_or(0, |event| event.at_ns);
    let end = story.report.ended_at_ns.max(last);
    while let Some((track, _)) = timeline.open.first_key_value() {
        let track = *track;
        timeline.end(track, end);
    }
    json!({
        "displayTimeUnit": "ns",
        "otherData": {
            "trial": story.address.to_string(),
            "cell": story.record.cell,
            "dropped": story.trace.dropped,
        },
        "traceEvents": timeline.events,
    })
}

#[derive(Default)]
struct Timeline {
    events: Vec<Value>,
    /// What is going on, on each track.
    open: BTreeMap<Track, &'static str>,
}

/// Microseconds, as trace events count.
#[expect(
    clippy::cast_precision_loss,
    reason = "trials last seconds: nanoseconds are exact in 53 bits"
)]
fn micros(at_ns: u64) -> f64 {
    at_ns as f64 / 1000.0
}

fn index(of: usize) -> u64 {
    of as u64
}

impl Timeline {
    fn name(&mut self, story: &Story<'_>) {
        let domains = story.record.spec.placement.placement().domains;
        let mut tracks = vec![
            ((DOMAINS, 0), "domains", domains[0].name.to_owned()),
            ((CPUS, 0), "CPUs", "CPU 0".to_owned()),
            ((CPUS, 1), "CPUs", "CPU 1".to_owned()),
            (MODEL, "device", "device".to_owned()),
            (IOMMU, "device", "IOMMU".to_owned()),
            ((REQUESTS, 1), "requests", "tenant1's requests".to_owned()),
            ((REQUESTS, 2), "requests", "tenant2's requests".to_owned()),
        ];
        for at in 1..=domains.len() {
            tracks.push(((DOMAINS, index(at)), "domains", story.domain(at).to_owned()));
        }
        for ((group, track), group_name, name) in tracks {
            for (what, id, named) in [
                ("process_name", 0, group_name),
                ("thread_name", track, name.as_str()),
            ] {
                self.events.push(json!({
                    "ph": "M", "name": what, "pid": group, "tid": id, "args": {"name": named},
                }));
            }
        }
    }

    fn begin(&mut self, track: Track, at: u64, name: &'static str, detail: &str) {
        self.end(track, at);
        self.open.insert(track, name);
        let (pid, tid) = track;
        self.events.push(json!({
            "ph": "B", "name": name, "pid": pid, "tid": tid, "ts": micros(at),
            "args": {"detail": detail},
        }));
    }

    fn end(&mut self, track: Track, at: u64) {
        if let Some(name) = self.open.remove(&track) {
            let (pid, tid) = track;
            self.events.push(json!({
                "ph": "E", "name": name, "pid": pid, "tid": tid, "ts": micros(at),
            }));
        }
    }

    /// An instant; `scope` is `t` for its track, `g` for all.
    fn instant(&mut self, (pid, tid): Track, at: u64, name: &str, scope: &str) {
        self.events.push(json!({
            "ph": "i", "name": name, "pid": pid, "tid": tid, "ts": micros(at), "s": scope,
        }));
    }

    fn enter(&mut self, story: &Story<'_>, at: u64, what: &What, words: String) {
        let server = (DOMAINS, index(story.server()));
        match what {
            What::Waits { who, .. } => self.begin((DOMAINS, index(*who)), at, "waits", &words),
            What::Wakes { who, .. } => self.end((DOMAINS, index(*who)), at),
            What::Died { who, .. } => self.begin((DOMAINS, index(*who)), at, "dead", &words),
            What::Restarted { who, .. } => {
                self.begin((DOMAINS, index(*who)), at, "restarts", &words);
            }
            What::Froze { cpu, .. } => self.begin((CPUS, index(*cpu)), at, "frozen", &words),
            What::Thawed { cpu } => self.end((CPUS, index(*cpu)), at),
            What::Reset { .. } => self.begin(MODEL, at, "reset", &words),
            What::Serves => {
                self.end(MODEL, at);
                if self.open.get(&server) == Some(&"restarts") {
                    self.end(server, at);
                }
                self.instant(server, at, &words, "t");
            }
            What::Asked { tenant, .. } => {
                self.begin((REQUESTS, u64::from(*tenant)), at, "request", &words);
            }
            What::Answered { tenant, .. } => self.end((REQUESTS, u64::from(*tenant)), at),
            What::Dma(dma) => {
                self.instant(MODEL, at, &words, "t");
                if dma.fault.is_some() || dma.stray.is_some() {
                    self.instant(IOMMU, at, &words, "t");
                }
            }
            What::Message { .. } => self.instant(MODEL, at, &words, "t"),
            What::Mapped { .. } | What::Unmapped { .. } | What::Invalidated { .. } => {
                self.instant(IOMMU, at, &words, "t");
            }
            What::Activated | What::SystemLost => self.instant(MODEL, at, &words, "g"),
            What::Noticed { by, .. } => {
                let words = format!("{by} {words}");
                self.instant(MODEL, at, &words, "g");
            }
            What::Refused { by: who, .. } | What::Rang { by: who, .. } | What::Finished { who } => {
                self.instant((DOMAINS, index(*who)), at, &words, "t");
            }
            What::Read { .. }
            | What::Write { .. }
            | What::Config { .. }
            | What::Interrupts { .. }
            | What::Taken { .. } => self.instant(server, at, &words, "t"),
        }
    }
}
