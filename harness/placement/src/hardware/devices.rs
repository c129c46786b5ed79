//! The devices of a trial: the honest model, and what it does wrong.

use super::BYSTANDER;
use super::bus_lies::{Neighbour, bus_lie};
use crate::sabotage::{aim, corrupt_entry};
use crate::trial::{By, DriverId, Fault, PlacementId, Target, TrialSpec};
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_machine::{IOVA_WINDOW, Machine, PhysAddr};
use cofferdam_seam::{Bar, Device, Direction, Iova};
use cofferdam_tenant::Mix;
use std::io;
use std::ops::Range;
use std::time::Duration;
use vdevice_edu::{Edu, EduTiming};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_tamper::{Aim, Lie, Publishing};
use vdevice_virtio::{BlkConfig, VirtioBlk};

/// The device of a driver, honest.
pub(super) fn device(driver: DriverId, seed: u64) -> Box<dyn Device> {
    match driver {
        DriverId::Own(own) => (own.get().model)(seed),
        DriverId::Edu => Box::new(Edu::new(EduTiming::default())),
        DriverId::VirtioBlk => Box::new(VirtioBlk::new(BlkConfig {
            sectors: 2 * crate::tenant::SECTORS,
            seed,
            ..BlkConfig::default()
        })),
        DriverId::Nvme | DriverId::NvmeCrate => Box::new(Nvme::new(NvmeConfig {
            blocks: 2 * crate::tenant::SECTORS,
            seed,
            ..NvmeConfig::default()
        })),
    }
}

/// How a device tells of completions.
struct Completions {
    /// Bytes from one slot of the ring to the next.
    slot: u64,
    /// Where in an entry the request is named.
    id: Range<usize>,
    publishing: Publishing,
}

/// How the device of a driver tells of completions, if it has a ring for them.
fn completions(driver: DriverId) -> Option<Completions> {
    match driver {
        // What a user's device does is not known here.
        DriverId::Edu | DriverId::Own(_) => None,
        // The used ring's elements, and its index (virtio 1.2, 2.7.8).
        DriverId::VirtioBlk => Some(Completions {
            slot: 8,
            id: 0..4,
            publishing: Publishing::Index,
        }),
        // Completion queue entries; the last double word has the command's identifier and, in bit
        // 16, the phase tag, and is written last (NVM Express 1.4, 4.6).
        DriverId::Nvme | DriverId::NvmeCrate => Some(Completions {
            slot: 16,
            id: 12..14,
            publishing: Publishing::Phase { byte: 2, mask: 1 },
        }),
    }
}

/// Bytes written by faults that aim at a frame.
const LEN: u32 = 64;

/// The frame that firmware keeps one to one for the device (D11): the last of the hypervisor's.
pub(super) fn reserved() -> u64 {
    run_of(Owner::Hypervisor, Use::Pattern).map_or(0, |run| run.first + run.count - 1)
}

/// The page of tenant 2 that its own device may write to (D13).
fn lent_page() -> PhysAddr {
    PhysAddr(run_of(Owner::Tenant2, Use::Pattern).map_or(0, |run| run.bytes().start))
}

/// Where a device finds that page: mapped first, it is the first of the window.
fn lent_address(spec: &TrialSpec) -> Iova {
    Iova(if spec.iommu.translates() {
        IOVA_WINDOW.start * FRAME
    } else {
        lent_page().0
    })
}

/// Plugs in a device of tenant 2 that may write to a page of tenant 2.
pub(super) fn lend_to_bystander(machine: &mut Machine, spec: &TrialSpec) -> io::Result<()> {
    let bystander = machine.plug(Box::new(Edu::new(EduTiming::default())));
    let len = usize::try_from(FRAME).map_err(io::Error::other)?;
    let mapping = machine
        .map(bystander, lent_page(), len, Direction::Both)
        .map_err(io::Error::other)?;
    if (bystander, mapping.iova) != (BYSTANDER, lent_address(spec)) {
        let at = mapping.iova.0;
        let moved = format!("{bystander} was lent {at:#x} instead of the page that D13 names");
        return Err(io::Error::other(moved));
    }
    Ok(())
}

/// Milliseconds of a fault's parameters.
fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// The message that a device alone forges: to the first processor (Intel SDM volume 3, 11.11).
const MESSAGE: (Iova, u32) = (Iova(0xfee0_0000), 0x30);

/// What a device does wrong that is served to others, in no machine of ours: the same lies as in a
/// trial, but for those that break the rules of a bus, which it has none of. Addresses are those of a
/// trial's memory.
pub fn lie_alone(driver: DriverId, fault: Fault, seed: u64) -> Option<Lie> {
    let mut spec = TrialSpec::new(PlacementId::InKernel, driver, fault);
    spec.seed = seed;
    let alone = Neighbour {
        id: BYSTANDER,
        bar: None,
        own: Bar::ZERO,
    };
    let told =
        lie(&spec, MESSAGE, MESSAGE).or_else(|| bus_lie(&fault, &alone, Duration::from_millis(50)));
    told.filter(|lie| !matches!(lie, Lie::Violates { .. }))
}

/// What the device does wrong in this trial. `forgery` is the interrupt message of another device,
/// `own` its own.
pub(super) fn lie(spec: &TrialSpec, forgery: (Iova, u32), own: (Iova, u32)) -> Option<Lie> {
    match spec.fault {
        Fault::D1 {
            by: By::Device,
            target,
            len,
            nth,
        } => Some(Lie::WildWrite {
            nth,
            aim: match target {
                Target::Neighbour => Aim::BesideLast { gap: 0 },
                _ => Aim::Address(Iova(aim(target, len.into(), spec.seed)?)),
            },
            bytes: Mix::new(spec.seed).bytes(len as usize),
        }),
        Fault::D6 {
            by: By::Device,
            delay_us,
            nth,
        } => Some(Lie::StaleWrite {
            nth,
            after: Duration::from_micros(delay_us.into()),
            bytes_seed: spec.seed,
        }),
        Fault::D4 {
            by: By::Device,
            extra,
            nth,
        } => Some(Lie::Overrun {
            nth,
            extra: Mix::new(spec.seed).bytes(extra as usize),
        }),
        Fault::D5 {
            write: true,
            offset,
            nth,
        } => Some(Lie::WildWrite {
            nth,
            aim: Aim::BesideLast { gap: offset.into() },
            bytes: Mix::new(spec.seed).bytes(8),
        }),
        Fault::D5 {
            write: false,
            offset,
            nth,
        } => Some(Lie::ReadBeside {
            nth,
            gap: offset.into(),
            len: LEN as usize,
        }),
        Fault::D10 { target, nth, .. } => Some(Lie::TranslatedWrite {
            nth,
            at: Iova(aim(target, LEN.into(), spec.seed)?),
            bytes: Mix::new(spec.seed).bytes(LEN as usize),
        }),
        Fault::D11 { nth } => Some(Lie::WildWrite {
            nth,
            aim: Aim::Address(Iova(reserved() * FRAME)),
            bytes: Mix::new(spec.seed).bytes(LEN as usize),
        }),
        Fault::D12 { delay_us, .. } => Some(Lie::WriteAfterReset {
            after: Duration::from_micros(delay_us.into()),
            bytes_seed: spec.seed,
        }),
        Fault::D13 { nth, .. } => Some(Lie::BorrowedWrite {
            nth,
            claimed: BYSTANDER,
            at: lent_address(spec),
            bytes: Mix::new(spec.seed).bytes(LEN as usize),
        }),
        Fault::D14 { delay_us, .. } => Some(Lie::Recall {
            after: Duration::from_micros(delay_us.into()),
            bytes_seed: spec.seed,
        }),
        Fault::D8 { nth } => Some(Lie::WriteBack {
            nth,
            bytes_seed: spec.seed,
        }),
        Fault::I4 { nth } => {
            let (at, data) = forgery;
            let bytes = data.to_le_bytes().to_vec();
            Some(Lie::WildWrite {
                nth,
                aim: Aim::Address(at),
                bytes,
            })
        }
        Fault::I1 {
            per_second,
            ms,
            nth,
        } => Some(Lie::Storm {
            nth,
            every: Duration::from_secs(1) / per_second.max(1),
            length: millis(ms),
        }),
        Fault::I2 { burst, nth } => Some(Lie::LostInterrupts { nth, burst }),
        Fault::I3 { nth } => Some(Lie::PinStuck { nth }),
        Fault::I5 { delay_us, .. } => Some(Lie::LateMessage {
            after: Duration::from_micros(delay_us.into()),
            at: own.0,
            data: own.1,
        }),
        Fault::C2 {
            by: By::Device,
            ms,
            nth,
        } => Some(Lie::MasterOff {
            nth,
            length: millis(ms),
        }),
        Fault::C3 { length } => Some(Lie::CapabilityCircle { length }),
        Fault::C4 {
            by: By::Device,
            field,
            nth,
        } => Some(Lie::MsixTable {
            nth,
            field,
            value: corrupt_entry(field, spec.seed),
        }),
        Fault::B1 { nth } => Some(Lie::NeverCompletes { nth }),
        Fault::B9 { nth, window_us } => Some(Lie::AllOnes {
            nth,
            window: Duration::from_micros(window_us.into()),
        }),
        Fault::R1 { nth, value } => completions(spec.driver).map(|ring| Lie::CompletionField {
            nth,
            offset: ring.id.start,
            len: ring.id.len(),
            value: value.into(),
        }),
        Fault::R2 { nth } => completions(spec.driver).map(|ring| Lie::Repeat {
            nth,
            slot: ring.slot,
            publishing: ring.publishing,
        }),
        Fault::R3 { delay_ns, nth } => Some(Lie::DoubleFetch {
            nth,
            after: Duration::from_nanos(delay_ns.into()),
        }),
        Fault::R4 { nth } => completions(spec.driver).map(|ring| Lie::Published {
            nth,
            publishing: ring.publishing,
        }),
        Fault::R5 {
            by: By::Device,
            length,
            nth,
        } => Some(Lie::CircularChain {
            nth,
            length: length.into(),
        }),
        _ => None,
    }
}
