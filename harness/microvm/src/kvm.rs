//! Whether this host has KVM, and what it is worth.

use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, VcpuExit};
use std::ffi::CString;
use std::fmt;
use std::time::{Duration, Instant};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The environment variable that names another file than `/dev/kvm`.
pub const DEVICE: &str = "COFFERDAM_KVM";

/// Why there is no KVM here.
#[derive(Clone, Debug, Error)]
#[error("KVM is unavailable: {reason}; {remedy}")]
pub struct Unavailable {
    /// What failed.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Who carries out a guest's privileged instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// The processor.
    Native,
    /// Software: times of exits say nothing about other hosts.
    Emulated,
}

impl fmt::Display for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Emulated => "emulated",
        })
    }
}

/// The host's KVM.
pub struct Kvm {
    pub(crate) kvm: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens it: `/dev/kvm`, or the file that the variable [`DEVICE`] names.
    ///
    /// # Errors
    ///
    /// There is none, or not for us, or not with what is needed.
    pub fn open() -> Result<Self, Unavailable> {
        let path = std::env::var(DEVICE).unwrap_or_else(|_| "/dev/kvm".to_owned());
        let name = CString::new(path.as_str()).unwrap_or_default();
        let kvm = kvm_ioctls::Kvm::new_with_path(name).map_err(|error| Unavailable {
            reason: format!("{path}: {error}"),
            remedy: match error.errno() {
                libc::EACCES | libc::EPERM => "join the group that owns it, or run as root",
                _ => "load kvm_intel or kvm_amd, and switch virtualization on in the firmware",
            },
        })?;
        // Set at once and read at once, or a reset costs four system calls more.
        if !kvm.check_extension(Cap::SyncRegs) {
            return Err(Unavailable {
                reason: "it has no KVM_CAP_SYNC_REGS".to_owned(),
                remedy: "use Linux 4.17 or later",
            });
        }
        Ok(Self { kvm })
    }

    /// Whether KVM can stop a guest that locks the bus (KVM_CAP_X86_BUS_LOCK_EXIT).
    pub fn stops_bus_locks(&self) -> bool {
        self.kvm
            .check_extension_raw(kvm_bindings::KVM_CAP_X86_BUS_LOCK_EXIT.into())
            > 0
    }

    /// Finds out whether the processor runs level 0 code itself, by timing a loop of it: it is some 0.5
    /// ns a turn on a processor, and hundreds where each instruction is interpreted.
    ///
    /// # Errors
    ///
    /// The loop did not run.
    pub fn nature(&self) -> Result<Nature, Unavailable> {
        const TURNS: u32 = 2000;
        let took = self.loop_at_level_0(TURNS).map_err(|error| Unavailable {
            reason: format!("a guest of three instructions does not run: {error}"),
            remedy: "try another kernel, or a host without nested virtualization",
        })?;
        Ok(if took > TURNS * Duration::from_nanos(30) {
            Nature::Emulated
        } else {
            Nature::Native
        })
    }

    /// The shortest of three runs of a counting loop in real mode.
    fn loop_at_level_0(&self, turns: u32) -> Result<Duration, String> {
        /// `dec ecx; jnz -4; hlt`, in 16-bit code.
        const CODE: [u8; 6] = [0x66, 0x49, 0x75, 0xfc, 0xf4, 0xf4];
        const LEN: usize = 0x1000;
        let text = |error: &dyn fmt::Display| error.to_string();
        let vm = self.kvm.create_vm().map_err(|error| text(&error))?;
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), LEN)])
            .map_err(|error| text(&error))?;
        memory
            .write_slice(&CODE, GuestAddress(0))
            .map_err(|error| text(&error))?;
        let host = memory
            .get_host_address(GuestAddress(0))
            .map_err(|error| text(&error))?;
        let region = kvm_userspace_memory_region {
            memory_size: LEN as u64,
            userspace_addr: host.addr() as u64,
            ..Default::default()
        };
        // SAFETY: the memory outlives the VM, which is dropped first.
        unsafe { vm.set_user_memory_region(region) }.map_err(|error| text(&error))?;
        let mut vcpu = vm.create_vcpu(0).map_err(|error| text(&error))?;
        let mut sregs = vcpu.get_sregs().map_err(|error| text(&error))?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).map_err(|error| text(&error))?;
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let regs = kvm_regs {
                rcx: turns.into(),
                rflags: 2,
                ..Default::default()
            };
            vcpu.set_regs(&regs).map_err(|error| text(&error))?;
            let start = Instant::now();
            match vcpu.run() {
                Ok(VcpuExit::Hlt) => shortest = shortest.min(start.elapsed()),
                Ok(other) => return Err(format!("{other:?}")),
                Err(error) => return Err(text(&error)),
            }
        }
        Ok(shortest)
    }
}
