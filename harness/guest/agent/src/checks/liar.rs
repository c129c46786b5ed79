//! Linux's own driver of NVMe on a controller that begins to lie, and what others notice of it.

use super::NotPassed;
use super::disk::{appear, find, millis, noise};
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Bytes of a request.
const REQUEST: usize = 0x1_0000;
/// Requests of a round.
const REQUESTS: u64 = 16;
/// From one sign of life, or request of a bystander, to the next.
const BEAT: Duration = Duration::from_millis(2);
/// What a bystander reads at once; a page, so that it need not be aligned by more.
pub(super) const BLOCK: usize = 4096;

/// Uses a disk of NVMe that begins to lie when byte 3Ch of its configuration space becomes a5h: writes,
/// reads back, resets the controller, and does so again. Meanwhile, on another CPU if there is one, a
/// thread tells how long nobody was let run, and one for each other disk how long its reads took. Says
/// what came of it and judges nothing. Arguments: the PCI address of the controller, and of others:
/// Linux numbers controllers in the order in which they happen to come up.
pub fn meets_a_liar(arguments: &[String]) -> Result<Value, NotPassed> {
    let [address, others @ ..] = arguments else {
        let error = "which controller?";
        return Err(NotPassed::Failed(json!({ "error": error })));
    };
    let (controller, disk) = brought_up(address)?;
    let file = OpenOptions::new().read(true).write(true).open(disk)?;
    let config = OpenOptions::new().write(true).open(
        Path::new("/sys/bus/pci/devices")
            .join(address)
            .join("config"),
    )?;
    let mut bystanders = Vec::new();
    for other in others {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let mut disk = OpenOptions::new();
        let disk = disk.read(true).custom_flags(direct);
        bystanders.push((other, disk.open(brought_up(other)?.1)?));
    }
    stay_on(0)?;

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beats = scope.spawn(|| beat(&over));
        let spawned: Vec<_> = bystanders
            .iter()
            .map(|(other, disk)| (other, scope.spawn(|| use_honest(disk, &over))))
            .collect();
        let mut seen = Seen::default();
        let started = Instant::now();
        let told = config.write_all_at(&[0xa5], 0x3c);
        seen.use_disk(&file, 0);
        let reset = fs::write(controller.join("reset_controller"), "1");
        seen.use_disk(&file, 1);
        let took = started.elapsed();
        over.store(true, Ordering::Relaxed);
        told?;
        let ended = |_| NotPassed::Failed(json!({ "error": "a bystander panicked" }));
        let longest = beats.join().map_err(ended)?;
        let mut others = Vec::new();
        for (other, thread) in spawned {
            let Honest {
                reads,
                errors,
                longest,
            } = thread.join().map_err(ended)?;
            others.push(json!({
                "address": other, "reads": reads, "errors": errors, "longest_ms": millis(longest),
            }));
        }
        Ok(json!({
            "errors": seen.errors, "first_error": seen.first, "mismatches": seen.mismatches,
            "reset": reset.err().map_or("done".to_owned(), |error| error.to_string()),
            "took_ms": millis(took), "stall_ms": millis(longest), "others": others,
        }))
    })
}

/// A controller's directory, and its disk.
pub(super) fn brought_up(address: &str) -> Result<(PathBuf, PathBuf), NotPassed> {
    let function = Path::new("/sys/bus/pci/devices").join(address);
    let controller = appear(|| only_entry(&function.join("nvme")))?;
    let name = controller.file_name().unwrap_or_default().to_string_lossy();
    let disk = find(&format!("{name}n1"))?;
    Ok((controller, disk))
}

/// Keeps the calling thread on that CPU, or on the last one there is.
fn stay_on(cpu: usize) -> Result<(), NotPassed> {
    let cpus = available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cpu.min(cpus - 1));
    Ok(sched_setaffinity(None, &set)?)
}

/// The longest time for which this thread was not let run.
fn beat(over: &AtomicBool) -> Duration {
    // A thread that cannot be moved is as good on the first CPU.
    let _ = stay_on(1);
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(BEAT);
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    longest.max(last.elapsed())
}

/// What a disk's user saw that is nobody's victim by design.
#[derive(Default)]
struct Honest {
    reads: u64,
    errors: u64,
    longest: Duration,
}

fn use_honest(disk: &File, over: &AtomicBool) -> Honest {
    let _ = stay_on(1);
    let mut seen = Honest::default();
    let mut room = vec![0; 2 * BLOCK];
    let into = room.as_ptr().align_offset(BLOCK);
    // A read counts from when it was due: a stall may come while this thread rests.
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let at = seen.reads % 1024 * BLOCK as u64;
        let read = disk.read_exact_at(&mut room[into..into + BLOCK], at);
        seen.longest = seen.longest.max(due.elapsed());
        seen.reads += 1;
        seen.errors += u64::from(read.is_err());
        due = Instant::now() + BEAT;
        std::thread::sleep(BEAT);
    }
    seen
}

/// What became of a liar's requests.
#[derive(Default)]
struct Seen {
    errors: u32,
    first: Option<String>,
    mismatches: u32,
}

impl Seen {
    fn use_disk(&mut self, file: &File, round: u64) {
        for place in 0..REQUESTS {
            let at = place * REQUEST as u64;
            let wanted = &noise(place ^ round << 32)[..REQUEST];
            let mut got = vec![0; wanted.len()];
            let done = file
                .write_all_at(wanted, at)
                .and_then(|()| file.sync_data())
                .and_then(|()| Ok(fadvise(file, at, None, Advice::DontNeed)?))
                .and_then(|()| file.read_exact_at(&mut got, at));
            match done {
                Ok(()) => self.mismatches += u32::from(got != wanted),
                Err(error) => {
                    self.errors += 1;
                    self.first.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// The only entry of a directory.
fn only_entry(directory: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?;
    Some(entries.next()?.ok()?.path())
}
