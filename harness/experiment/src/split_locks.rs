//! What a storm of split locks by the driver's CPU costs a bystander on another core (B8), and what this
//! host could do about it.
//!
//! A pair is two trials by the wall clock with one seed: in the one the driver's CPU makes locked
//! increments across two cache lines, in the other the same loop within one. The two kinds take turns,
//! and so does which of a pair comes first, so that what else the host does falls on both. The figures
//! are the host's: they are in `run.json` and `summary.json`, and no verdict rests on them.

use crate::catalogue::{placement, storm};
use crate::engine::EngineError;
use crate::environment::{Fact, Mechanism};
use crate::plan::Plan;
use crate::statistics::{Cluster, Distribution, ENOUGH, Spread};
use cofferdam_microvm::Kvm;
use cofferdam_placement::storm::{Price, is_end_of};
use cofferdam_placement::trial::{
    ClockKind, DriverId, PlacementId, Reading, TrialReport, TrialSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;

/// Increments a second: more than there can be across lines.
const FULL_SPEED: u32 = 1_000_000;
/// At which of the bystander's requests the storm is, and how many it makes.
const NTH: u32 = 2;
const REQUESTS: u32 = 3;
/// Where it is measured, unless somebody says otherwise: the driver in a process and in a guest.
const USUAL: [PlacementId; 2] = [PlacementId::UserProcess, PlacementId::DriverVm];
/// Trials from which on a run measures it.
const LARGE: u64 = 1000;

/// What reading its own memory took the bystander, over the trials of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// 64 cache lines (4 KiB) in order, ns: the median of each trial, and how these spread.
    pub in_order: Spread,
    /// 64 lines, each at an address that what was read before it decides, ns.
    pub scattered: Spread,
}

/// One placement's pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SplitLock {
    /// Where the driver was.
    pub placement: PlacementId,
    /// What kept it from its surroundings.
    pub mechanism: Mechanism,
    /// Pairs with both trials.
    pub pairs: u32,
    /// Storms of split locks in which one was shown to cost what only a locked bus does, or that
    /// somebody ended.
    pub activated: u32,
    /// Storms that were ended: by the kernel's split-lock detection, or KVM's bus-lock exit.
    pub ended: u32,
    /// What one increment within a line took the driver's CPU, ns: the least of each storm.
    #[serde(default)]
    pub within_ns: Option<Spread>,
    /// What one across two lines took it.
    #[serde(default)]
    pub across_ns: Option<Spread>,
    /// Before the storms.
    pub quiet: Option<Read>,
    /// During increments within a line: the control.
    pub aligned: Option<Read>,
    /// During increments across two lines.
    pub split: Option<Read>,
    /// Why there are fewer pairs than were wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What a split lock takes on no processor by itself, ns: some thousand cycles are usual.
const SLOWED_DOWN_NS: u64 = 20_000;

impl SplitLock {
    /// Whether somebody slows down who makes split locks: the kernel, or what is below it.
    pub fn is_slowed_down(&self) -> bool {
        self.across_ns
            .is_some_and(|across| across.median_ns >= SLOWED_DOWN_NS)
    }

    /// How many times as long a kind of reading took during split locks as during the control, in
    /// tenths.
    pub fn slowed_tenths(&self, of: fn(&Read) -> Spread) -> Option<u64> {
        let (aligned, split) = (self.aligned.as_ref()?, self.split.as_ref()?);
        let split = of(split).median_ns.saturating_mul(10);
        split.checked_div(of(aligned).median_ns)
    }
}

/// What was measured of split locks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SplitLocks {
    /// What this host could do about them.
    pub host: Vec<Fact>,
    /// The placements.
    pub ways: Vec<SplitLock>,
}

impl SplitLocks {
    /// Those of a plan that is large enough.
    pub fn of_plan(
        plan: &Plan,
        guests: Option<Mechanism>,
        run: impl FnMut(&TrialSpec) -> Result<TrialReport, EngineError>,
    ) -> Option<Self> {
        let planned = |id: &PlacementId| plan.cells().any(|cell| cell.placement == *id);
        let placements: Vec<_> = USUAL.into_iter().filter(planned).collect();
        (plan.len() >= LARGE && !placements.is_empty())
            .then(|| measure(&placements, ENOUGH, plan.settings().seed, guests, run))
    }
}

/// The placements where it is measured on a host with such guests, or none.
pub fn usual(guests: Option<Mechanism>) -> Vec<PlacementId> {
    let here = |id: &PlacementId| guests.is_some() || !placement(*id).needs_kvm();
    USUAL.into_iter().filter(here).collect()
}

/// The trial of one half of a pair.
fn half(placement: PlacementId, aligned: bool, seed: u64) -> TrialSpec {
    let mut fault = storm(aligned, FULL_SPEED);
    if let Some(nth) = fault.nth_mut() {
        *nth = NTH;
    }
    TrialSpec {
        clock: ClockKind::Wall,
        horizon_ns: 30_000_000_000,
        requests: REQUESTS,
        seed,
        ..TrialSpec::new(placement, DriverId::Edu, fault)
    }
}

/// Readings of one kind.
#[derive(Default)]
struct Times {
    in_order: Distribution,
    scattered: Distribution,
}

impl Times {
    fn add(&mut self, reading: Reading, boot: u64) {
        let boot = Cluster::Own(boot);
        self.in_order.add(reading.in_order_ns, false, boot);
        self.scattered.add(reading.scattered_ns, false, boot);
    }

    fn read(&self, seed: u64) -> Option<Read> {
        Some(Read {
            in_order: self.in_order.spread(seed)?,
            scattered: self.scattered.spread(seed)?,
        })
    }
}

/// What one trial of a pair showed.
struct Shown {
    quiet: Reading,
    during: Reading,
    activated: bool,
    ended: bool,
    price: Option<Price>,
}

fn show(report: &TrialReport) -> Result<Shown, String> {
    let mut holders = report.domains.iter().filter(|domain| domain.holds_driver);
    let ended = holders.any(|domain| domain.deaths.iter().any(|death| is_end_of(death)));
    match report.io.iter().find_map(|io| io.memory) {
        Some(memory) => Ok(Shown {
            quiet: memory.quiet,
            during: memory.during,
            activated: report.activated > 0,
            ended,
            price: report.split_lock,
        }),
        None => Err(format!("no bystander looked: ended by {:?}", report.end)),
    }
}

/// Measures so many pairs in each placement, in turn. `run` runs a trial; `seed` is also that of the
/// intervals.
pub fn measure(
    placements: &[PlacementId],
    pairs: u32,
    seed: u64,
    guests: Option<Mechanism>,
    mut run: impl FnMut(&TrialSpec) -> Result<TrialReport, EngineError>,
) -> SplitLocks {
    let mut open: Vec<(SplitLock, [Times; 3], [Distribution; 2])> = placements
        .iter()
        .map(|&placement| {
            let way = SplitLock {
                placement,
                mechanism: Mechanism::of(placement, guests),
                pairs: 0,
                activated: 0,
                ended: 0,
                within_ns: None,
                across_ns: None,
                quiet: None,
                aligned: None,
                split: None,
                why_not: None,
            };
            (way, Default::default(), Default::default())
        })
        .collect();
    for pair in 0..u64::from(pairs) {
        for (way, times, prices) in &mut open {
            if way.why_not.is_some() {
                continue;
            }
            let mut shown = |aligned| {
                let report = run(&half(way.placement, aligned, seed.wrapping_add(pair)));
                show(&report.map_err(|error| error.to_string())?)
            };
            let both = if pair.is_multiple_of(2) {
                shown(true).and_then(|control| Ok((control, shown(false)?)))
            } else {
                shown(false).and_then(|storm| Ok((shown(true)?, storm)))
            };
            match both {
                Ok((control, storm)) => {
                    way.pairs += 1;
                    way.activated += u32::from(storm.activated);
                    way.ended += u32::from(storm.ended);
                    let [quiet, aligned, split] = times;
                    quiet.add(storm.quiet, pair);
                    aligned.add(control.during, pair);
                    split.add(storm.during, pair);
                    if let Some(price) = storm.price {
                        let [within, across] = prices;
                        within.add(price.aligned_ps / 1000, false, Cluster::Own(pair));
                        across.add(price.split_ps / 1000, false, Cluster::Own(pair));
                    }
                }
                Err(why) => way.why_not = Some(why),
            }
        }
    }
    let closed = open.into_iter().map(|(way, times, prices)| {
        let [quiet, aligned, split] = times.map(|times| times.read(seed));
        let [within_ns, across_ns] = prices.map(|price| price.spread(seed));
        SplitLock {
            quiet,
            aligned,
            split,
            within_ns,
            across_ns,
            ..way
        }
    });
    SplitLocks {
        ways: closed.collect(),
        host: host(),
    }
}

/// What this host could do about split locks.
fn host() -> Vec<Fact> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kvm = match Kvm::open() {
        Ok(kvm) if kvm.stops_bus_locks() => "offered, and used: a guest ends at its first",
        Ok(_) => "not offered: nothing ends a guest for it",
        Err(_) => "no KVM",
    };
    facts(
        &read("/proc/cpuinfo"),
        &read("/proc/cmdline"),
        &read("/proc/sys/kernel/split_lock_mitigate"),
        kvm,
    )
}

fn facts(cpuinfo: &str, command: &str, mitigate: &str, kvm: &str) -> Vec<Fact> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags = flags.unwrap_or_default();
    let has = |flag: &str| match flags.split_whitespace().any(|word| word == flag) {
        true => "yes",
        false => "no: the processor or its hypervisor does not offer it",
    };
    let asked = command
        .split_whitespace()
        .find_map(|word| word.strip_prefix("split_lock_detect="));
    let mitigate = match mitigate.trim() {
        "" => "absent: this kernel detects none",
        "0" => "0: who is detected making one is told of in the log, and goes on",
        "1" => "1: who is detected making one is slowed down",
        other => other,
    };
    [
        ("processor flag split_lock_detect", has("split_lock_detect")),
        ("processor flag bus_lock_detect", has("bus_lock_detect")),
        (
            "kernel parameter split_lock_detect",
            asked.unwrap_or("not given"),
        ),
        ("/proc/sys/kernel/split_lock_mitigate", mitigate),
        ("KVM_CAP_X86_BUS_LOCK_EXIT", kvm),
    ]
    .map(|(name, value)| Fact {
        name: name.to_owned(),
        value: value.to_owned(),
    })
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_placement::trial::{Fault, SharedMemory};

    const PLACES: [PlacementId; 2] = USUAL;

    fn is_control(fault: &Fault) -> bool {
        matches!(fault, Fault::B8 { aligned: true, .. })
    }

    /// A host on which split locks make reading six times as slow.
    fn report(spec: &TrialSpec) -> TrialReport {
        let mut report = crate::verdict::tests::good();
        let reading = |times: u64| Reading {
            in_order_ns: 240 * times,
            scattered_ns: 6000 * times,
            samples: 100,
        };
        let times = if is_control(&spec.fault) { 1 } else { 6 };
        report.activated = u32::from(times > 1);
        report.split_lock = (times > 1).then_some(Price {
            aligned_ps: 6_000,
            split_ps: 1_000_000,
            proves: true,
        });
        report.io[1].memory = Some(SharedMemory {
            quiet: reading(1),
            during: reading(times),
        });
        report
    }

    #[test]
    fn pairs_take_turns_and_the_factor_is_over_the_control() {
        let mut order = Vec::new();

        let found = measure(&PLACES, ENOUGH, 1, Some(Mechanism::KvmNative), |spec| {
            assert_eq!(spec.clock, ClockKind::Wall);
            order.push((spec.placement, spec.seed, is_control(&spec.fault)));
            Ok(report(spec))
        });

        assert_eq!(
            order[..8].iter().map(|one| one.2).collect::<Vec<_>>(),
            [true, false, true, false, false, true, false, true]
        );
        assert_eq!(order[0].1, order[1].1);
        for way in &found.ways {
            assert_eq!((way.pairs, way.activated, way.ended), (ENOUGH, ENOUGH, 0));
            assert_eq!(way.slowed_tenths(|read| read.in_order), Some(60));
            assert_eq!(way.slowed_tenths(|read| read.scattered), Some(60));
            let price = [way.within_ns, way.across_ns].map(|of| of.map(|of| of.median_ns));
            assert_eq!(price, [Some(6), Some(1000)]);
            assert!(!way.is_slowed_down());
            let split = way.split.as_ref().expect("it was measured");
            assert!(split.in_order.median_interval.is_some());
        }
        assert_eq!(found.ways[1].mechanism, Mechanism::KvmNative);
    }

    #[test]
    fn placement_that_fails_says_why_and_the_other_is_measured() {
        let found = measure(&PLACES, 3, 1, None, |spec| match spec.placement {
            PlacementId::DriverVm => Err(EngineError::Infrastructure("no KVM".into())),
            _ => Ok(report(spec)),
        });

        assert_eq!(found.ways[0].pairs, 3);
        assert_eq!(found.ways[1].pairs, 0);
        assert_eq!(found.ways[1].slowed_tenths(|read| read.in_order), None);
        assert_eq!(found.ways[1].why_not.as_deref(), Some("no KVM"));
    }

    #[test]
    fn storm_that_somebody_ends_is_counted() {
        let found = measure(&PLACES[..1], 2, 1, None, |spec| {
            let mut report = report(spec);
            if !is_control(&spec.fault) {
                let holder = report.domains.iter_mut().find(|domain| domain.holds_driver);
                holder.expect("one holds it").deaths.push("SIGBUS".into());
            }
            Ok(report)
        });

        assert_eq!((found.ways[0].pairs, found.ways[0].ended), (2, 2));
    }

    #[test]
    fn host_says_what_it_could_do() {
        let plain = facts("flags\t\t: fpu lm", "ro quiet", "", "no KVM");
        let guarded = facts(
            "processor: 0\nflags\t\t: fpu split_lock_detect",
            "split_lock_detect=fatal",
            "1\n",
            "offered",
        );

        assert!(plain[0].value.starts_with("no"), "{plain:?}");
        assert!(plain[3].value.starts_with("absent"), "{plain:?}");
        let values: Vec<&str> = guarded.iter().map(|fact| &fact.value[..]).collect();
        assert_eq!(values[0], "yes");
        assert_eq!(values[2], "fatal");
        assert!(values[3].starts_with('1'), "{guarded:?}");
    }
}
