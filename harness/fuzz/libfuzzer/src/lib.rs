//! The fuzzer's targets as programs of libFuzzer, for those who use cargo-fuzz, OSS-Fuzz or ClusterFuzz.
//!
//! libFuzzer brings bytes, and keeps those that reach new code. They become a program, which runs through
//! the same executor and oracles as in a campaign of `cofferdam fuzz`. A defect ends the process with its
//! signature and its trace; where [`OUT`] names a directory, it is first written there as a finding that
//! `cofferdam replay` takes, and what is there already is passed over, so the next run finds the next.
//!
//! What bytes mean depends on the driver and its model: a corpus of libFuzzer's is of one version. What lasts
//! is the program of a finding. Left out: AddressSanitizer, which here is `cofferdam fuzz --asan`, and
//! libFuzzer's own mutators of structure: bytes are changed as bytes.

#![forbid(unsafe_code)]

use arbitrary::Unstructured;
use cofferdam_fuzz::campaign::CampaignError;
use cofferdam_fuzz::executor::Executor;
use cofferdam_fuzz::finding::{Found, explain, look};
use cofferdam_fuzz::generate::Generator;
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::random::Random;
use cofferdam_fuzz::target::Target;
use cofferdam_fuzz::world::Detail;
use cofferdam_instrument::constants;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::{env, io};

#[doc(hidden)]
pub use {cofferdam_fuzz, libfuzzer_sys};

/// The environment variable that names the directory of findings.
pub const OUT: &str = "COFFERDAM_OUT";

/// Programs by which it is learnt what a driver does, before bytes get their meaning.
const LESSONS: usize = 512;

/// Bytes of each of them.
const LESSON: usize = 512;

/// A program of libFuzzer for one target; the file starts with `#![no_main]`.
#[macro_export]
macro_rules! fuzz {
    ($target:expr) => {
        #[global_allocator]
        static HEAP: $crate::cofferdam_fuzz::arena::Heap = $crate::cofferdam_fuzz::arena::Heap;

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::run($target, bytes));
    };
}

/// One target in this process.
struct Fuzzed {
    executor: Executor,
    generator: Generator,
    out: Option<PathBuf>,
    /// What was seen, and how often.
    keys: HashMap<u64, u32>,
    /// Findings that are passed over.
    known: HashSet<String>,
}

thread_local! {
    static FUZZED: RefCell<Option<Fuzzed>> = const { RefCell::new(None) };
}

/// Runs the program that the bytes make.
///
/// # Panics
///
/// The driver has a defect: its signature, the program and the trace. libFuzzer ends the process then.
pub fn run(target: &'static dyn Target, bytes: &[u8]) {
    let found = FUZZED.with_borrow_mut(|fuzzed| {
        if fuzzed.is_none() {
            *fuzzed = Some(Fuzzed::new(target)?);
        }
        match fuzzed {
            Some(fuzzed) => fuzzed.run(bytes),
            None => Ok(None),
        }
    });
    match found {
        Ok(None) => {}
        Ok(Some(found)) => panic!("{}", told(&found, target)),
        Err(error) => {
            // It is not the driver's fault, and not a finding.
            eprintln!("cofferdam: {error}");
            std::process::exit(3);
        }
    }
}

fn told(found: &Found, target: &dyn Target) -> String {
    let program = text::print(&found.program, target.name(), target.calls());
    format!("{}\n\n{program}\n{}", found.finding.signature, found.trace)
}

impl Fuzzed {
    fn new(target: &'static dyn Target) -> io::Result<Self> {
        let mut executor = Executor::new(target)?;
        let mut generator = Generator::new(target.calls());
        let mut random = Random::new(0);
        for _ in 0..LESSONS {
            let program = program_of(&generator, &random.bytes::<LESSON>());
            let outcome = executor.run(&program, Detail::Fast)?;
            executor.recycle(outcome);
        }
        generator.learn(executor.sketch());
        generator.try_values(constants::seen());
        // From now on the same bytes are the same program.
        constants::note(false);
        Ok(Self {
            executor,
            generator,
            out: env::var_os(OUT).map(PathBuf::from),
            keys: HashMap::new(),
            known: HashSet::new(),
        })
    }

    /// Runs the program of these bytes; the first defect that is not passed over.
    fn run(&mut self, bytes: &[u8]) -> Result<Option<Found>, CampaignError> {
        let program = program_of(&self.generator, bytes);
        let outcome = self.executor.run(&program, Detail::Fast)?;
        let mut new = false;
        for sighting in &outcome.sightings {
            // One key may stand for more than one place: it is looked at again, ever more rarely.
            let seen = self.keys.entry(sighting.key).or_default();
            *seen = seen.saturating_add(1);
            new |= seen.is_power_of_two();
        }
        let abandoned = outcome.abandoned;
        self.executor.recycle(outcome);
        if !new {
            return Ok(None);
        }
        let shown = look(&mut self.executor, &program)?;
        if shown.is_empty() && abandoned && self.executor.be_patient() {
            // What was cut short may have more to show.
            self.keys.clear();
        }
        for finding in shown.iter().filter(|finding| finding.defect) {
            let signature = &finding.signature;
            if !self.known.insert(signature.clone()) {
                continue;
            }
            let found = explain(&mut self.executor, &program, |it| {
                it.signature == *signature
            });
            let Some(found) = found? else {
                continue;
            };
            let written = match &self.out {
                Some(out) => found.write(self.executor.target(), out)?,
                None => true,
            };
            if written {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn program_of(generator: &Generator, bytes: &[u8]) -> Program {
    // Choices go on where bytes have ended.
    generator
        .program(&mut Unstructured::new(bytes))
        .unwrap_or_default()
}
