//! One program on several backends: the same driver makes the same calls before the same device, once
//! in this process, once over vfio-user and once on real hardware over VFIO, and must make the same
//! accesses with the same answers.
//!
//! What is compared is what the driver does to the device and hears from it ([`Heard`]), and how its
//! calls end. Addresses of DMA are compared by what they point to, for each backend gives out its own;
//! a register that is read again and again counts once, with its last answer, for how long a device
//! takes is no part of the agreement.
//!
//! Left out: interrupts and DMA as such (their effects are in the answers), and third-party drivers that
//! run under the fuzzer's own host alone. It trusts the drivers; neither program nor device.

#![forbid(unsafe_code)]

mod heard;
mod run;

pub use heard::{Access, Heard};
pub use run::{Backend, NotRun, Trace, run};

use std::fmt;

/// Where two backends differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which access, from 1.
    pub place: usize,
    /// What the first one did there; nothing, if it had ended.
    pub first: Option<Heard>,
    /// What the other one did.
    pub other: Option<Heard>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |heard: &Option<Heard>| match heard {
            Some(heard) => heard.to_string(),
            None => "nothing more".to_owned(),
        };
        let (first, other) = (said(&self.first), said(&self.other));
        write!(f, "access {}: {first} against {other}", self.place)
    }
}

/// The first access in which two traces differ.
pub fn first_difference(first: &[Heard], other: &[Heard]) -> Option<Difference> {
    let len = first.len().max(other.len());
    let place = (0..len).find(|&place| match (first.get(place), other.get(place)) {
        (Some(one), Some(two)) => !one.same_as(two),
        _ => true,
    })?;
    Some(Difference {
        place: place + 1,
        first: first.get(place).cloned(),
        other: other.get(place).cloned(),
    })
}
