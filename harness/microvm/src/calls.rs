//! A driver in a guest, as the service of its class.

use crate::kvm::Kvm;
use crate::services::{HostWorld, Nowhere};
use crate::vm::{Death, MicroVm, Snapshot, VmError, Window};
use cofferdam_microvm_abi::{Call, Driver, failure, page, refusal};
use cofferdam_seam::service::{Block, Compute, DriverError, SECTOR};
use cofferdam_seam::{Deadline, HostError, RawDma};
use std::collections::BTreeSet;
use std::sync::Mutex;
use thiserror::Error;

/// Why a call into a guest gave no result.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// The driver failed the call, and lives.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The guest died of it.
    #[error("{0}")]
    Died(Death),
    /// The host failed; never a finding.
    #[error(transparent)]
    Vm(#[from] VmError),
}

/// A driver in a guest of its own, which ends with it.
///
/// As a [`Block`] or [`Compute`] driver it answers [`DriverError::Protocol`] from its guest's death on;
/// [`death`](VmDriver::death) says of what.
pub struct VmDriver<H: RawDma> {
    vm: MicroVm,
    world: HostWorld<H>,
    /// Sectors, or the longest round trip.
    size: u64,
    death: Option<CallError>,
}

impl<H: RawDma> VmDriver<H> {
    /// Boots a guest with these windows and lets its driver take the device of `host` into service. DMA
    /// memory of the host must lie in the windows.
    ///
    /// # Safety
    ///
    /// As of [`MicroVm::boot`].
    ///
    /// # Errors
    ///
    /// The driver does not take it, or dies of it, or the host has no guest for it.
    pub unsafe fn probe(
        kvm: &Kvm,
        windows: &[Window],
        host: H,
        driver: Driver,
    ) -> Result<Self, CallError> {
        // SAFETY: the caller vouches for the windows.
        let vm = unsafe { MicroVm::boot(kvm, windows) }?;
        Self::probe_in(vm, host, driver)
    }

    /// The same in a guest that has just booted.
    ///
    /// # Errors
    ///
    /// As there, without the host's.
    pub fn probe_in(mut vm: MicroVm, host: H, driver: Driver) -> Result<Self, CallError> {
        vm.start(&mut Nowhere)?.map_err(CallError::Died)?;
        let mut this = Self::around(vm, host);
        this.load(driver)?;
        Ok(this)
    }

    /// No driver yet, in a guest that waits for its first call, or was reset to where it did.
    pub fn around(vm: MicroVm, host: H) -> Self {
        Self {
            vm,
            world: HostWorld::new(host),
            size: 0,
            death: None,
        }
    }

    /// Lets a driver take the device into service.
    ///
    /// # Errors
    ///
    /// It does not take it, or dies of it.
    pub fn load(&mut self, driver: Driver) -> Result<(), CallError> {
        self.size = self.call(Call::Probe, &[driver as u64])?;
        Ok(())
    }

    /// The guest, for another driver, and what this one was given.
    pub fn into_parts(self) -> (MicroVm, HostWorld<H>) {
        (self.vm, self.world)
    }

    /// Makes a call with data, as much as there can be; the first value of its result.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn call_with(
        &mut self,
        call: Call,
        arguments: &[u64],
        data: &[u8],
    ) -> Result<u64, CallError> {
        self.vm.set_data(data)?;
        self.call(call, arguments)
    }

    /// What the guest died of, if it did.
    pub fn death(&self) -> Option<&CallError> {
        self.death.as_ref()
    }

    /// The guest.
    pub fn vm(&mut self) -> &mut MicroVm {
        &mut self.vm
    }

    /// The host.
    pub fn host(&self) -> &H {
        self.world.host()
    }

    /// Makes any call; the first value of its result.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn call(&mut self, call: Call, arguments: &[u64]) -> Result<u64, CallError> {
        if let Some(death) = &self.death {
            return Err(death.clone());
        }
        let result = match self.vm.call(call, arguments, &mut self.world) {
            Ok(Ok(words)) => return Ok(result(&words, || self.vm.text())?),
            Ok(Err(death)) => CallError::Died(death),
            Err(error) => CallError::Vm(error),
        };
        self.death = Some(result.clone());
        Err(result)
    }

    /// Comes back to a snapshot of this guest, from the dead too. The world is as the guest left it.
    ///
    /// # Errors
    ///
    /// The host refuses.
    pub fn revive(&mut self, to: &Snapshot) -> Result<(), VmError> {
        self.death = None;
        self.vm.reset(to)
    }

    /// Ends the guest; what it was given stays until the world is dropped.
    pub fn into_world(self) -> HostWorld<H> {
        self.world
    }

    fn request(&mut self, call: Call, arguments: &[u64]) -> Result<u64, DriverError> {
        self.call(call, arguments).map_err(|error| match error {
            CallError::Driver(error) => error,
            CallError::Died(_) => DriverError::Protocol("the driver's guest died"),
            CallError::Vm(_) => HostError::Infrastructure(0).into(),
        })
    }

    /// Hands over data, or none where the answer is to be; either way nothing older is left there.
    fn set_data(&mut self, data: &[u8]) -> Result<(), DriverError> {
        let set = self.vm.set_data(data);
        set.map_err(|_| HostError::Infrastructure(0).into())
    }

    fn take_data(&mut self, into: &mut [u8]) -> Result<(), DriverError> {
        let read = self.vm.data(into);
        read.map_err(|_| HostError::Infrastructure(0).into())
    }
}

/// The longest request of one call.
const LONGEST: usize = page::DATA_MAX as usize;

impl<H: RawDma> Block for VmDriver<H> {
    fn capacity(&self) -> u64 {
        self.size
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        in_parts(sector, into.len(), |sector, part| {
            let into = &mut into[part];
            into.fill(0);
            self.set_data(into)?;
            self.request(Call::Read, &[sector, into.len() as u64, until.0.nanos()])?;
            self.take_data(into)
        })
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        in_parts(sector, from.len(), |sector, part| {
            let from = &from[part];
            self.set_data(from)?;
            self.request(Call::Write, &[sector, from.len() as u64, until.0.nanos()])?;
            Ok(())
        })
    }
}

/// Cuts a request into such as fit a call. An empty one is one, for the driver to refuse.
fn in_parts(
    sector: u64,
    len: usize,
    mut part: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), DriverError>,
) -> Result<(), DriverError> {
    let mut start = 0;
    loop {
        let end = len.min(start + LONGEST);
        let at = sector.saturating_add((start / SECTOR) as u64);
        part(at, start..end)?;
        start = end;
        if start >= len {
            return Ok(());
        }
    }
}

impl<H: RawDma> Compute for VmDriver<H> {
    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        let value = self.request(Call::Factorial, &[n.into(), until.0.nanos()])?;
        u32::try_from(value).map_err(|_| DriverError::Protocol("a factorial beyond 32 bits"))
    }

    fn round_trip(
        &mut self,
        out: &[u8],
        back: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        if out.len() > LONGEST || out.len() != back.len() {
            return Err(DriverError::BadRequest(
                "the lengths differ, or are too long",
            ));
        }
        self.set_data(out)?;
        self.request(Call::RoundTrip, &[out.len() as u64, until.0.nanos()])?;
        self.take_data(back)
    }

    fn round_trip_limit(&self) -> usize {
        usize::try_from(self.size).map_or(LONGEST, |size| size.min(LONGEST))
    }
}

/// A call's result from the words the guest left, and the text that may go with them.
///
/// # Errors
///
/// The driver's.
pub fn result(words: &[u64; 8], text: impl Fn() -> String) -> Result<u64, DriverError> {
    let size = |nth: usize| usize::try_from(words[nth]).unwrap_or(usize::MAX);
    Err(match words[0] {
        0 => return Ok(words[1]),
        failure::TIMED_OUT => DriverError::TimedOut(reason(text())),
        failure::UNSUPPORTED => DriverError::Unsupported(reason(text())),
        failure::PROTOCOL => DriverError::Protocol(reason(text())),
        failure::BAD_REQUEST => DriverError::BadRequest(reason(text())),
        failure::IO => DriverError::Io,
        code => DriverError::Host(match code.wrapping_sub(failure::HOST) {
            refusal::NO_SUCH_BAR => HostError::NoSuchBar(size(1)),
            refusal::OUT_OF_MEMORY => HostError::OutOfMemory(size(1)),
            refusal::OUT_OF_REGION => HostError::OutOfRegion {
                start: size(1),
                end: size(2),
                len: size(3),
            },
            refusal::NO_VECTORS => {
                HostError::NoVectors(u16::try_from(words[1]).unwrap_or(u16::MAX))
            }
            refusal::STOPPED => HostError::Stopped,
            refusal::INFRASTRUCTURE => {
                HostError::Infrastructure(u32::try_from(words[1]).unwrap_or(u32::MAX))
            }
            _ => HostError::Refused,
        }),
    })
}

/// A reason that drivers here give is one of a few; a guest that makes them up gets none.
fn reason(text: String) -> &'static str {
    const MOST: usize = 256;
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let Ok(mut known) = KNOWN.lock() else {
        return "unknown";
    };
    if let Some(text) = known.get(text.as_str()) {
        return text;
    }
    if known.len() >= MOST {
        return "the guest gave too many different reasons";
    }
    let text: &'static str = text.leak();
    known.insert(text);
    text
}
