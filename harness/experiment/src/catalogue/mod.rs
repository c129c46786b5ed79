//! What can be compared, as data: placements, drivers, devices, platform axes and faults.

mod drivers;
mod faults;
mod literature;
mod nearest;
mod placements;
mod platform;
mod served;
pub mod trusted;

pub use cofferdam_placement::placement::{Placement, Standing};
pub use drivers::{DEVICES, DRIVERS, Device, Driver, driver, driver_named};
pub use faults::{
    Applicability, Except, FAULTS, Fault, OwnFault, applicability, cases, fault_named, why_not,
};
pub(crate) use faults::{
    IN_TENANT, OF_INTERRUPTS, case_name, corner, crossed, of_tenants, prediction, storm,
};
pub use literature::{Constant, Here, LITERATURE};
pub use nearest::nearest;
pub use placements::{PLACEMENTS, placement, placement_named};
pub use platform::{
    CLOCKS, FABRICS, IOMMU_MODES, Item, clock_name, clock_named, fabric_name, fabric_named,
    iommu_name, iommu_named,
};
pub use served::{Lying, lies};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn serde_name(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).expect("a plain enum serializes")
    }

    #[test]
    fn names_are_the_ones_records_use() {
        for entry in PLACEMENTS.iter() {
            assert_eq!(serde_name(entry.placement), entry.id);
        }
        for entry in DRIVERS.iter() {
            assert_eq!(serde_name(entry.driver), entry.id);
        }
        for item in &IOMMU_MODES {
            assert_eq!(serde_name(item.value), item.id);
        }
        for item in &FABRICS {
            assert_eq!(serde_name(item.value), item.id);
        }
        for item in &CLOCKS {
            assert_eq!(serde_name(item.value), item.id);
        }
    }

    #[test]
    fn every_name_finds_its_entry() {
        for entry in PLACEMENTS.iter() {
            assert_eq!(placement_named(entry.id), Some(entry.placement));
            assert_eq!(placement(entry.placement).id, entry.id);
        }
        for entry in DRIVERS.iter() {
            assert_eq!(driver_named(entry.id), Some(entry.driver));
            assert_eq!(driver(entry.driver).id, entry.id);
        }
        for entry in FAULTS.iter() {
            assert_eq!(fault_named(entry.id).map(|fault| fault.id), Some(entry.id));
        }
    }

    #[test]
    fn every_driver_names_a_device_of_the_catalogue() {
        for entry in DRIVERS.iter() {
            assert!(DEVICES.iter().any(|device| device.id == entry.device));
        }
    }
}
