//! The port page: the one page a domain shares with the hardware, and with nobody else.
//!
//! A call is posted by the domain and answered by the hardware; `state` says whose turn it is.
//!
//! | state | who may write the page | set by |
//! |---|---|---|
//! | `EMPTY` | nobody yet | the zygote, for a new generation |
//! | `RUNNING` | the domain | the hardware: the grant |
//! | `BLOCKED` | the hardware | the domain: the call |
//!
//! Statistics (`beat`, `gap`, `io`, `price`, `tolls`, `text`) are stored by the domain and only read by the
//! hardware, which believes them as far as it believes the domain.

use crate::call::{Answer, Call, WORDS};
use crate::storm::Price;
use crate::trial::{Reading, SharedMemory, TenantIo};
use crate::{futex, shared};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a page in the port file.
pub const PAGE: usize = 4096;

/// No call was posted since the domain was forked.
pub const EMPTY: u32 = 0;
/// The domain holds the grant.
pub const RUNNING: u32 = 1;
/// A call waits for the hardware.
pub const BLOCKED: u32 = 2;

/// Longest text a domain can leave behind.
const TEXT: usize = 512;

/// How long a domain waits for the hardware before it takes it for dead.
const ORPHANED: Duration = Duration::from_secs(60);
/// Exit code of a domain whose hardware no longer answers.
pub const EXIT_ORPHANED: i32 = 98;

/// The page itself. Everything in it is atomic: both sides may touch it at any time.
#[repr(C, align(4096))]
pub struct PortPage {
    state: AtomicU32,
    /// The domain sleeps on `state` and must be woken.
    domain_sleeps: AtomicU32,
    /// The hardware sleeps on `state` and must be woken.
    hardware_sleeps: AtomicU32,
    text_len: AtomicU32,
    request: [AtomicU64; WORDS],
    reply: [AtomicU64; 4],
    /// Wall clock only: last heartbeat and longest gap, ns.
    beat: AtomicU64,
    gap: AtomicU64,
    io: [AtomicU64; 16],
    /// What a locked increment costs, ps: within a line, across two; whether that proves a locked bus.
    price: [AtomicU64; 3],
    /// Of all generations together.
    tolls: [AtomicU64; Toll::COUNT],
    text: [AtomicU8; TEXT],
}

const _: () = assert!(size_of::<PortPage>() == PAGE);

/// Maps page `index` of the port file for the life of the process.
pub fn open(ports: BorrowedFd<'_>, index: usize) -> io::Result<&'static PortPage> {
    let at = shared::map(ports, (index * PAGE) as u64, PAGE)?;
    // SAFETY: the mapping is page aligned, as large as the type, never unmapped, and every field
    // is an atomic, valid for any bytes another process may store.
    Ok(unsafe { at.cast::<PortPage>().as_ref() })
}

/// Wakes a hardware that waits for a call of that domain, which will not come any more.
pub fn rouse(ports: BorrowedFd<'_>, index: usize) -> io::Result<()> {
    let at = shared::map(ports, (index * PAGE) as u64, PAGE)?;
    // SAFETY: as in `open`, but for as long as it is borrowed here.
    let page = unsafe { at.cast::<PortPage>().as_ref() };
    futex::wake(&page.state);
    // SAFETY: it was mapped above, and the borrow has ended.
    unsafe { shared::unmap(at, PAGE) };
    Ok(())
}

/// What a domain counts itself: what it costs to get a request from one domain to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toll {
    /// Doorbells rung.
    Rang,
    /// Bytes of requests and answers copied.
    Copied,
    /// Sleeps that a doorbell or an interrupt ended.
    Woken,
    /// Exits of its guest.
    Left,
}

impl Toll {
    /// How many kinds there are.
    pub const COUNT: usize = 4;
    /// Every kind.
    pub const ALL: [Self; Self::COUNT] = [Self::Rang, Self::Copied, Self::Woken, Self::Left];
}

/// How long either side polls before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spin(pub u32);

impl PortPage {
    /// Posts a call and waits for its answer and the device time it was given at. The domain's
    /// side.
    pub fn call(&self, call: Call, spin: Spin) -> (Answer, u64) {
        for (word, value) in self.request.iter().zip(call.encode()) {
            word.store(value, Ordering::Relaxed);
        }
        self.state.store(BLOCKED, Ordering::SeqCst);
        if self.hardware_sleeps.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.state);
        }
        self.await_grant(spin);
        let [ok, first, second, now] = [0, 1, 2, 3].map(|i| self.reply[i].load(Ordering::Relaxed));
        (
            Answer {
                ok: ok != 0,
                values: [first, second],
            },
            now,
        )
    }

    fn await_grant(&self, spin: Spin) {
        for _ in 0..spin.0 {
            if self.state.load(Ordering::Acquire) == RUNNING {
                return;
            }
            std::hint::spin_loop();
        }
        let mut waited = 0;
        self.domain_sleeps.store(1, Ordering::SeqCst);
        while self.state.load(Ordering::SeqCst) != RUNNING {
            futex::wait(&self.state, BLOCKED, Duration::from_secs(1));
            waited += 1;
            // Wakes are few: a second passes only when nothing happens.
            if waited > 100_000 + ORPHANED.as_secs() {
                // SAFETY: ends this process, which has nothing to flush.
                unsafe { libc::_exit(EXIT_ORPHANED) };
            }
        }
        self.domain_sleeps.store(0, Ordering::Relaxed);
    }

    /// Forgets what an earlier generation left, before a new one is forked.
    pub fn clear(&self) {
        self.state.store(EMPTY, Ordering::SeqCst);
        for word in [&self.domain_sleeps, &self.hardware_sleeps, &self.text_len] {
            word.store(0, Ordering::Relaxed);
        }
        for word in self
            .request
            .iter()
            .chain(&self.io)
            .chain([&self.beat, &self.gap])
        {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a call waits for the hardware.
    pub fn posted(&self) -> bool {
        self.state.load(Ordering::Acquire) == BLOCKED
    }

    /// The posted call; `None` if the words mean nothing.
    pub fn posted_call(&self) -> Option<Call> {
        let mut words = [0; WORDS];
        for (word, cell) in words.iter_mut().zip(&self.request) {
            *word = cell.load(Ordering::Relaxed);
        }
        Call::decode(words)
    }

    /// Answers the posted call and lets the domain run.
    pub fn grant(&self, answer: Answer, now: u64) {
        let words = [
            u64::from(answer.ok),
            answer.values[0],
            answer.values[1],
            now,
        ];
        for (cell, value) in self.reply.iter().zip(words) {
            cell.store(value, Ordering::Relaxed);
        }
        self.state.store(RUNNING, Ordering::SeqCst);
        if self.domain_sleeps.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.state);
        }
    }

    /// Waits until a call is posted, at most `limit`. The hardware's side.
    pub fn await_call(&self, spin: Spin, limit: Duration) -> bool {
        for _ in 0..spin.0 {
            if self.posted() {
                return true;
            }
            std::hint::spin_loop();
        }
        self.hardware_sleeps.store(1, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        if state != BLOCKED {
            futex::wait(&self.state, state, limit);
        }
        self.hardware_sleeps.store(0, Ordering::Relaxed);
        self.posted()
    }

    /// The state word, and the value it has while no call waits, for waiting on many ports.
    pub fn sleeping_on(&self) -> (&AtomicU32, u32) {
        self.hardware_sleeps.store(1, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        (&self.state, if state == EMPTY { EMPTY } else { RUNNING })
    }

    /// The hardware no longer sleeps.
    pub fn awake(&self) {
        self.hardware_sleeps.store(0, Ordering::Relaxed);
    }

    /// Leaves words for whoever buries this domain.
    pub fn leave_text(&self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(TEXT)];
        for (cell, byte) in self.text.iter().zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
        self.text_len
            .store(u32::try_from(bytes.len()).unwrap_or(0), Ordering::Release);
    }

    /// The words left behind, if any.
    pub fn text(&self) -> Option<String> {
        let len = (self.text_len.load(Ordering::Acquire) as usize).min(TEXT);
        let bytes: Vec<u8> = self.text[..len]
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        (len > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stores a heartbeat (wall clock; under leap it is a call).
    pub fn store_beat(&self, now: u64) {
        let last = self.beat.swap(now, Ordering::Relaxed);
        if last != 0 {
            self.gap
                .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
    }

    /// Last stored heartbeat and longest gap so far, ns.
    pub fn beats(&self) -> (u64, u64) {
        (
            self.beat.load(Ordering::Relaxed),
            self.gap.load(Ordering::Relaxed),
        )
    }

    /// Adds to what the domain counts.
    pub fn pay(&self, toll: Toll, count: u64) {
        self.tolls[toll as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// What the domain has counted.
    pub fn paid(&self, toll: Toll) -> u64 {
        self.tolls[toll as usize].load(Ordering::Relaxed)
    }

    /// Publishes what a locked increment costs the driver's CPU.
    pub fn store_price(&self, price: Price) {
        let words = [price.aligned_ps, price.split_ps, price.proves.into()];
        for (cell, word) in self.price.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// What a locked increment costs there, if that was found out.
    pub fn price(&self) -> Option<Price> {
        let word = |at: usize| self.price[at].load(Ordering::Relaxed);
        (word(1) > 0).then(|| Price {
            aligned_ps: word(0),
            split_ps: word(1),
            proves: word(2) != 0,
        })
    }

    /// Publishes a tenant's counters.
    pub fn store_io(&self, io: &TenantIo) {
        let words = [
            u64::from(io.wanted),
            u64::from(io.completed),
            u64::from(io.errors),
            u64::from(io.corrupted),
            u64::from(io.lost),
            u64::from(io.duplicated),
            io.longest_ns,
            u64::from(io.finished),
            u64::from(io.device_changed),
            u64::from(io.device_lost),
        ];
        let memory = io.memory.unwrap_or_default();
        let readings = [memory.quiet, memory.during].map(|of| {
            let samples = u64::from(of.samples);
            [of.in_order_ns, of.scattered_ns, samples]
        });
        let words = words.into_iter().chain(readings.concat());
        for (cell, value) in self.io.iter().zip(words) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The counters tenant `tenant` published last.
    pub fn io(&self, tenant: u8) -> TenantIo {
        let word = |i: usize| self.io[i].load(Ordering::Relaxed);
        let count = |i: usize| u32::try_from(word(i)).unwrap_or(u32::MAX);
        let reading = |i: usize| Reading {
            in_order_ns: word(i),
            scattered_ns: word(i + 1),
            samples: count(i + 2),
        };
        TenantIo {
            tenant,
            wanted: count(0),
            completed: count(1),
            errors: count(2),
            corrupted: count(3),
            lost: count(4),
            duplicated: count(5),
            longest_ns: word(6),
            finished: word(7) != 0,
            device_changed: count(8),
            device_lost: count(9),
            memory: (count(12) > 0).then(|| SharedMemory {
                quiet: reading(10),
                during: reading(13),
            }),
        }
    }
}
