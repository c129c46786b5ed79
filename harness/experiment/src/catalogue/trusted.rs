//! The trusted base: lines of code inside the wall, by domain and placement.
//!
//! Counted when this program was built, from the sources it was built of: Rust that is neither
//! blank nor comment nor test. Not counted, and the same everywhere: Rust's own library, small crates
//! that others build on (bitflags, log, zerocopy, ...), the machine, which is hardware and the
//! privileged layer's IOMMU driver in one, and the kernel of the host, on which every wall rests. So
//! these are the lines that move with the driver, and no size of an operating system.

use cofferdam_placement::placement::{Placement, Role};
use cofferdam_placement::trial::DriverId;

/// Name, version if it is somebody else's, and lines, if its sources were at hand.
static LINES: &[(&str, &str, Option<u32>)] = &include!(concat!(env!("OUT_DIR"), "/lines.rs"));

/// A crate, or some files of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its version, if it is not of this workspace.
    pub version: &'static str,
    /// Lines of code; `None` if its sources were not at hand when this program was built.
    pub lines: Option<u32>,
}

/// What the driver's domain holds whatever the driver: the seam, and the side of the wall on which
/// requests are served.
pub static SERVER: [&str; 2] = ["cofferdam-seam", "server"];
/// What carries requests from tenants to the driver, where something must.
pub static CARRIER: [&str; 1] = ["carrier"];

/// The driver with its adapter and libraries; none for a user's.
pub const fn driver(of: DriverId) -> &'static [&'static str] {
    match of {
        DriverId::Edu => &["driver-edu"],
        DriverId::VirtioBlk => &["driver-virtio", "virtio-drivers", "safe-mmio"],
        DriverId::Nvme => &["driver-nvme"],
        DriverId::NvmeCrate => &[
            "driver-nvme-crate",
            "nvme-driver",
            "dma-api",
            "mmio-api",
            "rdif-base",
            "rdif-block",
            "rdif-def",
            "cofferdam-instrument",
        ],
        DriverId::Own(_) => &[],
    }
}

/// The parts of those names.
pub fn parts(names: &[&str]) -> Vec<Part> {
    names
        .iter()
        .filter_map(|name| LINES.iter().find(|part| part.0 == *name))
        .map(|&(name, version, lines)| Part {
            name,
            version,
            lines,
        })
        .collect()
}

/// Their lines; `None` if some could not be counted, or there are none.
pub fn lines(parts: &[Part]) -> Option<u32> {
    if parts.is_empty() {
        return None;
    }
    parts
        .iter()
        .try_fold(0_u32, |sum, part| Some(sum.saturating_add(part.lines?)))
}

/// Lines of a driver's code, and in which domain each stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// In the privileged domain.
    pub privileged: Option<u32>,
    /// In the driver's own, where that is another.
    pub own: Option<u32>,
}

/// Where the lines of a driver, of its server and of what carries requests there stand. `None` for a
/// user's driver: its sources are not counted.
pub fn base(placement: &Placement, of: DriverId) -> Option<Base> {
    let served = lines(&parts(driver(of)))?.saturating_add(lines(&parts(&SERVER))?);
    let carried = placement
        .domains
        .iter()
        .any(|domain| domain.role == Role::Carries && domain.privileged);
    let carrier = if carried { lines(&parts(&CARRIER))? } else { 0 };
    Some(if placement.driver_is_privileged() {
        Base {
            privileged: Some(served.saturating_add(carrier)),
            own: None,
        }
    } else {
        Base {
            privileged: Some(carrier),
            own: Some(served),
        }
    })
}

#[cfg(test)]
#[path = "../../build/count.rs"]
mod count;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::placement;
    use cofferdam_placement::trial::PlacementId;

    #[test]
    fn every_named_part_is_in_the_table_and_ours_are_counted() {
        let drivers = DriverId::ALL.map(driver);
        for name in drivers.into_iter().flatten().chain(&SERVER).chain(&CARRIER) {
            let part = parts(&[name]);
            assert_eq!(part.len(), 1, "{name}");
            assert!(
                !part[0].version.is_empty() || part[0].lines > Some(50),
                "{name}"
            );
        }
    }

    #[test]
    fn wall_moves_the_drivers_lines_out_of_the_privileged_domain() {
        let at = |id| base(placement(id), DriverId::Edu).expect("our own driver is counted");
        let kernel = at(PlacementId::InKernel);
        let process = at(PlacementId::UserProcess);
        assert_eq!((kernel.own, process.privileged), (None, Some(0)));
        assert_eq!(kernel.privileged, process.own);
        assert!(at(PlacementId::Microkernel).privileged > Some(0));
    }
}
