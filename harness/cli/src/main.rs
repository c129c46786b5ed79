//! The `cofferdam` binary: arguments, progress, exit codes.
//!
//! Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 the harness failed; 130 interrupted, with
//! a summary of what was finished.

#![deny(unsafe_code)]

mod arguments;
mod compare;
mod instrument;
mod interrupt;
mod replay;
mod stability;
mod vfio;

use arguments::{Arguments, Command, Format, Written};
use clap::Parser;
use cofferdam_experiment::schema;
use cofferdam_instrument::wrapper;
use cofferdam_placement::zygote;
use cofferdam_report::listing;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The zygote must not inherit what a parser or a handler set up, so it goes first.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == zygote::ARGUMENT)
    {
        zygote::main();
    }
    // Cargo calls its wrapper with a compiler's arguments, which are none of ours.
    if wrapper::is_asked(std::env::args_os().nth(1).as_deref()) {
        return wrapper::run(std::env::args_os().skip(1));
    }
    match Arguments::parse().command {
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Stability(arguments) => stability::stability(&arguments),
        Command::Merge(arguments) => compare::merge(&arguments),
        Command::Schema { of } => {
            let schema = match of {
                Written::Trials => schema::trials(),
                Written::Summary => schema::summary(),
            };
            print(&format!("{:#}\n", schema.as_value()));
            ExitCode::SUCCESS
        }
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::List { what, format } => {
            let list = what.into();
            print(&match format {
                Format::Text => listing::text(list),
                Format::Json => format!("{:#}\n", listing::json(list)),
            });
            ExitCode::SUCCESS
        }
        Command::Vfio(command) => vfio::vfio(&command),
        Command::Instrument(arguments) => instrument::instrument(&arguments),
    }
}

/// Writes to standard output. A reader that went away early wants no more, which is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
