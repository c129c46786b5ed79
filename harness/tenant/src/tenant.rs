//! A tenant: makes requests, believes no answer, and shows all the while that it is alive.
//!
//! Every write is read back, at random while the trial runs and completely at its end; every
//! computed value is computed here too. A request that fails is tried again, so that what is
//! counted as lost is lost for good.

use crate::io::Io;
use crate::mix::Mix;
use crate::ring::{Ask, PAGES, Ring, SLOTS, Shared, Status};
use crate::sibling::{Found, Sibling};
use crate::world::{Bell, Complaint, World};
use alloc::vec;
use alloc::vec::Vec;
use cofferdam_seam::service::SECTOR;
use cofferdam_seam::{Deadline, Time};
use core::time::Duration;

/// Device time between two requests.
const THINK: Duration = Duration::from_millis(1);
/// Device time before a failed request is tried again.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it looks at its memory before the request at which it looks again.
const QUIET: Duration = Duration::from_millis(10);
/// How often it looks after its own device.
const LOOK_AFTER: Duration = Duration::from_millis(1);
/// How often a request is tried before the tenant gives it up.
const TRIES: u32 = 8;
/// Sectors each tenant works on.
pub const SECTORS: u64 = 16;

/// The first sector of a tenant's part of the disk.
pub fn first_sector(tenant: u8) -> u64 {
    u64::from(tenant).saturating_sub(1) * SECTORS
}

/// What a tenant is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which tenant it is, 1 or 2.
    pub number: u8,
    /// Whether its server has a disk; else a device that computes.
    pub block: bool,
    /// Decides what it asks for.
    pub seed: u64,
    /// How many requests it makes.
    pub requests: u32,
    /// They only make everything ready: the trial comes after them.
    pub warm: bool,
    /// Whether it has a device of its own to look after.
    pub sibling: bool,
    /// From which request on it gives a page back, if it does.
    pub gives_back: Option<u32>,
}

/// A tenant at work.
pub struct Tenant<M, W> {
    world: W,
    ring: Ring<M>,
    /// The data page of each slot.
    pages: [usize; SLOTS],
    /// First sector of this tenant's part of the disk.
    first: u64,
    task: Task,
    mix: Mix,
    io: Io,
    submitted: u32,
    /// The device of its own, if it has one in this trial.
    sibling: Option<Sibling>,
    /// It makes its first request, which is no part of a trial.
    warming: bool,
    /// From which request on it gives a page back, if it still has to.
    gives_back: Option<u32>,
    /// What each acknowledged sector must hold.
    written: Vec<Option<Vec<u8>>>,
}

impl<M: Shared, W: World> Tenant<M, W> {
    /// A tenant with that ring, which has not done anything yet.
    pub fn new(world: W, ring: Ring<M>, task: Task) -> Self {
        Self {
            world,
            ring,
            pages: core::array::from_fn(|slot| slot),
            first: first_sector(task.number),
            task,
            mix: Mix::of_tenant(task.seed, task.number),
            io: Io {
                wanted: task.requests,
                ..Io::default()
            },
            submitted: 0,
            sibling: task.sibling.then(Sibling::default),
            warming: task.warm,
            gives_back: task.gives_back,
            written: vec![None; usize::try_from(SECTORS).unwrap_or(0)],
        }
    }

    /// Works off the requests of its trials, and stays alive until the last one ends.
    pub fn run(mut self) -> ! {
        let next = if self.warming { Bell::Next } else { Bell::None };
        if self.warming {
            let good = self.io.wanted == 0 || self.request();
            self.finish(good);
        } else {
            self.work();
        }
        loop {
            self.rest(next);
            let (seed, requests) = self.world.next();
            self.begin(seed, requests);
            self.work();
        }
    }

    /// The next trial of its boot.
    fn begin(&mut self, seed: u64, requests: u32) {
        self.mix = Mix::of_tenant(seed, self.task.number);
        self.io = Io {
            wanted: requests,
            ..Io::default()
        };
        self.warming = false;
        // What an earlier trial wrote is not this one's to miss.
        self.written.fill(None);
        self.publish();
    }

    /// One request, and whether it was answered well.
    fn request(&mut self) -> bool {
        if self.task.block {
            self.store_or_check()
        } else {
            self.compute()
        }
    }

    /// Works off all requests of a trial.
    fn work(&mut self) {
        let mut good = true;
        for _ in 0..self.io.wanted {
            let done = self.request();
            good &= done;
            self.io.completed += u32::from(done);
            self.look_after_sibling();
            self.publish();
            self.world.pause(THINK);
        }
        for sector in 0..self.written.len() {
            good &= self.written[sector].is_none() || self.check(sector, true);
        }
        self.finish(good);
    }

    fn finish(&mut self, good: bool) {
        self.io.finished = good;
        self.publish();
        self.world.finished();
    }

    /// Stays alive until that bell rings.
    fn rest(&mut self, bell: Bell) {
        loop {
            let until = self.until_sibling();
            if self.world.wait(bell, until) {
                return;
            }
            self.look_after_sibling();
        }
    }

    /// When to look after its own device, if it has one.
    fn until_sibling(&self) -> Deadline {
        match self.sibling {
            Some(_) => self.world.deadline(LOOK_AFTER),
            None => Deadline(Time::NEVER),
        }
    }

    /// Finds out whether its own device is as it left it, and leaves it in another state.
    fn look_after_sibling(&mut self) {
        let Some(sibling) = &mut self.sibling else {
            return;
        };
        let found = sibling.turn(&mut self.world);
        self.io.device_changed += u32::from(found == Found::Changed);
        self.io.device_lost += u32::from(found == Found::Lost);
        if found != Found::Well {
            self.publish();
            self.world.complain(Complaint::Device);
        }
    }

    fn publish(&mut self) {
        note_surplus(&mut self.io, self.ring.surplus(self.submitted));
        self.world.publish(&self.io);
    }

    /// Writes a sector, or reads one back that was written.
    fn store_or_check(&mut self) -> bool {
        let sector = usize::try_from(self.mix.below(SECTORS)).unwrap_or(0);
        let write = self.mix.word() & 1 == 0 || self.written[sector].is_none();
        if !write {
            return self.check(sector, false);
        }
        let content = self.mix.bytes(SECTOR);
        let at = Ask::Write {
            sector: self.first + sector as u64,
        };
        let acknowledged = self.insist(at, &content, &mut [], |_| true);
        // Unless it was acknowledged, either content may be found there: nothing is expected.
        self.written[sector] = acknowledged.then_some(content);
        acknowledged
    }

    /// Reads an acknowledged sector back. The last look at it decides whether the write is lost.
    fn check(&mut self, sector: usize, last: bool) -> bool {
        let Some(expected) = self.written[sector].clone() else {
            return true;
        };
        let mut content = vec![0; SECTOR];
        let at = Ask::Read {
            sector: self.first + sector as u64,
        };
        let wrong_before = self.io.corrupted;
        let good = self.insist(at, &[], &mut content, |got| got == expected);
        if last && !good && self.io.corrupted > wrong_before {
            self.io.lost += 1;
        }
        good
    }

    /// A factorial or a round trip, checked against our own.
    fn compute(&mut self) -> bool {
        if self.mix.word() & 1 == 0 {
            let n = self.mix.below(20);
            let expected = (1..=n).fold(1_u32, |product, k| {
                product.wrapping_mul(u32::try_from(k).unwrap_or(0))
            });
            return self.insist(Ask::Factorial { n }, &[], &mut [0; 4], |got| {
                got == expected.to_le_bytes()
            });
        }
        let out = self.mix.bytes(256);
        self.insist(Ask::RoundTrip, &out, &mut [0; 256], |got| got == out)
    }

    /// Makes a request until it is answered well: `right` judges the data of a good answer.
    fn insist(
        &mut self,
        ask: Ask,
        data: &[u8],
        into: &mut [u8],
        right: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let begun = self.world.now();
        for _ in 0..TRIES {
            if self.io.errors + self.io.corrupted > 0 {
                self.publish();
            }
            match self.ask(ask, data, into) {
                Status::Good if right(into) => {
                    let took = self.world.now().since(begun);
                    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                    self.io.longest_ns = self.io.longest_ns.max(took);
                    return true;
                }
                Status::Good => {
                    self.io.corrupted += 1;
                    self.world.complain(Complaint::Wrong);
                }
                Status::Failed => {
                    self.io.errors += 1;
                    self.world.complain(Complaint::Failed);
                }
            }
            self.world.pause(PAUSE);
        }
        false
    }

    /// Gives back the page that a slot's request had its data in, and uses another from now on.
    fn give_back(&mut self, slot: usize) {
        let phys = self.ring.data_page(self.pages[slot]);
        if self.world.give_back(phys) {
            // Those that no slot needs come last.
            self.pages[slot] = PAGES - 1;
        }
    }

    /// One request, waited for as long as it takes: the trial's horizon bounds it, and this tenant
    /// beats all the while.
    fn ask(&mut self, ask: Ask, data: &[u8], into: &mut [u8]) -> Status {
        let nth = self.submitted;
        let quiet = self.world.deadline(QUIET);
        while !quiet.passed(self.world.now()) && self.world.look(nth + 1, false) {}
        let page = self.pages[nth as usize % SLOTS];
        self.ring.submit(nth, page, ask, data, into.len());
        self.submitted = nth.wrapping_add(1);
        self.world.ring();
        loop {
            if let Some(status) = self.ring.answer(nth, page, into) {
                self.world.answered(nth + 1);
                let brought =
                    status == Status::Good && matches!(ask, Ask::Read { .. } | Ask::RoundTrip);
                if brought
                    && !self.warming
                    && self.gives_back.is_some_and(|from| self.submitted >= from)
                {
                    self.gives_back = None;
                    self.give_back(nth as usize % SLOTS);
                }
                return status;
            }
            if self.world.look(nth + 1, true) {
                continue;
            }
            let until = self.until_sibling();
            if !self.world.wait(Bell::Server, until) {
                // Whatever keeps the answer away need not keep this from its own device.
                self.look_after_sibling();
            }
        }
    }
}

/// A ring shows its surplus of answers until requests have caught up with it: each surplus answer is
/// one duplicate, however often it is looked at.
fn note_surplus(io: &mut Io, surplus: u32) {
    io.duplicated = io.duplicated.max(surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_answer_is_one_duplicate_however_often_it_is_seen() {
        let mut io = Io::default();

        for surplus in [0, 1, 1, 2, 1, 0] {
            note_surplus(&mut io, surplus);
        }

        assert_eq!(io.duplicated, 2);
    }
}
