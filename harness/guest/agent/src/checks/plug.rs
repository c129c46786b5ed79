//! Devices that come and go while the guest lives.

use super::NotPassed;
use super::disk::appear;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Waits until a function is gone from the bus, and its disks from the system. Argument: its PCI address.
pub fn is_gone(arguments: &[String]) -> Result<Value, NotPassed> {
    let [address, ..] = arguments else {
        return Err(NotPassed::Failed(json!({ "error": "which function?" })));
    };
    let function = Path::new("/sys/bus/pci/devices").join(address);
    appear(|| (!function.exists()).then(PathBuf::new))?;
    let mut left = Vec::new();
    for block in std::fs::read_dir("/sys/class/block")? {
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
