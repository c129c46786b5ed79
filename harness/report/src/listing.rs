//! The catalogue as lists.

use cofferdam_experiment::catalogue::{
    CLOCKS, DEVICES, DRIVERS, FABRICS, FAULTS, IOMMU_MODES, Item, PLACEMENTS, Standing,
    applicability, cases,
};
use cofferdam_placement::own::PlatformId;
use serde_json::{Value, json};
use std::fmt::Write;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Placements.
    Placements,
    /// Platforms.
    Platforms,
    /// Faults.
    Faults,
    /// Drivers.
    Drivers,
    /// Devices.
    Devices,
    /// IOMMU modes.
    IommuModes,
    /// Fabrics.
    Fabrics,
    /// Clocks.
    Clocks,
}

/// A list as JSON: an array of objects.
pub fn json(list: List) -> Value {
    match list {
        List::Placements => PLACEMENTS
            .iter()
            .map(|entry| {
                let deployed = IOMMU_MODES
                    .iter()
                    .zip(entry.deployed)
                    .map(|(mode, standing)| {
                        let mut of = json!(standing);
                        of["iommu"] = mode.id.into();
                        of
                    });
                json!({
                    "id": entry.id,
                    "line": entry.line,
                    "stands_for": entry.stands_for,
                    "crossing": entry.crossing,
                    "driver_is_privileged": entry.driver_is_privileged(),
                    "domains": entry.domains.iter().map(|domain| domain.name).collect::<Vec<_>>(),
                    "deployed": deployed.collect::<Vec<_>>(),
                })
            })
            .collect(),
        List::Faults => FAULTS
            .iter()
            .map(|fault| {
                let mut entry = json!(fault);
                entry["cases"] = cases(fault).iter().map(|case| case.name()).collect();
                entry["applies"] = applies(fault);
                entry
            })
            .collect(),
        List::Platforms => PlatformId::list()
            .into_iter()
            .map(|platform| json!({ "id": platform.id(), "line": platform.line() }))
            .collect(),
        List::Drivers => json!(*DRIVERS),
        List::Devices => json!(DEVICES),
        List::IommuModes => json!(IOMMU_MODES),
        List::Fabrics => json!(FABRICS),
        List::Clocks => json!(CLOCKS),
    }
}

fn applies(fault: &cofferdam_experiment::catalogue::Fault) -> Value {
    let mut table = Vec::new();
    for driver in DRIVERS.iter() {
        for fabric in &FABRICS {
            let mut entry = json!(applicability(fault, driver.driver, fabric.value));
            entry["driver"] = json!(driver.id);
            entry["fabric"] = json!(fabric.id);
            table.push(entry);
        }
    }
    json!(table)
}

/// A list as text: an id and a line each, and where a fault applies.
pub fn text(list: List) -> String {
    let mut out = String::new();
    match list {
        List::Platforms => {
            for platform in PlatformId::list() {
                let _ = writeln!(out, "{:<16}{}", platform.id(), platform.line());
            }
        }
        List::Placements => {
            for entry in PLACEMENTS.iter() {
                let _ = writeln!(out, "{:<16}{}", entry.id, entry.line);
                let _ = writeln!(out, "{:<16}stands for: {}", "", entry.stands_for);
                let _ = writeln!(out, "{:<16}a tenant's way: {}", "", entry.crossing);
                for (mode, standing) in IOMMU_MODES.iter().zip(entry.deployed) {
                    let who = match standing {
                        Standing::Deployed(who) => format!("deployed: {who}"),
                        Standing::Synthetic(why) => format!("synthetic: {why}"),
                    };
                    let _ = writeln!(out, "{:<16}{:<12} {who}", "", mode.id);
                }
            }
        }
        List::Faults => {
            for fault in FAULTS.iter() {
                let _ = writeln!(out, "{:<6}{}", fault.id, fault.line);
                for (name, what) in [
                    ("by", fault.by),
                    ("varied", fault.parameters),
                    ("trigger", fault.trigger),
                    ("noticed by", fault.oracle),
                ] {
                    let _ = writeln!(out, "{:<6}{name}: {what}", "");
                }
                let modes: Vec<_> = IOMMU_MODES
                    .iter()
                    .filter(|mode| fault.iommu.contains(&mode.value))
                    .map(|mode| mode.id)
                    .collect();
                let fabrics: Vec<_> = FABRICS
                    .iter()
                    .filter(|fabric| fault.fabrics.contains(&fabric.value))
                    .map(|fabric| fabric.id)
                    .collect();
                let (modes, fabrics) = (modes.join(", "), fabrics.join(", "));
                let _ = writeln!(out, "{:<6}applies to: iommu {modes}; fabric {fabrics}", "");
                if let Some(why) = fault.stateless() {
                    let _ = writeln!(out, "{:<6}may share a boot: {why}", "");
                }
                for except in fault.except {
                    let what = except.case.unwrap_or(fault.id);
                    let _ = writeln!(out, "{:<6}not applicable, {what}: {}", "", except.reason);
                }
            }
        }
        List::Drivers => {
            for entry in DRIVERS.iter() {
                let _ = writeln!(out, "{:<12}{}", entry.id, entry.line);
                let _ = writeln!(
                    out,
                    "{:<12}device: {}; {}; {}",
                    "", entry.device, entry.service, entry.origin
                );
            }
        }
        List::Devices => {
            for entry in &DEVICES {
                let _ = writeln!(out, "{:<12}{}", entry.id, entry.line);
                let _ = writeln!(out, "{:<12}{}", "", entry.source);
            }
        }
        List::IommuModes => items(&mut out, &IOMMU_MODES),
        List::Fabrics => items(&mut out, &FABRICS),
        List::Clocks => items(&mut out, &CLOCKS),
    }
    out
}

fn items<T>(out: &mut String, items: &[Item<T>]) {
    for item in items {
        let _ = writeln!(out, "{:<16}{}", item.id, item.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_an_id_and_a_line_in_both_forms() {
        for list in [
            List::Placements,
            List::Faults,
            List::Drivers,
            List::Devices,
            List::IommuModes,
            List::Fabrics,
            List::Clocks,
        ] {
            let items = json(list);
            let text = text(list);
            for item in items.as_array().expect("an array") {
                let id = item["id"].as_str().expect("an id");
                let line = item["line"].as_str().expect("a line");
                assert!(text.contains(id) && text.contains(line), "{id}");
            }
        }
    }

    #[test]
    fn faults_say_where_they_apply_and_why_not_elsewhere() {
        let faults = json(List::Faults);
        let fault = faults
            .as_array()
            .and_then(|all| all.iter().find(|fault| fault["id"] == "R1"))
            .expect("R1 is listed");
        let edu = fault["applies"]
            .as_array()
            .and_then(|all| all.iter().find(|entry| entry["driver"] == "edu"))
            .expect("edu is in the table");
        assert_eq!(edu["applies"], "not-applicable");
        assert!(edu["reason"].as_str().is_some_and(|why| !why.is_empty()));
    }
}
