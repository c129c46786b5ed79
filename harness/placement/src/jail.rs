//! The jail: what every domain gives up before it runs a line of a driver or a tenant.
//!
//! The order matters. Identity first (it clears the parent-death signal), then that signal, then
//! `no_new_privs`, Landlock where the kernel has it, and the seccomp allowlist last. Forbidden
//! system calls fail with `EPERM`, so that a test inside a domain can watch them fail.

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, getppid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use thiserror::Error;

/// The user and group domains run as: `nobody`.
const NOBODY: u32 = 65534;

/// Why a domain could not be confined. Without confinement it does not run.
#[derive(Debug, Error)]
pub enum JailError {
    /// A system call failed.
    #[error("{step} failed: {errno}; run where {remedy}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The system's answer.
        errno: nix::Error,
        /// What would help.
        remedy: &'static str,
    },
    /// The parent died before the parent-death signal was armed.
    #[error("the zygote died while a domain was being confined")]
    Orphaned,
    /// Landlock refused for a reason other than not being there.
    #[error("Landlock failed: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The seccomp filter was refused.
    #[error(
        "the seccomp filter was refused: {0}; run where seccomp filters are permitted (CONFIG_SECCOMP_FILTER, and a container policy that allows them)"
    )]
    Seccomp(#[from] seccompiler::Error),
    /// The seccomp filter could not be built for this architecture.
    #[error("no seccomp filter for this architecture: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// How confined a domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Confinement {
    /// It runs as `nobody`, without capabilities; otherwise as whoever started the run.
    pub dropped_identity: bool,
    /// Landlock denies it the file system (the kernel may not have it).
    pub landlock: bool,
    /// The seccomp allowlist holds.
    pub seccomp: bool,
}

impl Confinement {
    /// As a word of the port page.
    pub fn pack(self) -> u64 {
        u64::from(self.dropped_identity)
            | u64::from(self.landlock) << 1
            | u64::from(self.seccomp) << 2
    }

    /// From a word of the port page.
    pub const fn unpack(word: u64) -> Self {
        Self {
            dropped_identity: word & 1 != 0,
            landlock: word & 2 != 0,
            seccomp: word & 4 != 0,
        }
    }
}

/// Arms the parent-death signal and makes sure the parent still lives.
pub fn die_with(parent: Pid) -> Result<(), JailError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| JailError::Refused {
        step: "prctl(PR_SET_PDEATHSIG)",
        errno,
        remedy: "prctl is permitted",
    })?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(JailError::Orphaned)
    }
}

/// A descriptor that a domain keeps, and what it may ask of it.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// The descriptor.
    pub descriptor: RawFd,
    /// The `ioctl` requests; no other descriptor takes any.
    pub requests: &'static [u32],
}

/// Confines the calling process for good. It must be single-threaded and hold no file descriptor but
/// those of the guest whose processor is `kept`.
pub fn confine(parent: Pid, kept: Option<Device>) -> Result<Confinement, JailError> {
    let refused = |step, remedy| {
        move |errno| JailError::Refused {
            step,
            errno,
            remedy,
        }
    };
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
        .map_err(refused("setrlimit(RLIMIT_CORE)", "it is permitted"))?;
    let root = Uid::effective().is_root();
    if root {
        let remedy = "the process may change its user (CAP_SETUID, CAP_SETGID), or as another user";
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).map_err(refused("setgroups", remedy))?;
        setresgid(gid, gid, gid).map_err(refused("setresgid", remedy))?;
        setresuid(uid, uid, uid).map_err(refused("setresuid", remedy))?;
    }
    prctl::set_dumpable(false).map_err(refused("prctl(PR_SET_DUMPABLE)", "it is permitted"))?;
    die_with(parent)?;
    prctl::set_no_new_privs().map_err(refused("prctl(PR_SET_NO_NEW_PRIVS)", "it is permitted"))?;
    let landlock = deny_files()?;
    seccompiler::apply_filter(&allowlist(kept)?)?;
    Ok(Confinement {
        dropped_identity: root,
        landlock,
        seccomp: true,
    })
}

/// A Landlock ruleset without a rule: no file may be touched. Says whether the kernel has it.
fn deny_files() -> Result<bool, JailError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V1))?
        .create()?;
    let status = ruleset.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// What a domain needs: to sleep on a word, to get and return anonymous memory, to read the clock,
/// to end; and to run a guest, if it has one.
fn allowlist(kept: Option<Device>) -> Result<BpfProgram, JailError> {
    let anonymous = SeccompCondition::new(
        3,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(flag(libc::MAP_ANONYMOUS)),
        flag(libc::MAP_ANONYMOUS),
    )?;
    let not_executable = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(flag(libc::PROT_EXEC)),
        0,
    )?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_futex,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_rt_sigreturn,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    rules.insert(
        libc::SYS_mmap,
        vec![SeccompRule::new(vec![anonymous, not_executable])?],
    );
    if let Some(device) = kept {
        rules.insert(libc::SYS_ioctl, requests(device)?);
    }
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)?.try_into()?)
}

/// A rule for each request of that descriptor.
fn requests(device: Device) -> Result<Vec<SeccompRule>, JailError> {
    let equal = |argument, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let mut rules = Vec::new();
    for request in device.requests {
        let of = equal(0, flag(device.descriptor))?;
        let what = equal(1, u64::from(*request))?;
        rules.push(SeccompRule::new(vec![of, what])?);
    }
    Ok(rules)
}

fn flag(bits: i32) -> u64 {
    u64::try_from(bits).unwrap_or(0)
}
