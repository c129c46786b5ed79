//! Whether the guest's kernel drives an IOMMU: each PCI function is in a group, and groups have a
//! domain type.

use super::NotPassed;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const DEVICES: &str = "/sys/bus/pci/devices";

/// Fails if a PCI function is in no group, as it is without an IOMMU.
pub fn run(_arguments: &[String]) -> Result<Value, NotPassed> {
    let mut groups: BTreeMap<u32, Value> = BTreeMap::new();
    let mut alone = Vec::new();
    for entry in fs::read_dir(DEVICES)? {
        let function = entry?.file_name().to_string_lossy().into_owned();
        let link = Path::new(DEVICES).join(&function).join("iommu_group");
        let Some(number) = fs::read_link(&link).ok().and_then(|group| {
            let name = group.file_name()?.to_str()?;
            name.parse().ok()
        }) else {
            alone.push(function);
            continue;
        };
        let kind = fs::read_to_string(link.join("type"))?;
        let group = groups
            .entry(number)
            .or_insert_with(|| json!({ "type": kind.trim_end(), "functions": [] }));
        if let Some(functions) = group["functions"].as_array_mut() {
            functions.push(function.into());
        }
    }
    if groups.is_empty() || !alone.is_empty() {
        return Err(NotPassed::Failed(
            json!({ "groups": groups, "in_no_group": alone }),
        ));
    }
    Ok(json!({ "groups": groups }))
}
