//! Where the device keeps its structures.

use super::spec;
use alloc::vec::Vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, DriverHost, Width};

/// What one vendor capability says.
#[derive(Clone, Copy)]
pub struct Location {
    pub kind: u8,
    pub bar: Bar,
    pub offset: u32,
    pub len: u32,
}

/// Reads the capability at `at`: where the next one is, and what it says if it is a vendor's.
pub fn capability<H: DriverHost>(
    host: &mut H,
    at: u16,
) -> Result<(u16, Option<Location>), DriverError> {
    let [id, next, _, kind] = host.config_read(at, Width::Four)?.to_le_bytes();
    let next = u16::from(next & 0xfc);
    if id != spec::PCI_CAP_VENDOR || at > 0xf0 {
        return Ok((next, None));
    }
    let [bar, ..] = host.config_read(at + 4, Width::Four)?.to_le_bytes();
    let location = Bar::new(bar).map(|bar| (bar, at));
    let Some((bar, at)) = location else {
        return Ok((next, None));
    };
    let location = Location {
        kind,
        bar,
        offset: host.config_read(at + 8, Width::Four)?,
        len: host.config_read(at + 12, Width::Four)?,
    };
    Ok((next, Some(location)))
}

/// Where the list starts.
pub fn first_capability<H: DriverHost>(host: &mut H) -> Result<u16, DriverError> {
    let first = host.config_read(spec::PCI_CAPABILITIES, Width::One)?;
    let [first, ..] = first.to_le_bytes();
    Ok(u16::from(first & 0xfc))
}

/// Every vendor capability, of at most as many as there can be.
pub fn locations<H: DriverHost>(host: &mut H) -> Result<Vec<Location>, DriverError> {
    let mut found = Vec::new();
    let mut at = first_capability(host)?;
    for _ in 0..spec::PCI_MAX_CAPABILITIES {
        if at == 0 {
            break;
        }
        let (next, location) = capability(host, at)?;
        found.extend(location);
        at = next;
    }
    Ok(found)
}

/// The first of that kind (1 common, 2 notify, 3 ISR, 4 device).
pub fn of_kind(found: &[Location], kind: u8) -> Result<Location, DriverError> {
    let mut found = found.iter();
    let location = found.find(|location| location.kind == kind);
    location
        .copied()
        .ok_or(DriverError::Unsupported("a virtio structure is missing"))
}
