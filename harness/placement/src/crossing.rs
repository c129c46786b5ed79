//! What a crossing costs: empty requests of a tenant, and next to them a bare ping-pong between two
//! processes that wait the same way.
//!
//! Both put one process on each of two cores, so that polling is possible and a sleeper has to be
//! woken on another core. The difference between the two is what the ring, the event words and the
//! server's loop add.

use crate::futex;
use crate::link::monotonic;
use crate::ring::{Ask, Ring};
use crate::{link::Link, shared};
use cofferdam_seam::{Deadline, VectorSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How both sides wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// By polling.
    Spin,
    /// By sleeping at once.
    Sleep,
}

impl Waiting {
    /// Polls before sleeping.
    pub const fn polls(self) -> u32 {
        match self {
            Self::Spin => 1_000_000,
            Self::Sleep => 0,
        }
    }
}

/// A measurement: so many round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    /// How both sides wait.
    pub waiting: Waiting,
    /// How many round trips.
    pub count: u32,
}

/// The measuring tenant: makes empty requests, one at a time, and returns the time they took, ns.
pub fn empty_requests(link: &Link, ring: Ring, server: u64, count: u32) -> u64 {
    let forever = Deadline(cofferdam_seam::Time::NEVER);
    // The first requests bring the server to its loop and the caches to their steady state.
    let warm_up = 100;
    let mut started = monotonic();
    for nth in 0..count + warm_up {
        if nth == warm_up {
            started = monotonic();
        }
        ring.submit(nth, 0, Ask::Nop, &[], 0);
        link.ring(server);
        while ring.answer(nth, 0, &mut []).is_none() {
            link.wait(VectorSet::EMPTY, server, forever);
        }
    }
    monotonic() - started
}

/// The words of a bare ping-pong, in a page two processes share.
#[repr(C, align(4096))]
pub struct PingPong {
    ball: AtomicU32,
    took: AtomicU64,
}

impl PingPong {
    /// Maps the words for the life of the process.
    pub fn open(file: BorrowedFd<'_>) -> io::Result<&'static Self> {
        let at = shared::map(file, 0, size_of::<Self>())?;
        // SAFETY: the mapping is page aligned, as large as the type, never unmapped, and every
        // field is an atomic, valid for any bytes.
        Ok(unsafe { at.cast::<Self>().as_ref() })
    }

    /// The time the round trips took, ns.
    pub fn took(&self) -> u64 {
        self.took.load(Ordering::Acquire)
    }

    fn await_turn(&self, turn: u32, waiting: Waiting) {
        loop {
            let ball = self.ball.load(Ordering::Acquire);
            if ball == turn {
                return;
            }
            match waiting {
                Waiting::Spin => std::hint::spin_loop(),
                Waiting::Sleep => futex::wait(&self.ball, ball, Duration::from_secs(1)),
            }
        }
    }

    fn pass(&self, turn: u32, waiting: Waiting) {
        self.ball.store(turn, Ordering::Release);
        if waiting == Waiting::Sleep {
            futex::wake(&self.ball);
        }
    }

    /// One side; `first` serves and measures.
    pub fn play(&self, first: bool, rounds: Rounds) {
        let started = monotonic();
        for round in 0..rounds.count {
            let (ping, pong) = (2 * round + 1, 2 * round + 2);
            if first {
                self.pass(ping, rounds.waiting);
                self.await_turn(pong, rounds.waiting);
            } else {
                self.await_turn(ping, rounds.waiting);
                self.pass(pong, rounds.waiting);
            }
        }
        if first {
            self.took.store(monotonic() - started, Ordering::Release);
        }
    }
}
