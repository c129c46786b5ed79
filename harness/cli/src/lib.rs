//! The `cofferdam` command as a library: arguments, progress, exit codes, and no logic.
//!
//! A program of a user's is the same command with drivers and faults of its own. It is its own zygote,
//! too: trials run in processes forked from a fresh start of it.
//!
//! ```no_run
//! use cofferdam_cli::Cofferdam;
//!
//! fn main() -> std::process::ExitCode {
//!     Cofferdam::new().main()
//! }
//! ```

#![deny(unsafe_code)]

mod arguments;
mod asan;
mod compare;
mod fuzz;
mod instrument;
mod interrupt;
mod oracles;
mod own;
mod replay;
mod serve;
mod split_lock;
mod stability;
mod vfio;

pub use cofferdam_experiment::catalogue::{Fault, OwnFault};
pub use cofferdam_experiment::cell::Cell;
pub use cofferdam_experiment::predict::{Effect, Expect, Label, Prediction};
pub use cofferdam_machine::config::{FabricKind, IommuMode};
pub use cofferdam_placement::own::{Deed, Driver, Host, OwnError, Probe, SECTORS, Strike};
pub use cofferdam_seam as seam;
pub use vdevice_tamper::Tally;

use arguments::{Arguments, Command, Format, Written};
use clap::Parser;
use cofferdam_experiment::schema;
use cofferdam_instrument::wrapper;
use cofferdam_placement::zygote;
use cofferdam_report::listing;
use std::io::Write;
use std::process::ExitCode;

/// The command, with what a user adds.
#[derive(Default)]
pub struct Cofferdam {
    drivers: Vec<Driver>,
    faults: Vec<OwnFault>,
}

impl Cofferdam {
    /// The command as it comes.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a driver more, and the device it drives.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.drivers.push(driver);
        self
    }

    /// With a fault more.
    #[must_use]
    pub fn fault(mut self, fault: OwnFault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Does what the process's arguments say. It must come first in a program, which may be a trial's
    /// process: that does not return from here.
    pub fn main(self) -> ExitCode {
        if let Err(error) = self.register() {
            return compare::fail(&error, compare::USAGE);
        }
        // The zygote must not inherit what a parser or a handler set up, so it goes first.
        if std::env::args_os()
            .nth(1)
            .is_some_and(|first| first == zygote::ARGUMENT)
        {
            zygote::main();
        }
        main()
    }

    fn register(self) -> Result<(), OwnError> {
        for driver in self.drivers {
            driver.register()?;
        }
        for fault in self.faults {
            fault.register()?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    // Cargo calls its wrapper with a compiler's arguments, which are none of ours.
    if wrapper::is_asked(std::env::args_os().nth(1).as_deref()) {
        return wrapper::run(std::env::args_os().skip(1));
    }
    match Arguments::parse().command {
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Stability(arguments) => stability::stability(&arguments),
        Command::SplitLock(arguments) => split_lock::split_lock(&arguments),
        Command::Merge(arguments) => compare::merge(&arguments),
        Command::Schema { of } => {
            let schema = match of {
                Written::Trials => cofferdam_reality::trials_schema(),
                Written::Summary => schema::summary(),
            };
            print(&format!("{:#}\n", schema.as_value()));
            ExitCode::SUCCESS
        }
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Command::Minimize(arguments) => fuzz::minimize(&arguments),
        Command::Corpus(arguments) => fuzz::corpus(&arguments),
        Command::FuzzBench(arguments) => fuzz::bench(&arguments),
        Command::TimeToBug(arguments) => fuzz::time_to_bug(&arguments),
        Command::List {
            what,
            format,
            files,
        } => {
            if let Err(error) = files.register(None) {
                return compare::fail(&error, compare::USAGE);
            }
            print(&match (what.list(), format) {
                (Some(list), Format::Text) => listing::text(list),
                (Some(list), Format::Json) => format!("{:#}\n", listing::json(list)),
                (None, Format::Text) => oracles::text(),
                (None, Format::Json) => format!("{:#}\n", oracles::json()),
            });
            ExitCode::SUCCESS
        }
        Command::Vfio(command) => vfio::vfio(&command),
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Instrument(arguments) => instrument::instrument(&arguments),
    }
}

/// Writes to standard output. A reader that went away early wants no more, which is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
