//! Faults of the catalogue for a device that is served to others, where only the device can lie.

use super::{FAULTS, cases};
use crate::cell::Case;
use cofferdam_placement::lie_alone;
use cofferdam_placement::trial::DriverId;
use vdevice_tamper::Lie;

/// A case of the catalogue that a served device can commit.
#[derive(Debug)]
pub struct Lying {
    /// The fault's id.
    pub fault: &'static str,
    /// The case, as on the report.
    pub name: String,
    /// What happens.
    pub line: &'static str,
    case: Case,
}

impl Lying {
    /// The lie itself, struck at the `nth` occasion. 64 bytes go astray where the case leaves open how
    /// many.
    pub fn lie(&self, driver: DriverId, nth: u32, seed: u64) -> Option<Lie> {
        let mut fault = self.case.fault;
        if let Some(open) = fault.nth_mut() {
            *open = nth;
        }
        if let Some(open) = fault.len_mut() {
            *open = 64;
        }
        lie_alone(driver, fault, seed)
    }
}

/// Every case that the device of a driver can commit when it is served, in the order of the report.
pub fn lies(driver: DriverId) -> Vec<Lying> {
    let mut all = Vec::<Lying>::new();
    for entry in FAULTS.iter() {
        for case in cases(entry) {
            let lying = Lying {
                fault: entry.id,
                name: case.name(),
                line: entry.line,
                case,
            };
            // Cases that differ in the platform alone are one here.
            let known = all.iter().any(|other| other.case.fault == case.fault);
            if !known && lying.lie(driver, 1, 1).is_some() {
                all.push(lying);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvme_controller_can_commit_what_issue_and_report_name() {
        let all = lies(DriverId::Nvme);
        for wanted in [
            "D1", "D4", "B1", "B2", "B9", "I1", "I2", "I4", "R1", "R2", "R4", "C3",
        ] {
            assert!(all.iter().any(|lying| lying.fault == wanted), "{wanted}");
        }
        let bus = |lying: &Lying| ["B4", "B5", "B6", "B7"].contains(&lying.fault);
        assert!(!all.iter().any(bus), "a served device has no bus to break");
    }

    #[test]
    fn names_tell_the_cases_apart() {
        let all = lies(DriverId::Nvme);
        for (place, one) in all.iter().enumerate() {
            assert!(
                !all[..place].iter().any(|other| other.name == one.name),
                "{}",
                one.name
            );
        }
    }
}
