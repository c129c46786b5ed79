//! The `cofferdam` binary: the command with nothing of a user's.
//!
//! Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 the harness failed; 130 interrupted, with
//! a summary of what was finished.

use cofferdam_cli::Cofferdam;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cofferdam::new().main()
}
