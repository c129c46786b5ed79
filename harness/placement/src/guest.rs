//! The KVM guest of a domain whose driver, or tenant, is behind that wall.
//!
//! It is made before the jail closes, and a driver's serves one incarnation of it after the other: each
//! starts from the same snapshot. Its windows are the driver's frames, or the tenant's, so a wild access of
//! its CPU ends in an exit, whatever the process around it maps. What the guest dies of its domain dies of.

use crate::domain::cannot_go_on;
use crate::jail::Device;
use crate::link::Link;
use crate::own::Host;
use crate::placement::Placement;
use crate::port::Toll;
use crate::ring::Ask;
use crate::sabotage::{Deed, paid};
use crate::server::{Serves, compute, store};
use crate::shared::Window;
use crate::trial::DriverId;
use cofferdam_machine::frames::Run;
use cofferdam_microvm::{
    Call, CallError, Death, Driver, Kvm, MicroVm, Nowhere, Snapshot, Unavailable, VmDriver, VmError,
};
use cofferdam_seam::Deadline;
use cofferdam_seam::service::DriverError;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use thiserror::Error;

/// Where the machine's physical memory begins for a guest.
const MACHINE: u64 = cofferdam_microvm::MACHINE;

/// Why a domain has no guest. Never a finding.
#[derive(Debug, Error)]
pub enum GuestError {
    /// There is no KVM.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// KVM makes none.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// It died before it was asked anything.
    #[error("the guest died at its start: {0}")]
    Died(Death),
}

/// The driver of the payload that a trial's driver is; none if it does not run in a guest.
pub const fn in_payload(driver: DriverId) -> Option<Driver> {
    match driver {
        DriverId::Edu => Some(Driver::Edu),
        DriverId::VirtioBlk => Some(Driver::VirtioBlk),
        DriverId::Nvme => Some(Driver::Nvme),
        DriverId::NvmeCrate | DriverId::Own(_) => None,
    }
}

/// A guest with these frames of the machine that waits for its first call, in a process that sees the
/// machine's memory through `window`.
pub fn boot<'a>(
    runs: impl Iterator<Item = &'a Run>,
    window: Window,
) -> Result<MicroVm, GuestError> {
    let kvm = Kvm::open()?;
    let mut windows: Vec<cofferdam_microvm::Window> = Vec::new();
    for run in runs {
        let bytes = run.bytes();
        let len = bytes.end - bytes.start;
        match windows.last_mut() {
            // KVM takes milliseconds for each slot on a busy host.
            Some(last) if last.at + last.len == bytes.start => last.len += len,
            _ => windows.push(cofferdam_microvm::Window {
                at: bytes.start,
                host: window.pointer(bytes.start),
                len,
            }),
        }
    }
    // SAFETY: the window is mapped for the life of the process, and devices, other domains and the
    // guest's own host all expect its bytes to change.
    let mut vm = unsafe { MicroVm::boot(&kvm, &windows) }?;
    // By no clock of the host: whoever watches the domain ends it if it never comes back.
    vm.set_patience(None);
    vm.start(&mut Nowhere)?.map_err(GuestError::Died)?;
    Ok(vm)
}

/// What the jail has to leave open for a guest.
pub fn device(vm: &MicroVm) -> Device {
    Device {
        descriptor: vm.processor(),
        requests: &MicroVm::REQUESTS,
    }
}

/// A guest that waits for a driver.
pub struct Guest {
    /// Away while a driver is in it.
    vm: RefCell<Option<MicroVm>>,
    fresh: Snapshot,
    /// Exits that were told.
    told: Cell<u64>,
    /// Whoever calls the driver is in the guest, too, and only played outside: that a call ends is no
    /// exit of theirs.
    calls_within: bool,
}

impl Guest {
    /// Makes the driver's guest of a placement, in a process that sees the machine's memory through
    /// `window`.
    pub fn boot(placement: &Placement, window: Window) -> Result<Self, GuestError> {
        let mut vm = boot(placement.guest_runs(), window)?;
        let fresh = vm.snapshot()?;
        Ok(Self {
            told: Cell::new(vm.counts().exits),
            vm: RefCell::new(Some(vm)),
            fresh,
            calls_within: placement.housing().is_some(),
        })
    }

    /// What the jail has to leave open.
    pub fn device(&self) -> Option<Device> {
        let vm = self.vm.borrow();
        vm.as_ref().map(device)
    }
}

/// A driver in a guest, which it gives back when it is dropped.
pub struct InGuest {
    guest: Rc<Guest>,
    driver: Option<VmDriver<Host>>,
    link: Rc<Link>,
    block: bool,
}

impl InGuest {
    /// Lets a driver of the payload take the device of `host` into service.
    pub fn probe(
        guest: &Rc<Guest>,
        link: &Rc<Link>,
        host: Host,
        driver: Driver,
    ) -> Result<Self, DriverError> {
        let Some(mut vm) = guest.vm.borrow_mut().take() else {
            return Err(DriverError::Unsupported("the guest has a driver already"));
        };
        if let Err(error) = vm.reset(&guest.fresh) {
            cannot_go_on(link.page(), &error);
        }
        let mut this = Self {
            guest: Rc::clone(guest),
            driver: Some(VmDriver::around(vm, host)),
            link: Rc::clone(link),
            block: !matches!(driver, Driver::Edu),
        };
        this.enter(|guest| guest.load(driver))?;
        Ok(this)
    }

    /// Makes a call into the guest, and dies of what it died of.
    fn enter<T>(
        &mut self,
        call: impl FnOnce(&mut VmDriver<Host>) -> Result<T, CallError>,
    ) -> Result<T, DriverError> {
        let Some(driver) = &mut self.driver else {
            return Err(DriverError::Unsupported("the guest was given back"));
        };
        let result = call(driver);
        let exits = driver.vm().counts().exits;
        let before = self.guest.told.replace(exits);
        let end = u64::from(self.guest.calls_within);
        let left = exits.saturating_sub(before).saturating_sub(end);
        self.link.page().pay(Toll::Left, left);
        match result {
            Ok(value) => Ok(value),
            Err(CallError::Driver(error)) => Err(error),
            Err(CallError::Died(death)) => panic!("in the guest: {death}"),
            Err(CallError::Vm(error)) => cannot_go_on(self.link.page(), &error),
        }
    }
}

/// What the call came to, or what the guest died of.
fn unless_dead<T>(driver: &VmDriver<Host>, result: Result<T, DriverError>) -> Result<T, CallError> {
    match driver.death() {
        Some(death) => Err(death.clone()),
        None => Ok(result?),
    }
}

impl Serves for InGuest {
    fn serve(
        &mut self,
        ask: Ask,
        data: &mut Vec<u8>,
        room: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let block = self.block;
        self.enter(|driver| {
            if ask == Ask::Nop {
                // The way into the guest is part of an empty request, too.
                return driver.call(Call::Nop, &[]).map(drop);
            }
            let served = if block {
                store(driver, ask, data, room, until)
            } else {
                compute(driver, ask, data, until)
            };
            unless_dead(driver, served)
        })
    }

    fn commit(&mut self, deed: &Deed, link: &Link) {
        let mut price = None;
        let done = self.enter(|driver| match deed {
            Deed::Store { phys, bytes } => {
                let arguments = [MACHINE + phys, bytes.len() as u64];
                driver.call_with(Call::Plant, &arguments, bytes)
            }
            Deed::Crash(_) => driver.call(Call::Crash, &[]),
            Deed::Spin => driver.call(Call::Spin, &[]),
            Deed::Storm(storm) => {
                price = storm.rage(|aligned, count| {
                    let arguments = [aligned.into(), count.into()];
                    driver.call(Call::Lock, &arguments).map(drop)
                })?;
                Ok(0)
            }
        });
        paid(link, price);
        debug_assert!(done.is_ok(), "a deed is done or deadly: {done:?}");
    }
}

impl Drop for InGuest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // The driver's own last words to its device; a guest that is dead has none.
            let _ = self.enter(|driver| driver.call(Call::Remove, &[]));
        }
        if let Some(driver) = self.driver.take() {
            let (vm, world) = driver.into_parts();
            *self.guest.vm.borrow_mut() = Some(vm);
            drop(world);
        }
    }
}
