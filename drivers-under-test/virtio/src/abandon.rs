//! The way out of a call into the crate that must not go on.
//!
//! Its transport is infallible and its HAL nearly so: an error has no other way back to us.

use cofferdam_seam::service::DriverError;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The private payload.
struct Abandoned(DriverError);

/// Leaves the call into the crate that is on the stack. Panic hooks do not run.
///
/// Must not be reached from a drop: that would be a panic in a destructor.
pub fn abandon(error: DriverError) -> ! {
    resume_unwind(Box::new(Abandoned(error)))
}

/// Runs `call`, which goes into the crate. The result is the error it was [abandoned](abandon)
/// with, if it was; any other panic goes on.
pub fn catch<R>(call: impl FnOnce() -> R) -> Result<R, DriverError> {
    // The instance refuses all further work after an error, so nobody sees it half changed.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result),
        Err(payload) => match payload.downcast::<Abandoned>() {
            Ok(abandoned) => Err(abandoned.0),
            Err(panic) => resume_unwind(panic),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_call_ends_with_its_error() {
        let result = catch(|| -> u8 { abandon(DriverError::Io) });
        assert_eq!(result, Err(DriverError::Io));
    }

    #[test]
    fn foreign_panic_goes_on() {
        let outer = catch_unwind(|| catch(|| resume_unwind(Box::new("a crash"))));
        let payload = outer.expect_err("not ours to catch");
        assert_eq!(payload.downcast_ref(), Some(&"a crash"));
    }
}
