//! What the controller tells of itself and of its namespace (NVMe 1.4, 5.15.2).

use crate::events::MAX_REQUESTS;
use crate::features::WARNING;
use crate::identity::{SUBSYSTEM_VENDOR, VENDOR};
use crate::log_pages::ERRORS;
use crate::medium::{BLOCK, MAX_TRANSFER, MAX_TRANSFER_PAGES_LOG2};
use crate::spec::identify::{BYTES, Controller, Namespace, descriptor, optional};
use crate::spec::{self, COMPLETION_ENTRY, SUBMISSION_ENTRY};
use zerocopy::FromZeros;

/// The only namespace.
pub(crate) const NAMESPACE: u32 = 1;

/// Firmware revision.
pub(crate) const FIRMWARE: [u8; 8] = *b"1.0     ";

/// A locally administered OUI, most significant byte first.
const OUI: [u8; 3] = [0x02, 0x43, 0x46];

/// Temperature at which the controller would stop, in kelvins (CCTEMP).
const CRITICAL: u16 = 373;

/// `text` as ASCII, padded with spaces.
fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut padded = [b' '; N];
    for (to, from) in padded.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    padded
}

/// Identify Controller. `seed` tells controllers apart.
pub(crate) fn controller(seed: u64) -> Controller {
    let mut tells = Controller::new_zeroed();
    let [most, middle, least] = OUI;
    tells.vendor.set(VENDOR);
    tells.subsystem_vendor.set(SUBSYSTEM_VENDOR);
    tells.serial = ascii(&format!("cfd{seed:016x}"));
    tells.model = ascii("Cofferdam NVMe");
    tells.firmware = FIRMWARE;
    tells.oui = [least, middle, most];
    tells.max_transfer = MAX_TRANSFER_PAGES_LOG2;
    tells.version.set(spec::VERSION);
    tells.kind = 1;
    tells.event_request_limit = MAX_REQUESTS - 1;
    // One slot, read-only.
    tells.firmware_updates = 0b0011;
    tells.log_attributes = 0b0110;
    tells.error_entries = ERRORS - 1;
    tells.warning_temperature.set(WARNING);
    tells.critical_temperature.set(CRITICAL);
    tells.submission_entry = SUBMISSION_ENTRY << 4 | SUBMISSION_ENTRY;
    tells.completion_entry = COMPLETION_ENTRY << 4 | COMPLETION_ENTRY;
    tells.namespaces.set(NAMESPACE);
    let offered = optional::COMPARE
        | optional::DATASET_MANAGEMENT
        | optional::WRITE_ZEROES
        | optional::SELECT;
    tells.io_commands.set(offered);
    // No cache; Flush of every namespace is understood.
    tells.write_cache = 0b110;
    // A write changes the medium at once or not at all, however long it is.
    let blocks = MAX_TRANSFER as u64 / BLOCK - 1;
    let blocks = u16::try_from(blocks).unwrap_or(u16::MAX);
    tells.atomic_write.set(blocks);
    tells.atomic_write_power_fail.set(blocks);
    let low = seed & 0xffff_ffff_ffff;
    let name = format!(
        "nqn.2014-08.org.nvmexpress:uuid:63666400-0000-4000-{:04x}-{low:012x}",
        0x8000 | (seed >> 48) & 0x3fff
    );
    tells.subsystem_name[..name.len()].copy_from_slice(name.as_bytes());
    // 25 W.
    tells.power_state_0[..2].copy_from_slice(&2500u16.to_le_bytes());
    tells
}

/// EUI64: the OUI, then 40 bits of the seed.
fn eui64(seed: u64) -> [u8; 8] {
    let [_, _, _, a, b, c, d, e] = seed.to_be_bytes();
    let [most, middle, least] = OUI;
    [most, middle, least, a, b, c, d, e]
}

/// NGUID: the seed, then the OUI and what marks the namespace.
fn nguid(seed: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..11].copy_from_slice(&OUI);
    bytes[15] = 1;
    bytes
}

/// Identify Namespace of a medium with that many blocks.
pub(crate) fn namespace(seed: u64, blocks: u64) -> Namespace {
    let mut tells = Namespace::new_zeroed();
    tells.size.set(blocks);
    tells.capacity.set(blocks);
    tells.used.set(blocks);
    tells.deallocated = 0b1001;
    tells.nguid = nguid(seed);
    tells.eui64 = eui64(seed);
    let [block_log2, ..] = BLOCK.ilog2().to_le_bytes();
    tells.format_0 = [0, 0, block_log2, 0];
    tells
}

/// Active Namespace ID list: those above `after`, in order.
pub(crate) fn active_namespaces(after: u32) -> [u8; BYTES] {
    let mut list = [0; BYTES];
    if after < NAMESPACE {
        list[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
    }
    list
}

/// Namespace Identification Descriptor list.
pub(crate) fn descriptors(seed: u64) -> [u8; BYTES] {
    let mut list = [0; BYTES];
    let (first, rest) = list.split_at_mut(descriptor::HEAD + 8);
    first[..2].copy_from_slice(&[descriptor::EUI64, 8]);
    first[descriptor::HEAD..].copy_from_slice(&eui64(seed));
    rest[..2].copy_from_slice(&[descriptor::NGUID, 16]);
    rest[descriptor::HEAD..][..16].copy_from_slice(&nguid(seed));
    list
}
