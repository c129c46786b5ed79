//! Features: what a host may set, and what it gets (NVMe 1.4, 5.13, 5.21).

use crate::spec::Status;
use crate::spec::features::{FeatureId, capability};
use crate::spec::log::WARNING_TEMPERATURE;

/// Composite temperature, in kelvins; it never changes.
pub(crate) const TEMPERATURE: u16 = 310;
/// Temperature from which the controller warns, in kelvins (WCTEMP): the default threshold.
pub(crate) const WARNING: u16 = 343;

/// Bits of dword 11 that a feature has; every other is reserved.
mod mask {
    pub const ARBITRATION: u32 = 0xffff_ff07;
    pub const ERROR_RECOVERY: u32 = 0x0000_ffff;
    pub const COALESCING: u32 = 0x0000_ffff;
    pub const WRITE_ATOMICITY: u32 = 1;
    pub const ASYNC_EVENTS: u32 = 0xff;
}

/// Dword 11 of Interrupt Vector Configuration: CD, coalescing disable (5.21.1.9).
const COALESCING_DISABLE: u32 = 1 << 16;

/// The features in force. None can be saved, so a reset puts back the defaults.
#[derive(Debug)]
pub(crate) struct Features {
    /// I/O queue pairs.
    queues: u16,
    arbitration: u32,
    /// Over, then under.
    thresholds: [u16; 2],
    error_recovery: u32,
    coalescing: u32,
    /// By vector: coalescing disable.
    uncoalesced: u32,
    write_atomicity: u32,
    async_events: u32,
}

impl Features {
    /// The defaults of a controller with that many I/O queue pairs.
    pub fn new(queues: u16) -> Self {
        Self {
            queues,
            arbitration: 0,
            thresholds: [WARNING, 0],
            error_recovery: 0,
            coalescing: 0,
            uncoalesced: 0,
            write_atomicity: 0,
            async_events: 0,
        }
    }

    /// What can be done to a feature, if there is such a feature. There is no volatile write cache,
    /// so its feature is none either (5.21.1.6).
    pub fn supported(id: FeatureId) -> Result<u32, Status> {
        match id {
            FeatureId::ERROR_RECOVERY => {
                Ok(capability::CHANGEABLE | capability::NAMESPACE_SPECIFIC)
            }
            FeatureId::ARBITRATION
            | FeatureId::POWER_MANAGEMENT
            | FeatureId::TEMPERATURE_THRESHOLD
            | FeatureId::NUMBER_OF_QUEUES
            | FeatureId::INTERRUPT_COALESCING
            | FeatureId::INTERRUPT_VECTOR
            | FeatureId::WRITE_ATOMICITY
            | FeatureId::ASYNC_EVENTS => Ok(capability::CHANGEABLE),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// The attributes in force; `selector` is dword 11, which picks one of several.
    pub fn get(&self, id: FeatureId, selector: u32) -> Result<u32, Status> {
        Ok(match id {
            FeatureId::ARBITRATION => self.arbitration,
            // Power state 0 is the only one.
            FeatureId::POWER_MANAGEMENT => 0,
            FeatureId::TEMPERATURE_THRESHOLD => {
                let which = threshold(selector, false)?;
                u32::from(self.thresholds[which])
            }
            FeatureId::ERROR_RECOVERY => self.error_recovery,
            FeatureId::NUMBER_OF_QUEUES => {
                let less_one = u32::from(self.queues - 1);
                less_one << 16 | less_one
            }
            FeatureId::INTERRUPT_COALESCING => self.coalescing,
            FeatureId::INTERRUPT_VECTOR => {
                let vector = self.vector(selector)?;
                let disabled = self.uncoalesced >> vector & 1 == 1;
                vector + u32::from(disabled) * COALESCING_DISABLE
            }
            FeatureId::WRITE_ATOMICITY => self.write_atomicity,
            FeatureId::ASYNC_EVENTS => self.async_events,
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Sets attributes and returns dword 0 of the completion. The reserved bits of dword 11 are
    /// dropped.
    pub fn set(&mut self, id: FeatureId, value: u32) -> Result<u32, Status> {
        match id {
            FeatureId::ARBITRATION => self.arbitration = value & mask::ARBITRATION,
            FeatureId::POWER_MANAGEMENT if value & 0x1f != 0 => return Err(Status::INVALID_FIELD),
            FeatureId::POWER_MANAGEMENT => {}
            FeatureId::TEMPERATURE_THRESHOLD => {
                let which = threshold(value, true)?;
                let [low, high, ..] = value.to_le_bytes();
                self.thresholds[which] = u16::from_le_bytes([low, high]);
            }
            // Deallocated blocks read as zeros, never as errors (DULBE).
            FeatureId::ERROR_RECOVERY if value & 1 << 16 != 0 => return Err(Status::INVALID_FIELD),
            FeatureId::ERROR_RECOVERY => self.error_recovery = value & mask::ERROR_RECOVERY,
            FeatureId::NUMBER_OF_QUEUES => {
                // 65536 queues of a sort cannot be asked for (5.21.1.7).
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return Err(Status::INVALID_FIELD);
                }
                return self.get(id, value);
            }
            FeatureId::INTERRUPT_COALESCING => self.coalescing = value & mask::COALESCING,
            FeatureId::INTERRUPT_VECTOR => {
                let vector = self.vector(value)?;
                let disabled = u32::from(value & COALESCING_DISABLE != 0);
                self.uncoalesced = self.uncoalesced & !(1 << vector) | disabled << vector;
            }
            FeatureId::WRITE_ATOMICITY => self.write_atomicity = value & mask::WRITE_ATOMICITY,
            FeatureId::ASYNC_EVENTS => self.async_events = value & mask::ASYNC_EVENTS,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }

    /// SMART critical warnings: the temperature against its thresholds (5.21.1.4).
    pub fn warnings(&self) -> u8 {
        let [over, under] = self.thresholds;
        if TEMPERATURE >= over || TEMPERATURE <= under {
            WARNING_TEMPERATURE
        } else {
            0
        }
    }

    /// Whether there is a warning of which the host wants to hear (5.21.1.11).
    pub fn warns(&self) -> bool {
        u32::from(self.warnings()) & self.async_events != 0
    }

    /// The vector in dword 11, if there is such a vector.
    fn vector(&self, dword: u32) -> Result<u32, Status> {
        let vector = dword & 0xffff;
        if vector <= self.queues.into() {
            Ok(vector)
        } else {
            Err(Status::INVALID_FIELD)
        }
    }
}

/// Which threshold dword 11 is about: over or under, by THSEL. By TMPSEL, only the composite
/// temperature has any; all of them at once (0Fh) can be set, not read (5.21.1.4).
fn threshold(dword: u32, set: bool) -> Result<usize, Status> {
    match (dword >> 16 & 0xf, dword >> 20 & 3) {
        (0, 0) => Ok(0),
        (0, 1) => Ok(1),
        (0xf, 0) if set => Ok(0),
        (0xf, 1) if set => Ok(1),
        _ => Err(Status::INVALID_FIELD),
    }
}
