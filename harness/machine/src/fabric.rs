//! The fabric between CPUs and functions: what becomes of a request that cannot be carried out at
//! once, or that nobody answers.
//!
//! Honest traffic takes no device time and meets nothing of this. The CPU has no write buffer: a
//! posted write that the fabric cannot take stops it as a read does.

use crate::aer::{ErrorLog, ErrorRecord, PortError, Severity};
use crate::arbiter::Arbiter;
use crate::config::{Config, FabricKind, TimeoutEnds};
use crate::topology::{Place, Topology, Window};
use cofferdam_seam::{Completion, RequesterId, Time, Violation, Width};
use std::time::Duration;

/// Functions there can be; each has a bus number of its own, from bus 1 on.
pub(crate) const PORTS: usize = 64;

/// From one attempt to the next of a transaction that ends in retry: eight clocks of 33 MHz for
/// address, DEVSEL#, STOP#, turn-around and the two clocks that REQ# has to be released
/// (PCI Local Bus 3.0, 3.3.3.2.2).
const RETRY: Duration = Duration::from_nanos(240);

/// How long a link may go without flow control updates until that is an error, which a receiver need
/// not look for (PCI Express Base 6.0, 2.6.1.2). Ports with containment here do.
const CREDIT_LIMIT: Duration = Duration::from_micros(200);

/// How a read that no completion ended in time, or ended late, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The CPU reads all ones.
    AllOnes,
    /// The CPU reads that.
    Value(u64),
    /// The platform reports a fatal error: the system stops.
    MachineCheck,
    /// The access was not carried out: it is made again.
    Again,
}

/// What a CPU sees of a non-posted read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// It is done. All ones also where nobody answers at once: no such device or BAR, decoding
    /// switched off, the access misaligned or aborted.
    Done(u64),
    /// No completion came. The CPU that reads stands still.
    Waiting {
        /// Until then; for ever if none.
        until: Option<Time>,
        /// How it ends then.
        then: Ending,
    },
}

/// What a CPU sees of a posted write.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is on its way, or nobody was there.
    Done,
    /// The fabric did not take it. The CPU that writes stands still, and writes again.
    Waiting {
        /// At that time; never if none.
        until: Option<Time>,
    },
}

/// What stops a request of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nothing.
    Open,
    /// There is nobody there.
    Nobody,
    /// It waits until then.
    Waits(Time),
}

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Posted,
    NonPosted,
}

/// The state of the link to a function.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Until when posted requests get no credits.
    posted: Time,
    /// Until when non-posted requests get none.
    non_posted: Time,
    /// It went down, until then. The function has lost its state and is there again only after a
    /// reset.
    down: Option<Time>,
    /// From when on its port is contained.
    contained: Option<Time>,
}

impl Link {
    fn is_lost(&self, now: Time) -> bool {
        self.down.is_some() || self.contained.is_some_and(|from| from <= now)
    }

    fn is_well(&self, now: Time) -> bool {
        self.down.is_none()
            && self.contained.is_none()
            && self.posted <= now
            && self.non_posted <= now
    }
}

/// The fabric.
#[derive(Debug)]
pub(crate) struct Fabric {
    kind: FabricKind,
    timeout: Option<Duration>,
    then: Ending,
    fatal: bool,
    /// Whether the root complex forwards requests from one root port to another.
    pub(crate) forwards: bool,
    pub(crate) topology: Topology,
    pub(crate) errors: ErrorLog,
    arbiter: Arbiter,
    links: Vec<Link>,
    /// Every access goes straight through: the hot path asks nothing else.
    pub(crate) quiet: bool,
}

impl Fabric {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            kind: config.fabric,
            timeout: config
                .fabric
                .times_out()
                .then_some(config.completion_timeout),
            then: match config.timeout_ends {
                TimeoutEnds::AllOnes => Ending::AllOnes,
                TimeoutEnds::MachineCheck => Ending::MachineCheck,
            },
            fatal: config.errors_are_fatal,
            forwards: config.peer_to_peer,
            topology: Topology::new(config),
            errors: ErrorLog::new(config.error_log),
            arbiter: Arbiter::default(),
            links: Vec::new(),
            quiet: true,
        }
    }

    pub(crate) fn attach(&mut self, place: Place, windows: Vec<Window>) {
        self.topology.attach(place, windows);
        self.links.push(Link::default());
    }

    /// Finds out whether everything is as it should be.
    pub(crate) fn settle(&mut self, now: Time) {
        self.quiet = self.arbiter.is_free(now)
            && self.links.iter().all(|link| link.is_well(now))
            && !self.topology.moved();
    }

    /// What stops a CPU's request to the function in `slot`.
    pub(crate) fn passage(&mut self, slot: usize, kind: Kind, now: Time) -> Passage {
        self.settle(now);
        let Some(link) = self.links.get(slot).filter(|_| !self.quiet) else {
            return Passage::Open;
        };
        if link.is_lost(now) {
            return Passage::Nobody;
        }
        if let Some(until) = self.arbiter.keeps_out(None, Some(slot), now) {
            return Passage::Waits(until);
        }
        let credits = match kind {
            Kind::Posted => link.posted,
            Kind::NonPosted => link.non_posted,
        };
        if credits > now {
            // Whatever comes first: credits, or the port's patience.
            return Passage::Waits(credits.min(link.contained.unwrap_or(Time::NEVER)));
        }
        Passage::Open
    }

    /// Until when a request of the function in `slot` to that target (none: memory) has to wait.
    pub(crate) fn keeps_out(&self, slot: usize, target: Option<usize>, now: Time) -> Option<Time> {
        self.arbiter.keeps_out(Some(slot), target, now)
    }

    /// Whether the function can reach anybody, and be reached.
    pub(crate) fn is_joined(&self, slot: usize, now: Time) -> bool {
        self.links.get(slot).is_some_and(|link| !link.is_lost(now))
    }

    /// Whether a configuration request gets to the function, as one that resets it has to.
    pub(crate) fn is_reachable(&mut self, slot: usize, now: Time) -> bool {
        self.passage(slot, Kind::NonPosted, now) == Passage::Open
    }

    /// When the link of the function is up again, if it went down; [`Time::NEVER`]: it will not be.
    pub(crate) fn up_again(&self, slot: usize) -> Option<Time> {
        self.links[slot].down
    }

    /// Functions that a reset of one's secondary bus resets too, with itself: all on that bus, and
    /// all behind the same contained port, whose link goes down and up for it.
    pub(crate) fn reset_with(&self, slot: usize) -> Vec<usize> {
        let contained = |slot: usize| self.links[slot].contained.is_some();
        let along = |other: &usize| {
            self.topology.share_bus(slot, *other)
                || (self.topology.share_root_port(slot, *other)
                    && contained(slot)
                    && contained(*other))
        };
        self.topology.slots().filter(along).collect()
    }

    /// The bus or link of the function was reset: credits start anew, RST# takes every grant and lock
    /// back, containment is released. What is away stays away.
    pub(crate) fn reset_bus(&mut self, slot: usize, now: Time) {
        let link = &mut self.links[slot];
        let down = link.down.filter(|&until| until > now);
        *link = Link {
            down,
            ..Link::default()
        };
        self.topology.put_back(slot);
        self.arbiter.release();
        self.settle(now);
    }

    /// The function is back: its link is up, or it was reset by itself.
    pub(crate) fn rejoin(&mut self, slot: usize, now: Time) {
        self.links[slot].down = None;
        self.topology.put_back(slot);
        self.settle(now);
    }

    /// What a CPU sees of a read that ended so.
    pub(crate) fn ended(
        &mut self,
        by: RequesterId,
        slot: usize,
        completion: Completion,
        width: Width,
        now: Time,
    ) -> Read {
        let ones = width.all_ones();
        match completion {
            Completion::Data(value) => Read::Done(value & ones),
            Completion::Never => self.unanswered(by, slot, now),
            Completion::After { delay, value } => self.late(by, slot, now, delay, value & ones),
            Completion::Retry { times } if self.kind == FabricKind::Pci => Read::Waiting {
                until: (times < u32::MAX).then(|| now + RETRY.saturating_mul(times)),
                then: Ending::Again,
            },
            Completion::Poisoned | Completion::Abort if self.kind.is_express() => {
                let error = if completion == Completion::Abort {
                    PortError::CompleterAbort
                } else {
                    PortError::Poisoned
                };
                self.uncorrectable(by, slot, error, ones, now)
            }
            // A completion that this fabric does not know is none of a request's.
            Completion::Retry { .. }
            | Completion::Poisoned
            | Completion::Abort
            | Completion::Unsupported => Read::Done(ones),
        }
    }

    /// A read begun now that no completion will end.
    fn unanswered(&mut self, by: RequesterId, slot: usize, now: Time) -> Read {
        if self.kind == FabricKind::Pci {
            // Its target holds the bus in wait states.
            self.arbiter.hold(None, Time::NEVER);
            self.quiet = false;
        }
        let Some(timeout) = self.timeout else {
            return Read::Waiting {
                until: None,
                then: self.then,
            };
        };
        let until = now + timeout;
        let mut then = self.then;
        if self.kind == FabricKind::PcieDpc {
            // What the platform would stop for is what containment is for (6.2.11.3).
            then = Ending::AllOnes;
            self.contain_root_port(slot, until);
        }
        self.log(by, PortError::CompletionTimeout, Severity::NonFatal, until);
        Read::Waiting {
            until: Some(until),
            then,
        }
    }

    fn late(
        &mut self,
        by: RequesterId,
        slot: usize,
        now: Time,
        delay: Duration,
        value: u64,
    ) -> Read {
        if delay.is_zero() {
            return Read::Done(value);
        }
        let comes = now + delay;
        if self.timeout.is_some_and(|timeout| delay >= timeout) {
            if self.kind == FabricKind::Pcie {
                let severity = Severity::Correctable;
                self.log(by, PortError::UnexpectedCompletion, severity, comes);
            }
            return self.unanswered(by, slot, now);
        }
        if self.kind == FabricKind::Pci {
            self.arbiter.hold(None, comes);
            self.quiet = false;
        }
        Read::Waiting {
            until: Some(comes),
            then: Ending::Value(value),
        }
    }

    /// A completion that says it is bad. The CPU is given all ones in its stead (2.7.2, 2.3.2).
    fn uncorrectable(
        &mut self,
        by: RequesterId,
        slot: usize,
        error: PortError,
        ones: u64,
        now: Time,
    ) -> Read {
        let severity = if self.fatal {
            Severity::Fatal
        } else {
            Severity::NonFatal
        };
        self.log(by, error, severity, now);
        match (self.fatal, self.kind) {
            (false, _) => Read::Done(ones),
            (true, FabricKind::PcieDpc) => {
                self.contain_root_port(slot, now);
                Read::Done(ones)
            }
            (true, _) => Read::Waiting {
                until: Some(now),
                then: Ending::MachineCheck,
            },
        }
    }

    /// Carries out a breach of the rules, if this fabric has the rule.
    pub(crate) fn violate(
        &mut self,
        by: RequesterId,
        slot: usize,
        target: Option<usize>,
        what: Violation,
        now: Time,
    ) -> bool {
        let shared = !self.kind.is_express();
        let done = match what {
            Violation::HoldGrant { time } if shared => {
                self.arbiter.hold(Some(slot), now + time);
                true
            }
            Violation::Lock { time, .. } if shared => {
                self.arbiter.lock(slot, target, now + time, now)
            }
            Violation::StarveCredits { posted, time } if !shared => {
                self.starve(by, slot, posted, time, now);
                true
            }
            Violation::LinkDown { time } if !shared => {
                self.links[slot].down = Some(time.map_or(Time::NEVER, |time| now + time));
                self.log(by, PortError::SurpriseDown, Severity::Fatal, now);
                if self.kind == FabricKind::PcieDpc {
                    self.links[slot].contained = Some(now);
                }
                true
            }
            Violation::MoveBar { bar, to } => self.topology.move_bar(slot, bar, to),
            Violation::HoldGrant { .. }
            | Violation::Lock { .. }
            | Violation::StarveCredits { .. }
            | Violation::LinkDown { .. }
            | Violation::IgnoreReset
            | Violation::SlowReset { .. } => false,
        };
        self.settle(now);
        done
    }

    /// A request that waits for credits was not transmitted, so no completion timeout runs (2.8).
    fn starve(&mut self, by: RequesterId, slot: usize, posted: bool, time: Duration, now: Time) {
        let until = now + time;
        let link = &mut self.links[slot];
        if posted {
            link.posted = link.posted.max(until);
        } else {
            link.non_posted = link.non_posted.max(until);
        }
        if self.kind == FabricKind::PcieDpc && time > CREDIT_LIMIT {
            let limit = now + CREDIT_LIMIT;
            link.contained = Some(link.contained.map_or(limit, |from| from.min(limit)));
            self.log(by, PortError::FlowControl, Severity::Fatal, limit);
        }
    }

    /// A root port that is contained takes everything behind it along.
    fn contain_root_port(&mut self, slot: usize, from: Time) {
        for other in self.topology.slots() {
            if self.topology.share_root_port(slot, other) {
                let contained = &mut self.links[other].contained;
                *contained = Some(contained.map_or(from, |earlier| earlier.min(from)));
            }
        }
        self.quiet = false;
    }

    fn log(&mut self, source: RequesterId, error: PortError, severity: Severity, at: Time) {
        self.errors.enter(ErrorRecord {
            at,
            source,
            error,
            severity,
        });
    }
}

/// The requester in that slot: device 0, function 0 of the port's bus.
pub(crate) fn requester(slot: usize) -> RequesterId {
    let bus = u8::try_from(slot + 1).expect("there are fewer root ports than buses");
    RequesterId::new(bus, 0, 0)
}

/// The slot of a requester; for one behind no root port, a number that no slot has.
#[inline]
pub(crate) fn slot(id: RequesterId) -> usize {
    // The bus becomes the low byte, and a device or function other than 0 makes it too large.
    usize::from(id.0.rotate_right(8)).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: RequesterId = RequesterId::new(1, 0, 0);

    fn fabric(kind: FabricKind, places: &[Place]) -> Fabric {
        let mut fabric = Fabric::new(&Config {
            fabric: kind,
            completion_timeout: Duration::from_micros(50),
            timeout_ends: TimeoutEnds::MachineCheck,
            ..Config::default()
        });
        for &place in places {
            fabric.attach(place, Vec::new());
        }
        fabric
    }

    fn end(fabric: &mut Fabric, completion: Completion) -> Read {
        fabric.ended(ONE, 0, completion, Width::Four, Time(1))
    }

    #[test]
    fn slots_and_requesters_match() {
        for nth in 0..PORTS {
            assert_eq!(slot(requester(nth)), nth);
        }
        assert_eq!(requester(0), RequesterId::new(1, 0, 0));
    }

    #[test]
    fn requester_behind_no_port_has_no_slot() {
        for id in [RequesterId::new(0, 0, 0), RequesterId::new(1, 0, 1)] {
            assert!(slot(id) >= PORTS, "{id}");
        }
    }

    #[test]
    fn unanswered_read_ends_as_configured() {
        for (kind, until, then) in [
            (FabricKind::Pci, None, Ending::MachineCheck),
            (FabricKind::PcieNotimeout, None, Ending::MachineCheck),
            (FabricKind::Pcie, Some(Time(50_001)), Ending::MachineCheck),
            (FabricKind::PcieDpc, Some(Time(50_001)), Ending::AllOnes),
        ] {
            let mut fabric = fabric(kind, &[Place::RootPort]);
            let read = end(&mut fabric, Completion::Never);
            assert_eq!(read, Read::Waiting { until, then }, "{kind:?}");
        }
    }

    #[test]
    fn unanswered_read_on_a_shared_bus_keeps_everybody_waiting() {
        let mut fabric = fabric(FabricKind::Pci, &[Place::RootPort; 2]);
        end(&mut fabric, Completion::Never);
        let passage = fabric.passage(1, Kind::Posted, Time(9));
        assert_eq!(passage, Passage::Waits(Time::NEVER));
        assert!(fabric.keeps_out(1, None, Time(9)).is_some());
    }

    #[test]
    fn timeout_contains_the_root_port_with_all_behind_it() {
        let places = [Place::Switch, Place::Switch, Place::RootPort];
        let mut fabric = fabric(FabricKind::PcieDpc, &places);

        end(&mut fabric, Completion::Never);

        let open = fabric.passage(0, Kind::NonPosted, Time(50_000));
        assert_eq!(open, Passage::Open);
        let after: Vec<Passage> = (0..3)
            .map(|slot| fabric.passage(slot, Kind::NonPosted, Time(50_001)))
            .collect();
        assert_eq!(after, [Passage::Nobody, Passage::Nobody, Passage::Open]);
        assert_eq!(fabric.reset_with(0), [0, 1]);
    }

    #[test]
    fn late_completion_brings_its_data_unless_the_timeout_came_first() {
        let late = |us| Completion::After {
            delay: Duration::from_micros(us),
            value: 0x1_0000_0007,
        };
        let mut fabric = fabric(FabricKind::Pcie, &[Place::RootPort]);
        assert_eq!(end(&mut fabric, late(0)), Read::Done(7));
        assert_eq!(
            end(&mut fabric, late(49)),
            Read::Waiting {
                until: Some(Time(49_001)),
                then: Ending::Value(7)
            }
        );
        assert_eq!(
            end(&mut fabric, late(60)),
            Read::Waiting {
                until: Some(Time(50_001)),
                then: Ending::MachineCheck
            }
        );
        let (errors, _) = fabric.errors.by(Time(60_001));
        let what: Vec<PortError> = errors.iter().map(|record| record.error).collect();
        assert_eq!(
            what,
            [
                PortError::CompletionTimeout,
                PortError::UnexpectedCompletion
            ]
        );
    }

    #[test]
    fn retry_is_for_shared_buses_only() {
        let retry = |times| Completion::Retry { times };
        let mut shared = fabric(FabricKind::Pci, &[Place::RootPort]);
        assert_eq!(
            end(&mut shared, retry(10)),
            Read::Waiting {
                until: Some(Time(2401)),
                then: Ending::Again
            }
        );
        assert_eq!(
            end(&mut shared, retry(u32::MAX)),
            Read::Waiting {
                until: None,
                then: Ending::Again
            }
        );
        let mut express = fabric(FabricKind::Pcie, &[Place::RootPort]);
        assert_eq!(end(&mut express, retry(10)), Read::Done(0xffff_ffff));
    }

    #[test]
    fn bad_data_are_all_ones_and_fatal_only_where_the_platform_says_so() {
        for completion in [Completion::Poisoned, Completion::Abort] {
            for kind in [FabricKind::Pcie, FabricKind::PcieDpc] {
                let mut mild = fabric(kind, &[Place::RootPort]);
                assert_eq!(end(&mut mild, completion), Read::Done(0xffff_ffff));
                assert_eq!(mild.passage(0, Kind::Posted, Time(2)), Passage::Open);
                let (errors, _) = mild.errors.by(Time(1));
                assert_eq!(errors[0].severity, Severity::NonFatal);

                let mut fatal = fabric(kind, &[Place::RootPort]);
                fatal.fatal = true;
                let read = end(&mut fatal, completion);
                let contained = fatal.passage(0, Kind::Posted, Time(2)) == Passage::Nobody;
                assert_eq!(contained, kind == FabricKind::PcieDpc);
                assert_eq!(read == Read::Done(0xffff_ffff), contained);
            }
        }
    }

    #[test]
    fn starved_requests_wait_for_credits_or_for_the_ports_patience() {
        let starve = |posted, ms| Violation::StarveCredits {
            posted,
            time: Duration::from_millis(ms),
        };
        let mut plain = fabric(FabricKind::Pcie, &[Place::RootPort]);
        assert!(plain.violate(ONE, 0, None, starve(true, 80), Time(0)));
        let waits = plain.passage(0, Kind::Posted, Time(5));
        // Beyond the completion timeout, which does not run.
        assert_eq!(waits, Passage::Waits(Time(80_000_000)));
        assert_eq!(plain.passage(0, Kind::NonPosted, Time(5)), Passage::Open);
        assert_eq!(plain.errors.by(Time::NEVER).0, []);

        let mut contained = fabric(FabricKind::PcieDpc, &[Place::RootPort]);
        assert!(contained.violate(ONE, 0, None, starve(false, 80), Time(0)));
        let waits = contained.passage(0, Kind::NonPosted, Time(5));
        assert_eq!(waits, Passage::Waits(Time(200_000)));
        let then = contained.passage(0, Kind::NonPosted, Time(200_000));
        assert_eq!(then, Passage::Nobody);
    }

    #[test]
    fn rules_of_the_other_kind_of_fabric_cannot_be_broken() {
        let time = Duration::from_millis(1);
        let shared = [
            Violation::HoldGrant { time },
            Violation::Lock { target: None, time },
        ];
        let express = [
            Violation::StarveCredits { posted: true, time },
            Violation::LinkDown { time: Some(time) },
        ];
        for kind in FabricKind::ALL {
            for (violations, on) in [(shared, !kind.is_express()), (express, kind.is_express())] {
                for what in violations {
                    let mut fabric = fabric(kind, &[Place::RootPort]);
                    let done = fabric.violate(ONE, 0, None, what, Time(0));
                    assert_eq!(done, on, "{kind:?} {what:?}");
                    assert_eq!(fabric.quiet, !on, "{kind:?} {what:?}");
                }
            }
        }
    }

    #[test]
    fn link_that_went_down_is_away_until_the_function_is_reset() {
        let mut fabric = fabric(FabricKind::Pcie, &[Place::RootPort]);
        let time = Some(Duration::from_micros(1));
        fabric.violate(ONE, 0, None, Violation::LinkDown { time }, Time(0));
        assert_eq!(
            fabric.passage(0, Kind::Posted, Time(9_000)),
            Passage::Nobody
        );
        assert!(!fabric.is_joined(0, Time(9_000)));
        fabric.reset_bus(0, Time(9_000));
        assert_eq!(fabric.passage(0, Kind::Posted, Time(9_000)), Passage::Open);
        assert!(fabric.quiet);
    }
}
