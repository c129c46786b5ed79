//! Linux's own driver of NVMe, whose controller is reset while it is used.

use super::NotPassed;
use super::disk::{millis, noise_of};
use super::liar::{BLOCK, brought_up};
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a request.
const REQUEST: usize = 16 * BLOCK;
/// Threads that use the disk, each a part of its own.
const USERS: usize = 4;
/// Places for requests in a part.
const PLACES: usize = 32;
/// Requests that must have been served between two resets, and after the last.
const BETWEEN: u64 = 64;
/// How long that may take: Linux gives a request up after 30 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// What all users have done together.
#[derive(Default)]
struct Used {
    served: AtomicU64,
    errors: AtomicU64,
    mismatches: AtomicU64,
    over: AtomicBool,
}

/// Uses a disk from several threads and meanwhile resets its controller, in turns by the function's
/// `reset` (FLR) and the driver's `reset_controller`, then reads all of it back. Errors that the kernel
/// tells are counted; what was acknowledged and is not there fails the check. Arguments: the controller's
/// PCI address, how often it is reset in each way.
pub fn goes_on(arguments: &[String]) -> Result<Value, NotPassed> {
    let [address, times, ..] = arguments else {
        let error = "which controller, and how often?";
        return Err(NotPassed::Failed(json!({ "error": error })));
    };
    let times: u32 = times.parse()?;
    let (controller, node) = brought_up(address)?;
    let function = Path::new("/sys/bus/pci/devices").join(address);
    let method = fs::read_to_string(function.join("reset_method"))?;
    let ways = [function.join("reset"), controller.join("reset_controller")];
    let direct = OFlags::DIRECT.bits().cast_signed();
    let mut disk = OpenOptions::new();
    let disk = disk
        .read(true)
        .write(true)
        .custom_flags(direct)
        .open(node)?;

    let used = Used::default();
    let started = Instant::now();
    let done = std::thread::scope(|scope| {
        let users: Vec<_> = (0..USERS)
            .map(|user| {
                scope.spawn({
                    let part = Part::of(user, &disk, &used);
                    || part.use_until_over()
                })
            })
            .collect();
        let reset = reset_in_turns(&ways, times, &used);
        used.over.store(true, Ordering::Relaxed);
        let parts: Vec<Part<'_>> = users
            .into_iter()
            .filter_map(|user| user.join().ok())
            .collect();
        for part in &parts {
            part.read_back();
        }
        if parts.len() < USERS {
            return Err("a user panicked".to_owned());
        }
        reset
    });
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let detail = json!({
        "method": method.trim(), "resets": done.as_ref().ok(), "error": done.as_ref().err(),
        "served": count(&used.served), "errors": count(&used.errors),
        "mismatches": count(&used.mismatches), "took_ms": millis(started.elapsed()),
    });
    let well = done.is_ok() && count(&used.mismatches) == 0;
    well.then_some(detail.clone())
        .ok_or(NotPassed::Failed(detail))
}

/// Resets the controller while it is used, each time after it has served; how often.
fn reset_in_turns(ways: &[std::path::PathBuf], times: u32, used: &Used) -> Result<u32, String> {
    let mut done = 0;
    for _ in 0..times {
        for way in ways {
            await_service(used).map_err(|why| format!("before reset {}: {why}", done + 1))?;
            fs::write(way, "1").map_err(|error| format!("{}: {error}", way.display()))?;
            done += 1;
        }
    }
    await_service(used).map_err(|why| format!("after the last reset: {why}"))?;
    Ok(done)
}

/// Waits until some more requests have been served.
fn await_service(used: &Used) -> Result<(), String> {
    let from = used.served.load(Ordering::Relaxed);
    let until = Instant::now() + PATIENCE;
    while used.served.load(Ordering::Relaxed) < from + BETWEEN {
        if Instant::now() > until {
            return Err(format!("nothing was served within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A thread's part of the disk, and what it should hold.
struct Part<'a> {
    start: u64,
    disk: &'a File,
    used: &'a Used,
    /// The seed of what was acknowledged last; none where a write failed, whose place may hold either.
    holds: Vec<Option<u64>>,
}

impl<'a> Part<'a> {
    fn of(user: usize, disk: &'a File, used: &'a Used) -> Self {
        Self {
            start: (user * PLACES * REQUEST) as u64,
            disk,
            used,
            holds: vec![None; PLACES],
        }
    }

    /// Writes and reads until it is over.
    fn use_until_over(mut self) -> Self {
        let mut room = Aligned::new();
        let mut round = 0_usize;
        while !self.used.over.load(Ordering::Relaxed) {
            let place = round % PLACES;
            let seed = self.start << 16 | round as u64;
            room.bytes().copy_from_slice(&noise_of(seed, REQUEST));
            let wrote = self.disk.write_all_at(room.bytes(), self.at(place));
            self.holds[place] = wrote.is_ok().then_some(seed);
            self.count(&wrote);
            self.compare(&mut room, round.wrapping_mul(7) % PLACES);
            round += 1;
        }
        self
    }

    /// Reads all of it, when nothing is written any more.
    fn read_back(&self) {
        let mut room = Aligned::new();
        for place in 0..PLACES {
            self.compare(&mut room, place);
        }
    }

    fn compare(&self, room: &mut Aligned, place: usize) {
        let Some(seed) = self.holds[place] else {
            return;
        };
        room.bytes().fill(0);
        let read = self.disk.read_exact_at(room.bytes(), self.at(place));
        self.count(&read);
        if read.is_ok() && *room.bytes() != noise_of(seed, REQUEST) {
            self.used.mismatches.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(&self, place: usize) -> u64 {
        self.start + (place * REQUEST) as u64
    }

    fn count(&self, done: &io::Result<()>) {
        let counter = match done {
            Ok(()) => &self.used.served,
            Err(_) => &self.used.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Room for a request past the page cache.
struct Aligned {
    room: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let room = vec![0; REQUEST + BLOCK];
        let start = room.as_ptr().align_offset(BLOCK);
        Self { room, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + REQUEST]
    }
}
