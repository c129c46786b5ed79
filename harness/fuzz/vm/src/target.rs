//! Targets whose driver runs in a guest.

use crate::guest::{self, Held};
use crate::proxy::Proxy;
use crate::world::FuzzWorld;
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets::{block, edu, virtio};
use cofferdam_microvm::{Death, Driver as Inside, Unavailable, VmError};
use cofferdam_seam::{Device, DriverHost, Iova};
use driver_planted::{Bug, Build};
use std::io;
use std::ops::Range;
use thiserror::Error;

/// Why a target's driver is not fuzzed in a guest.
#[derive(Debug, Error)]
pub enum NotInVm {
    /// The payload does not have that driver.
    #[error("`{0}` does not run in a VM; there are {known}", known = drivers().join(", "))]
    Driver(String),
    /// There is no KVM.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The host failed.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The payload did.
    #[error("the payload does not start: {0}")]
    Died(Death),
    /// There is no memory left.
    #[error("the system has no memory left: {0}")]
    System(#[from] io::Error),
}

/// Which driver of the payload's.
#[derive(Clone, Copy)]
enum Kind {
    Edu,
    Nvme,
    VirtioBlk,
    VirtioBlkPci,
    Planted(Bug, Build),
}

/// The names of the targets whose drivers run in a guest.
pub fn drivers() -> Vec<&'static str> {
    kinds().map(|(name, _)| name).collect()
}

fn kinds() -> impl Iterator<Item = (&'static str, Kind)> {
    let drivers = [
        ("edu", Kind::Edu),
        ("nvme", Kind::Nvme),
        ("virtio-blk", Kind::VirtioBlk),
        ("virtio-blk-pci", Kind::VirtioBlkPci),
    ];
    let planted = Bug::ALL
        .iter()
        .flat_map(|bug| Build::ALL.map(|build| (bug.name(build), Kind::Planted(*bug, build))));
    drivers.into_iter().chain(planted)
}

/// The same target, its driver in a guest that this thread has from now on. To be called on the thread that
/// runs it.
///
/// # Errors
///
/// See [`NotInVm`].
pub fn in_vm(target: &'static dyn Target) -> Result<&'static dyn Target, NotInVm> {
    place(target, None)
}

/// The same, and sabotage: the driver's CPU stores a byte to that guest address after each call of a workload.
///
/// # Errors
///
/// See [`NotInVm`].
pub fn in_vm_with_wild_stores(
    target: &'static dyn Target,
    at: u64,
) -> Result<&'static dyn Target, NotInVm> {
    place(target, Some(at))
}

fn place(target: &'static dyn Target, wild: Option<u64>) -> Result<&'static dyn Target, NotInVm> {
    let kind = kinds().find(|(name, _)| *name == target.name());
    let (_, kind) = kind.ok_or_else(|| NotInVm::Driver(target.name().to_owned()))?;
    let nature = guest::ready()?;
    let isolation = format!("a KVM guest (KVM is {nature}))");
    // There are a few in a process.
    Ok(Box::leak(Box::new(InVm {
        target,
        kind,
        wild,
        isolation,
    })))
}

struct InVm {
    target: &'static dyn Target,
    kind: Kind,
    wild: Option<u64>,
    isolation: String,
}

impl Target for InVm {
    fn name(&self) -> &'static str {
        self.target.name()
    }

    fn driver(&self) -> Crate {
        self.target.driver()
    }

    fn calls(&self) -> &'static [CallSpec] {
        self.target.calls()
    }

    fn device(&self) -> Box<dyn Device> {
        self.target.device()
    }

    fn hostile(&self) -> Option<Box<dyn Device>> {
        self.target.hostile()
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        if let Kind::VirtioBlkPci = self.kind {
            return placed(host, self.wild);
        }
        let held = Held::new(FuzzWorld::new(host, None), self.wild)?;
        Ok(match self.kind {
            Kind::Edu => {
                let edu = Proxy::probe(held, Inside::Edu)?;
                Box::new(edu::Running { edu, host })
            }
            Kind::Nvme => {
                let driver = Proxy::probe(held, Inside::Nvme)?;
                Box::new(block::Running { driver, host })
            }
            Kind::VirtioBlk | Kind::VirtioBlkPci => {
                let disk = Proxy::probe(held, Inside::VirtioBlkMmio)?;
                Box::new(virtio::blk::Running(disk))
            }
            Kind::Planted(bug, build) => {
                let driver = Box::new(Proxy::probe_planted(held, bug, build)?);
                Box::new(cofferdam_fuzz_planted::Running { driver, host })
            }
        })
    }

    fn first_iova(&self) -> Iova {
        self.target.first_iova()
    }

    fn blocks(&self) -> bool {
        self.target.blocks()
    }

    fn written(&self) -> Option<Range<usize>> {
        self.target.written()
    }

    fn decoder(&self) -> Box<dyn Decode> {
        self.target.decoder()
    }

    fn isolation(&self) -> Option<&str> {
        Some(&self.isolation)
    }
}

/// A disk that finds its registers where firmware placed them.
fn placed(mut host: FuzzHost, wild: Option<u64>) -> Result<Box<dyn Driver>, Refused> {
    /// What firmware and the system hold for the driver; they go last.
    struct Placed {
        disk: Option<virtio::blk::Running<Proxy>>,
        host: FuzzHost,
    }

    impl Driver for Placed {
        fn call(
            &mut self,
            call: cofferdam_fuzz::target::Call<'_>,
            witness: &mut Witness,
        ) -> Result<(), Refused> {
            match &mut self.disk {
                Some(disk) => disk.call(call, witness),
                None => Ok(()),
            }
        }
    }

    impl Drop for Placed {
        fn drop(&mut self) {
            self.disk = None;
            let _ = self.host.set_bus_master(false);
        }
    }

    let addresses = host.place_bars();
    let held = Held::new(FuzzWorld::new(host, Some(addresses)), wild);
    match held.and_then(|held| Proxy::probe(held, Inside::VirtioBlkPci)) {
        Ok(disk) => Ok(Box::new(Placed {
            disk: Some(virtio::blk::Running(disk)),
            host,
        })),
        Err(error) => {
            let _ = host.set_bus_master(false);
            Err(error.into())
        }
    }
}
