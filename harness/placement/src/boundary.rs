//! The boundary around the driver, where it shares a process with the layer that calls it: what a
//! panic of the driver ends.
//!
//! It holds panics and nothing else. A wild store, an endless loop, an abort or a fault of the driver
//! is one of the whole process.

use crate::placement::{Placement, Restart};
use crate::trial::{Oops, TrialSpec};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What becomes of a driver that panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// There is none: the domain dies.
    None,
    /// The layer kills the task that oopsed and goes on without a driver.
    KillsTask,
    /// The call ends, the driver's state is dropped, and after so much device time there is a new
    /// driver in its place.
    Unwinds(Duration),
}

/// The driver panicked, and the boundary held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

impl Boundary {
    /// The boundary in domain `me` of a trial.
    pub fn of(spec: &TrialSpec, placement: &Placement, me: usize) -> Self {
        match placement.restart {
            Restart::InPlace(after) => Self::Unwinds(after),
            Restart::Never | Restart::After(_)
                if placement.domains[me].privileged && spec.oops == Oops::KillTask =>
            {
                Self::KillsTask
            }
            Restart::Never | Restart::After(_) => Self::None,
        }
    }

    /// Calls into the driver.
    pub fn enter<T>(self, call: impl FnOnce() -> T) -> Result<T, Crashed> {
        if self == Self::None {
            return Ok(call());
        }
        // What the panic left half done is the driver's, and is dropped with it.
        catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
            // The driver's too, and so is what its drop would run.
            std::mem::forget(payload);
            Crashed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNWINDS: Boundary = Boundary::Unwinds(Duration::ZERO);

    #[test]
    fn panic_ends_at_a_boundary() {
        for boundary in [Boundary::KillsTask, UNWINDS] {
            assert_eq!(boundary.enter(|| panic!("planned")), Err::<(), _>(Crashed));
            assert_eq!(boundary.enter(|| 7), Ok(7));
        }
    }

    #[test]
    fn panic_goes_through_where_there_is_no_boundary() {
        let through = catch_unwind(|| Boundary::None.enter(|| panic!("planned")));

        assert!(through.is_err());
    }

    #[test]
    fn what_a_panic_carries_is_not_run() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("planned, in drop");
            }
        }

        let ended = UNWINDS.enter(|| std::panic::panic_any(Bomb));

        assert_eq!(ended, Err::<(), _>(Crashed));
    }
}
