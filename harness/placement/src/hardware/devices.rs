//! The devices of a trial: the honest model, and what it does wrong.

use crate::sabotage::{Mix, aim, corrupt_entry};
use crate::trial::{By, DriverId, Fault, Target, TrialSpec};
use cofferdam_seam::{Device, Iova};
use std::time::Duration;
use vdevice_edu::{Edu, EduTiming};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_tamper::{Aim, Lie};
use vdevice_virtio::{BlkConfig, VirtioBlk};

/// The device of a driver, honest.
pub(super) fn device(driver: DriverId, seed: u64) -> Box<dyn Device> {
    match driver {
        DriverId::Edu => Box::new(Edu::new(EduTiming::default())),
        DriverId::VirtioBlk => Box::new(VirtioBlk::new(BlkConfig {
            sectors: 2 * crate::tenant::SECTORS,
            seed,
            ..BlkConfig::default()
        })),
        DriverId::Nvme => Box::new(Nvme::new(NvmeConfig {
            blocks: 2 * crate::tenant::SECTORS,
            seed,
            ..NvmeConfig::default()
        })),
    }
}

/// Milliseconds of a fault's parameters.
fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
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
            bytes: Mix(spec.seed).bytes(len as usize),
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
            extra: Mix(spec.seed).bytes(extra as usize),
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
        // The 4-byte id of a used-ring element (virtio 1.2, 2.7.8).
        Fault::R1 { nth, value } => Some(Lie::CompletionField {
            nth,
            offset: 0,
            len: 4,
            value: value.into(),
        }),
        _ => None,
    }
}
