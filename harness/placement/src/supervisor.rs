//! The supervisor: notices that the domain which holds the driver died or hangs, resets the
//! device, and starts the domain again where the placement allows it.
//!
//! A process like every other: it has a port of its own and does everything through it.

use crate::call::{Call, status};
use crate::link::Link;
use crate::placement::{Placement, Restart};
use cofferdam_seam::VectorSet;
use std::time::Duration;

/// How often it looks without being told.
const LOOK: Duration = Duration::from_millis(10);
/// How long the server may show no life before it is taken for hung. Longer than any request.
const WATCHDOG: Duration = Duration::from_millis(100);
/// The bell the hardware rings when a domain dies.
pub const DEATH_BELL: u64 = 1 << 63;

/// Supervises until the trial ends.
pub fn run(link: &Link, placement: &Placement) -> ! {
    let mut noticed = false;
    loop {
        link.wait(VectorSet::EMPTY, DEATH_BELL, link.deadline(LOOK));
        let [bits, silent_ns] = link.call(Call::Status).values;
        let dead = bits & status::DEAD != 0;
        let hung = bits & status::SERVING != 0 && Duration::from_nanos(silent_ns) >= WATCHDOG;
        if !dead && !hung {
            noticed = false;
            continue;
        }
        if !noticed {
            link.call(Call::Complain {
                what: if dead { 7 } else { 8 },
            });
            noticed = true;
        }
        let Restart::After(delay) = placement.restart else {
            continue;
        };
        if !dead {
            link.call(Call::Kill);
        }
        // First the device, which may still write to memory of the dead; then its next driver.
        if !link.call(Call::Reset).ok {
            link.call(Call::Complain { what: 9 });
        }
        link.wait(VectorSet::EMPTY, 0, link.deadline(delay));
        link.call(Call::Restart);
    }
}
