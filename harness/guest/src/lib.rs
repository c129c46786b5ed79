//! A real Linux guest with a real IOMMU driver, for checks that only reality can pass.
//!
//! A [`Guest`] is QEMU (without KVM: it runs wherever these tests do), a kernel, and the agent, a
//! static program that is the guest's init and runs checks there. [`Guest::run`] boots a machine,
//! has it do its tasks and returns one result a check, the kernel's log and how the machine ended.
//! What is not on the machine is fetched once and cached; see [`tools`].
//!
//! Left out: networks and state between boots. Time in the guest is the
//! host's, so nothing here replays; trials that must replay belong to the model.
//!
//! It trusts Debian's archive (by its signatures), the programs it finds and the agent's sources.
//! It does not trust what the guest says: lines, their number and all waits are bounded.

#![deny(unsafe_code)]

mod agent;
mod boot;
mod cache;
mod cpio;
mod debian;
mod dma_module;
mod image;
pub mod message;
mod modules;
mod monitor;
#[expect(
    unsafe_code,
    reason = "a child can only be made to die with its parent between fork and exec"
)]
mod process;
pub mod tools;

pub use agent::AgentError;
pub use boot::{Boot, Ending, GuestError, Iommu, Machine, Module, ModuleSource, Outcome};
pub use debian::FetchError;
pub use dma_module::{DmaModule, DmaModuleError};
pub use modules::ModuleError;
pub use monitor::{Answer, Order};
pub use process::ProcessError;
pub use tools::{Tools, Unavailable};

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

/// All that guests are booted from.
#[derive(Debug, Clone)]
pub struct Guest {
    /// QEMU and the kernel.
    pub tools: Tools,
    agent: PathBuf,
}

impl Guest {
    /// Finds or fetches the tools and builds the agent.
    ///
    /// # Errors
    /// [`Unavailable`], with what to do about it.
    pub fn find() -> Result<Self, Unavailable> {
        Ok(Self {
            tools: Tools::find()?,
            agent: agent::find()?,
        })
    }

    /// For tests: a guest, or nothing, with the reason on standard error (`SKIPPED: ...`).
    ///
    /// # Panics
    /// If the agent does not build, which is a mistake in this repository. If there can be no guest
    /// and `CI=true` is in the environment: there it is supposed to be available.
    #[must_use]
    pub fn or_skip() -> Option<Self> {
        // Once a process: a network that is not there is not waited for by every test.
        static FOUND: OnceLock<Result<Guest, Unavailable>> = OnceLock::new();
        match FOUND.get_or_init(Self::find) {
            Ok(guest) => Some(guest.clone()),
            Err(Unavailable::Agent(AgentError::Build(why))) => panic!("{why}"),
            Err(why) => skip(why),
        }
    }
}

impl DmaModule {
    /// For tests: the module, or nothing, with the reason on standard error (`SKIPPED: ...`).
    ///
    /// # Panics
    /// If it does not build, or if it cannot be built here and `CI=true` is in the environment.
    #[must_use]
    pub fn or_skip(tools: &Tools) -> Option<Self> {
        match Self::build(tools) {
            Ok(module) => Some(module),
            Err(DmaModuleError::Build(why)) => panic!("{why}"),
            Err(why) => skip(&why),
        }
    }
}

/// Says why a test does not look at what it is for.
fn skip<T>(why: &dyn Display) -> Option<T> {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "must be available in CI: {why}");
    // Not by `eprintln!`, whose output the test harness keeps from those that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}
