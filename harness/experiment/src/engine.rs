//! What runs a trial.

use crate::environment::{Fact, Unavailable};
use cofferdam_placement::crossing::Rounds;
use cofferdam_placement::trace::Trace;
use cofferdam_placement::trial::{DriverId, Fault, PlacementId, TrialReport, TrialSpec};
use cofferdam_placement::zygote::{Zygote, ZygoteError};
use thiserror::Error;

/// Why an engine could not run a trial. Never a finding.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// The harness failed: a process could not be started or was killed from outside. Worth trying
    /// again with a fresh engine.
    #[error("{0}")]
    Infrastructure(String),
    /// This host lacks something every trial needs. Trying again is no use.
    #[error("this host cannot run trials: {0}")]
    Unavailable(String),
}

/// Runs trials, one at a time. The caller drops an engine that failed and starts a fresh one.
pub trait Engine {
    /// Runs a trial to its end.
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError>;

    /// Runs trials in one boot: the first, and as many of those that follow as find everything as it
    /// did, or none of them. There is at least one.
    fn run_boot(&mut self, specs: &[TrialSpec]) -> Result<Vec<TrialReport>, EngineError> {
        match specs.first() {
            Some(first) => Ok(vec![self.run(first)?]),
            None => Ok(Vec::new()),
        }
    }

    /// What the environment should say about how domains are kept apart here: `seccomp`,
    /// `landlock` and their states. The same in every run on one host.
    fn facts(&self) -> Vec<Fact>;

    /// What this engine could not use, and why.
    fn unavailable(&self) -> Vec<Unavailable>;
}

/// Trials with every domain a process.
#[derive(Debug)]
pub struct Processes(Zygote);

impl Processes {
    /// Starts the engine from this very program, which must hand the argument
    /// [`ARGUMENT`](cofferdam_placement::zygote::ARGUMENT) to the zygote. A clean trial, which
    /// nobody records, shows first whether this host can run any and how it confines its domains.
    pub fn start() -> Result<Self, EngineError> {
        let program = std::env::current_exe().map_err(|error| {
            EngineError::Infrastructure(format!("cannot find this program's file: {error}"))
        })?;
        let mut zygote = Zygote::launch(&program).map_err(infrastructure)?;
        let probe = TrialSpec::new(PlacementId::InKernel, DriverId::Edu, Fault::None);
        match zygote.run(&probe) {
            Ok(_) => Ok(Self(zygote)),
            Err(ZygoteError::Failed(why)) => Err(EngineError::Unavailable(why)),
            Err(error) => Err(infrastructure(error)),
        }
    }
}

impl Processes {
    /// Runs trials as [`Engine::run_boot`] does and writes down what happens in the boot.
    pub fn run_traced(
        &mut self,
        specs: &[TrialSpec],
    ) -> Result<(Vec<TrialReport>, Trace), EngineError> {
        self.0.run_boot_traced(specs).map_err(infrastructure)
    }

    /// Makes so many round trips, a tenant's empty requests in that placement or a bare ping-pong,
    /// by the wall clock, and tells how long they took, ns.
    pub fn round_trips(
        &mut self,
        placement: Option<PlacementId>,
        rounds: Rounds,
    ) -> Result<u64, EngineError> {
        let took = match placement {
            Some(placement) => self.0.crossing(placement, rounds),
            None => self.0.ping_pong(rounds),
        };
        took.map_err(infrastructure)
    }
}

fn infrastructure(error: ZygoteError) -> EngineError {
    EngineError::Infrastructure(error.to_string())
}

impl Engine for Processes {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        self.0.run(spec).map_err(infrastructure)
    }

    fn run_boot(&mut self, specs: &[TrialSpec]) -> Result<Vec<TrialReport>, EngineError> {
        self.0.run_boot(specs).map_err(infrastructure)
    }

    fn facts(&self) -> Vec<Fact> {
        let confinement = self.0.confinement().unwrap_or_default();
        [
            ("seccomp", confinement.seccomp, "allowlist, else EPERM"),
            ("landlock", confinement.landlock, "no file can be opened"),
            (
                "identity",
                confinement.dropped_identity,
                "nobody, no capabilities",
            ),
        ]
        .map(|(name, holds, means)| Fact {
            name: name.to_owned(),
            value: if holds { means } else { "not used" }.to_owned(),
        })
        .to_vec()
    }

    fn unavailable(&self) -> Vec<Unavailable> {
        let confinement = self.0.confinement().unwrap_or_default();
        let missing = |holds: bool, what: &str, why: &str| {
            (!holds).then(|| Unavailable {
                what: what.to_owned(),
                why: why.to_owned(),
            })
        };
        [
            missing(
                confinement.landlock,
                "landlock",
                "this kernel has none; seccomp still refuses to open files",
            ),
            missing(
                confinement.dropped_identity,
                "a user of its own for every domain",
                "started without root; domains run as the user who started the run",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
