//! What a crossing takes in time on this host, beside a bare ping-pong between two processes that
//! wait the same way: polling beside polling, sleeping beside sleeping.
//!
//! It is measured by the wall clock before the first trial, whatever clock the trials run by. The
//! figures are the host's: they are in `run.json` and `summary.json`, never in a record, and no
//! gate, prediction or comparison of runs looks at them. Every sample is a boot of its own, so that
//! the interval of the median is over boots.

use crate::engine::EngineError;
use crate::plan::Plan;
use crate::statistics::{Cluster, Distribution, ENOUGH, Spread};
use cofferdam_placement::crossing::{Rounds, Waiting};
use cofferdam_placement::trial::PlacementId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a sample takes beside its boot.
const SAMPLE: Duration = Duration::from_millis(1);
/// Round trips of the first, which says how many a sample needs.
const PILOT: u32 = 50;
/// Round trips of a sample, at most.
const MOST: u32 = 20_000;

/// One way of crossing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Crossing {
    /// How both sides wait.
    pub waiting: Waiting,
    /// The placement whose tenant makes empty requests; none for the bare ping-pong.
    #[serde(default)]
    pub placement: Option<PlacementId>,
    /// Round trips of a sample.
    pub rounds: u32,
    /// What one took there and back, ns: the mean of each sample, and how these spread.
    pub took: Option<Spread>,
    /// Why there is no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What was measured of crossings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Crossings {
    /// The ways of crossing, the bare ping-pongs first.
    pub ways: Vec<Crossing>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_none: Option<String>,
}

/// Trials from which on a run measures crossings: in a smaller one it would take longer than the
/// trials.
const LARGE: u64 = 1000;

impl Crossings {
    /// Those of a plan: of its placements if it is large enough, else none.
    pub fn of_plan(
        plan: &Plan,
        took: impl FnMut(Option<PlacementId>, Rounds) -> Result<u64, EngineError>,
    ) -> Self {
        if plan.len() < LARGE {
            return Self {
                ways: Vec::new(),
                why_none: Some(format!(
                    "a run of {} trials spends no time on it; one of {LARGE} does",
                    plan.len()
                )),
            };
        }
        let mut placements = Vec::new();
        for cell in plan.cells() {
            if !placements.contains(&cell.placement) {
                placements.push(cell.placement);
            }
        }
        measure(&placements, plan.settings().seed, took)
    }

    /// The bare ping-pong that waits that way.
    pub fn bare(&self, waiting: Waiting) -> Option<&Crossing> {
        let mut of = self.ways.iter().filter(|each| each.placement.is_none());
        of.find(|each| each.waiting == waiting)
    }

    /// The crossing of that placement.
    pub fn of(&self, placement: PlacementId, waiting: Waiting) -> Option<&Crossing> {
        let mut of = self
            .ways
            .iter()
            .filter(|each| each.placement == Some(placement));
        of.find(|each| each.waiting == waiting)
    }
}

/// Measures the bare crossing and those of some placements, in turn, so that what disturbs the host
/// for a while does not fall on one of them. `took` makes so many round trips in a fresh boot and
/// tells how long they took, ns; `seed` is that of the intervals.
pub fn measure(
    placements: &[PlacementId],
    seed: u64,
    mut took: impl FnMut(Option<PlacementId>, Rounds) -> Result<u64, EngineError>,
) -> Crossings {
    let ways = std::iter::once(None).chain(placements.iter().copied().map(Some));
    let mut open: Vec<(Crossing, Distribution)> = Vec::new();
    for placement in ways {
        for waiting in [Waiting::Spin, Waiting::Sleep] {
            let pilot = Rounds {
                waiting,
                count: PILOT,
            };
            let (rounds, why_not) = match took(placement, pilot) {
                Ok(ns) => (rounds_for(ns), None),
                Err(error) => (0, Some(error.to_string())),
            };
            let crossing = Crossing {
                waiting,
                placement,
                rounds,
                took: None,
                why_not,
            };
            open.push((crossing, Distribution::default()));
        }
    }
    for nth in 0..u64::from(ENOUGH) {
        for (way, times) in open.iter_mut().filter(|(way, _)| way.why_not.is_none()) {
            let rounds = Rounds {
                waiting: way.waiting,
                count: way.rounds,
            };
            match took(way.placement, rounds) {
                Ok(ns) => times.add(ns / u64::from(way.rounds.max(1)), false, Cluster::Own(nth)),
                Err(error) => way.why_not = Some(error.to_string()),
            }
        }
    }
    let closed = open.into_iter().map(|(way, times)| Crossing {
        took: times.spread(seed),
        ..way
    });
    Crossings {
        ways: closed.collect(),
        why_none: None,
    }
}

/// So many round trips that a sample takes [`SAMPLE`].
fn rounds_for(pilot_ns: u64) -> u32 {
    let each = (pilot_ns / u64::from(PILOT)).max(1);
    let sample = u64::try_from(SAMPLE.as_nanos()).unwrap_or(u64::MAX);
    let rounds = u32::try_from(sample / each).unwrap_or(u32::MAX);
    rounds.clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Filter, Settings};

    const PLACES: [PlacementId; 2] = [PlacementId::InKernel, PlacementId::Microkernel];

    #[test]
    fn every_way_is_measured_in_enough_boots_beside_a_bare_one_that_waits_the_same() {
        let crossings = measure(&PLACES, 1, |placement, rounds| {
            let each = if placement.is_none() { 100 } else { 400 };
            Ok(each * u64::from(rounds.count))
        });
        assert_eq!(crossings.ways.len(), 6);
        for waiting in [Waiting::Spin, Waiting::Sleep] {
            let bare = crossings.bare(waiting).and_then(|way| way.took);
            let bare = bare.expect("it was measured");
            let own = crossings.of(PLACES[1], waiting).and_then(|way| way.took);
            let own = own.expect("it was measured");
            assert_eq!((bare.median_ns, own.median_ns), (100, 400));
            assert_eq!(own.n, ENOUGH);
            assert!(own.median_interval.is_some());
        }
    }

    #[test]
    fn way_that_cannot_be_measured_says_why_and_the_others_are() {
        let crossings = measure(&PLACES, 1, |placement, rounds| {
            match (placement, rounds.waiting) {
                (Some(PlacementId::Microkernel), Waiting::Spin) => {
                    Err(EngineError::Infrastructure("three poll, two cores".into()))
                }
                _ => Ok(1000),
            }
        });
        let without: Vec<_> = crossings
            .ways
            .iter()
            .filter(|way| way.took.is_none())
            .collect();
        assert_eq!(without.len(), 1);
        assert_eq!(without[0].why_not.as_deref(), Some("three poll, two cores"));
    }

    #[test]
    fn small_run_measures_nothing_and_says_so() {
        let filter = Filter {
            faults: vec!["X1".into()],
            ..Filter::default()
        };
        let plan = Plan::new(Settings::QUICK, filter).expect("the filter leaves trials");
        let mut asked = 0;
        let crossings = Crossings::of_plan(&plan, |_, _| {
            asked += 1;
            Ok(1)
        });
        assert_eq!((crossings.ways.len(), asked), (0, 0));
        assert!(crossings.why_none.is_some());
    }

    #[test]
    fn sample_has_as_many_rounds_as_its_time_allows() {
        assert_eq!(rounds_for(50 * 100), 10_000);
        assert_eq!(rounds_for(50 * 100_000), 10);
        assert_eq!(rounds_for(0), MOST);
        assert_eq!(rounds_for(u64::MAX), 1);
    }
}
