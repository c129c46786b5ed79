//! How many requests of a page disks of NVMe serve, one after the other, past the page cache.

use super::NotPassed;
use super::liar::{BLOCK, brought_up};
use rustix::fs::OFlags;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// How long each way is used, in turns: what else the host does meanwhile hurts all of them alike.
const TURN: Duration = Duration::from_millis(500);
const TURNS: u32 = 4;
/// Blocks of a disk that are used.
const BLOCKS: u64 = 2048;

const WAYS: [(&str, bool, bool); 4] = [
    ("sequential_reads", false, false),
    ("sequential_writes", true, false),
    ("random_reads", false, true),
    ("random_writes", true, true),
];

/// One disk's way of being used, and what came of it.
struct Used {
    disk: usize,
    way: usize,
    requests: u64,
    time: Duration,
}

/// Uses each disk in each way, in turns. Arguments: the controllers' PCI addresses.
pub fn run(arguments: &[String]) -> Result<Value, NotPassed> {
    let mut disks = Vec::new();
    for address in arguments {
        let direct = OFlags::DIRECT.bits().cast_signed();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(direct);
        disks.push(options.open(brought_up(address)?.1)?);
    }
    let mut all = Vec::new();
    for disk in 0..disks.len() {
        for way in 0..WAYS.len() {
            let time = Duration::ZERO;
            all.push(Used {
                disk,
                way,
                requests: 0,
                time,
            });
        }
    }
    let mut room = vec![0x5a; 2 * BLOCK];
    let start = room.as_ptr().align_offset(BLOCK);
    for _ in 0..TURNS {
        for used in &mut all {
            used.go_on(&disks[used.disk], &mut room[start..start + BLOCK])?;
        }
    }
    let mut told = Map::new();
    for (number, address) in arguments.iter().enumerate() {
        let of = all.iter().filter(|used| used.disk == number);
        let rates = of.map(|used| {
            let seconds = used.time.as_secs_f64();
            (
                WAYS[used.way].0.to_owned(),
                json!((used.requests as f64 / seconds).round()),
            )
        });
        told.insert(address.clone(), Value::Object(rates.collect()));
    }
    told.insert(
        "requests".to_owned(),
        json!(all.iter().map(|used| used.requests).sum::<u64>()),
    );
    Ok(Value::Object(told))
}

impl Used {
    fn go_on(&mut self, disk: &File, block: &mut [u8]) -> io::Result<()> {
        let (_, writes, random) = WAYS[self.way];
        let started = Instant::now();
        while started.elapsed() < TURN {
            let place = if random {
                // Every block once in a while, in no order: an odd factor and a power of two.
                self.requests.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
            } else {
                self.requests
            };
            let at = place % BLOCKS * BLOCK as u64;
            if writes {
                disk.write_all_at(block, at)?;
            } else {
                disk.read_exact_at(block, at)?;
            }
            self.requests += 1;
        }
        self.time += started.elapsed();
        Ok(())
    }
}
