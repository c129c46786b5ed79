//! What the controller keeps to tell later: log pages (NVMe 1.4, 5.14.1).

use crate::features::{Features, TEMPERATURE};
use crate::identify::FIRMWARE;
use crate::spec::log::{Effects, ErrorEntry, Firmware, Health, LogId, effect};
use crate::spec::{AdminOpcode, Command, IoOpcode, Status};
use cofferdam_seam::Time;
use zerocopy::{FromZeros, IntoBytes};

/// Entries in the error log; ELPE is one less.
pub(crate) const ERRORS: u8 = 4;

/// Bytes in the largest log page.
pub(crate) const MAX_PAGE: usize = 4096;

/// Nanoseconds in an hour.
const HOUR: u64 = 3_600_000_000_000;

/// The logs. All but the error entries survive every reset, as on a device that keeps them.
pub(crate) struct Logs {
    /// Newest first.
    errors: [ErrorEntry; ERRORS as usize],
    error_count: u64,
    pub blocks_read: u64,
    pub blocks_written: u64,
    pub reads: u64,
    pub writes: u64,
}

impl Logs {
    pub fn new() -> Self {
        Self {
            errors: [ErrorEntry::new_zeroed(); ERRORS as usize],
            error_count: 0,
            blocks_read: 0,
            blocks_written: 0,
            reads: 0,
            writes: 0,
        }
    }

    /// Forgets the error entries, not how many there were.
    pub fn reset(&mut self) {
        self.errors = [ErrorEntry::new_zeroed(); ERRORS as usize];
    }

    /// Notes that a command of submission queue `queue` failed.
    pub fn command_failed(&mut self, queue: u16, command: &Command, status: Status) {
        let mut entry = ErrorEntry::new_zeroed();
        entry.submission.set(queue);
        entry.id = command.id;
        entry.status.set(status.with_phase(false));
        entry.namespace = command.namespace;
        if queue != 0 {
            entry.block.set(command.qword(10));
        }
        self.note(entry);
    }

    /// Notes that a doorbell of queue `queue` was written wrongly.
    pub fn bad_doorbell(&mut self, queue: u16) {
        let mut entry = ErrorEntry::new_zeroed();
        entry.submission.set(queue);
        entry.id.set(0xffff);
        self.note(entry);
    }

    fn note(&mut self, mut entry: ErrorEntry) {
        self.error_count += 1;
        entry.count.set(self.error_count);
        entry.location.set(0xffff);
        self.errors.rotate_right(1);
        self.errors[0] = entry;
    }

    /// Puts a log page into `page` and returns its length; none if there is no such page.
    pub fn fill(
        &self,
        id: LogId,
        features: &Features,
        now: Time,
        page: &mut [u8; MAX_PAGE],
    ) -> Option<usize> {
        match id {
            LogId::ERRORS => Some(put(page, self.errors.as_bytes())),
            LogId::HEALTH => Some(put(page, self.health(features, now).as_bytes())),
            LogId::FIRMWARE => {
                let mut firmware = Firmware::new_zeroed();
                firmware.active = 1;
                firmware.slot_1 = FIRMWARE;
                Some(put(page, firmware.as_bytes()))
            }
            LogId::EFFECTS => Some(put(page, effects().as_bytes())),
            _ => None,
        }
    }

    fn health(&self, features: &Features, now: Time) -> Health {
        let mut health = Health::new_zeroed();
        health.critical_warning = features.warnings();
        health.temperature = TEMPERATURE.to_le_bytes();
        health.spare = 100;
        health.spare_threshold = 10;
        health.data_read[0].set(self.blocks_read.div_ceil(1000));
        health.data_written[0].set(self.blocks_written.div_ceil(1000));
        health.reads[0].set(self.reads);
        health.writes[0].set(self.writes);
        health.power_cycles[0].set(1);
        health.power_on_hours[0].set(now.nanos() / HOUR);
        health.errors[0].set(self.error_count);
        health
    }
}

fn put(page: &mut [u8; MAX_PAGE], bytes: &[u8]) -> usize {
    page[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}

fn effects() -> Effects {
    let mut effects = Effects::new_zeroed();
    for opcode in [
        AdminOpcode::DELETE_SUBMISSION,
        AdminOpcode::CREATE_SUBMISSION,
        AdminOpcode::GET_LOG_PAGE,
        AdminOpcode::DELETE_COMPLETION,
        AdminOpcode::CREATE_COMPLETION,
        AdminOpcode::IDENTIFY,
        AdminOpcode::ABORT,
        AdminOpcode::SET_FEATURES,
        AdminOpcode::GET_FEATURES,
        AdminOpcode::ASYNC_EVENT_REQUEST,
    ] {
        effects.admin[usize::from(opcode.0)].set(effect::SUPPORTED);
    }
    for (opcode, changes) in [
        (IoOpcode::FLUSH, 0),
        (IoOpcode::WRITE, effect::CHANGES_BLOCKS),
        (IoOpcode::READ, 0),
        (IoOpcode::COMPARE, 0),
        (IoOpcode::WRITE_ZEROES, effect::CHANGES_BLOCKS),
        (IoOpcode::DATASET_MANAGEMENT, effect::CHANGES_BLOCKS),
    ] {
        effects.io[usize::from(opcode.0)].set(effect::SUPPORTED | changes);
    }
    effects
}
