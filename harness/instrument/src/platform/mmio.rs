//! `mmio_api`: registers by address.

use super::entered;
use cofferdam_seam::Bar;
use mmio_api::{MapError, MmioAddr, MmioOp, MmioRaw};

/// Addresses of BARs are this far apart. They name a BAR and point nowhere.
const APART: u64 = 1 << 40;

/// The address by which a driver maps that BAR.
pub fn address_of(bar: Bar) -> u64 {
    (bar.index() as u64 + 1) * APART
}

/// The BAR at an address.
pub(super) fn bar_at(address: usize) -> Option<Bar> {
    (0..6)
        .filter_map(Bar::new)
        .find(|bar| address_of(*bar) == address as u64)
}

/// What drivers are to be given for `mmio_api`.
pub static MMIO: Registers = Registers;

/// The implementation of `mmio_api`.
#[derive(Debug)]
pub struct Registers;

impl MmioOp for Registers {
    fn ioremap(&self, addr: MmioAddr, size: usize) -> Result<MmioRaw, MapError> {
        let session = entered().ok_or(MapError::Busy)?;
        let first = session.map_registers(addr.as_usize(), size);
        let first = first.ok_or(MapError::Invalid)?;
        // SAFETY: the session keeps the window, `size` bytes long or longer, until it is unmapped.
        Ok(unsafe { MmioRaw::new(addr, first, size) })
    }

    fn iounmap(&self, mmio: &MmioRaw) {
        if let Some(session) = entered() {
            session.unmap_registers(mmio.as_nonnull_ptr());
        }
    }
}
