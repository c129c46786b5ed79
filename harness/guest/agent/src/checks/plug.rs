//! Devices that come and go while the guest lives.

use super::NotPassed;
use super::disk::appear;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Waits until a function is gone from the bus and its slot is empty, and its disks from the system.
/// Argument: its PCI address.
pub fn is_gone(arguments: &[String]) -> Result<Value, NotPassed> {
    let [address, ..] = arguments else {
        return Err(NotPassed::Failed(json!({ "error": "which function?" })));
    };
    let function = Path::new("/sys/bus/pci/devices").join(address);
    appear(|| (!function.exists()).then(PathBuf::new))?;
    // Linux takes the function from its bus a second before it tells the slot to let go of the board.
    // Who powers the machine off in this second never sees the board taken out.
    if let Some(slot) = slot_of(address)? {
        appear(|| is_empty(&slot).then(PathBuf::new))?;
    }
    let mut left = Vec::new();
    for block in fs::read_dir("/sys/class/block")? {
        let name = block?.file_name().to_string_lossy().into_owned();
        if name.starts_with("nvme") {
            left.push(name);
        }
    }
    let detail = json!({ "disks_left": left });
    left.is_empty()
        .then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// The hot-plug slot of a function; a slot is named by its bus and device.
fn slot_of(address: &str) -> io::Result<Option<PathBuf>> {
    let Some((device, _function)) = address.rsplit_once('.') else {
        return Ok(None);
    };
    for slot in fs::read_dir("/sys/bus/pci/slots")? {
        let slot = slot?.path();
        if fs::read_to_string(slot.join("address"))?.trim_end() == device {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

/// Whether the slot detects no board ("Presence Detect State", PCI Express Base, Slot Status Register).
fn is_empty(slot: &Path) -> bool {
    fs::read_to_string(slot.join("adapter")).is_ok_and(|state| state.trim_end() == "0")
}
