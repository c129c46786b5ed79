//! Memory of the driver's own that it lent the device: to free it is a defect, of which the VMM is told.
//! What the device reaches is a copy that the VMM makes.

use crate::page;
use cofferdam_microvm_abi::Service;
use cofferdam_seam::{Direction, HostError};
use core::cell::UnsafeCell;
use core::ops::Range;

/// Loans that are remembered here. If there are more, the VMM is asked about each block that is freed.
const MOST: usize = 128;

struct Loan {
    iova: u64,
    bytes: Range<u64>,
}

struct Loans {
    open: [Loan; MOST],
    count: usize,
    /// Some are not in the list.
    more: bool,
}

struct Cell(UnsafeCell<Loans>);

// SAFETY: the guest has one CPU, and its interrupt stubs lend nothing.
unsafe impl Sync for Cell {}

static LOANS: Cell = Cell(UnsafeCell::new(Loans {
    open: [const {
        Loan {
            iova: 0,
            bytes: 0..0,
        }
    }; MOST],
    count: 0,
    more: false,
}));

fn with<R>(run: impl FnOnce(&mut Loans) -> R) -> R {
    // SAFETY: the only CPU; `run` calls nobody who comes back here.
    run(unsafe { &mut *LOANS.0.get() })
}

/// Directions, as services name them.
pub fn code(way: Direction) -> u64 {
    u64::from(way.device_reads()) | u64::from(way.device_writes()) << 1
}

/// Lends bytes; what the device calls them.
///
/// # Errors
///
/// There is no memory for the copy.
pub fn share(bytes: &[u8], way: Direction) -> Result<u64, HostError> {
    let at = bytes.as_ptr().addr() as u64;
    let len = bytes.len() as u64;
    let [iova] = page::ask(Service::Share, &[at, len, code(way)])?;
    with(|loans| match loans.open.get_mut(loans.count) {
        Some(free) => {
            *free = Loan {
                iova,
                bytes: at..at + len,
            };
            loans.count += 1;
        }
        None => loans.more = true,
    });
    Ok(iova)
}

/// Takes back what was lent, `len` bytes, and has `back` filled. Whether it was lent.
///
/// # Errors
///
/// The VMM lends nothing.
pub fn unshare(iova: u64, len: usize, back: Option<&mut [u8]>) -> Result<bool, HostError> {
    let at = back.map_or(0, |back| back.as_mut_ptr().addr() as u64);
    with(|loans| {
        let known = &loans.open[..loans.count];
        if let Some(place) = known.iter().rposition(|loan| loan.iova == iova) {
            loans.count -= 1;
            loans.open.swap(place, loans.count);
        }
    });
    let [held] = page::ask(Service::Unshare, &[iova, len as u64, at])?;
    Ok(held != 0)
}

/// Whether the device can reach any of those bytes.
pub fn is_lent(bytes: &[u8]) -> bool {
    let (at, len) = (bytes.as_ptr().addr() as u64, bytes.len() as u64);
    let lent = page::ask::<1>(Service::IsLent, &[at, len]);
    lent.is_ok_and(|[lent]| lent != 0)
}

/// The driver's heap takes a block back.
pub fn freed(block: *const u8, len: usize) {
    let at = block.addr() as u64;
    let end = at + len as u64;
    let overlaps = |loan: &Loan| loan.bytes.start < end && at < loan.bytes.end;
    if with(|loans| loans.more || loans.open[..loans.count].iter().any(overlaps)) {
        // Whose fault it is, is the VMM's to say.
        let _ = page::ask::<0>(Service::Freed, &[at, len as u64]);
    }
}
