//! The last resort against a driver that neither calls nor compares, so that no step of it is counted: the
//! clock on the wall.
//!
//! A thread looks whether the same execution is still running. It counts its own looks, not time that
//! passes, so a process that was stopped for an hour, or a machine that slept, has not hung. Past the limit
//! it interrupts the thread that runs the driver, whose handler writes the program down with the place where
//! it goes round; if that does not happen, it writes the program down without.

use crate::crash;
use cofferdam_fuzz::executor;
use std::io;
use std::thread;
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks that the interrupted thread has for writing down what it was at: half a minute, on a busy machine.
const GRACE: u32 = 300;

/// Looks between two beats.
const BEAT: u32 = 10;

/// Watches this thread's executions, each of which may take `limit`. `beat` tells somebody that the process
/// lives, every second; false if nobody is there any more.
pub fn start(limit: Duration, beat: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the system's name of this thread")]
    // SAFETY: it has no preconditions.
    let watched = unsafe { libc::pthread_self() };
    let limit = u32::try_from(limit.as_millis() / LOOK.as_millis()).unwrap_or(u32::MAX);
    let watch = move || {
        let (mut before, mut same, mut looks) = (0, 0_u32, 0_u32);
        loop {
            thread::sleep(LOOK);
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(BEAT) && !beat() {
                return;
            }
            let begun = executor::begun();
            let running = !executor::current().is_null();
            same = if running && begun == before {
                same + 1
            } else {
                0
            };
            before = begun;
            if same == limit.max(1) {
                crash::interrupt(watched, begun);
            }
            if same == limit.max(1).saturating_add(GRACE) {
                crash::hung_silently();
            }
        }
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(watch)?;
    Ok(())
}
