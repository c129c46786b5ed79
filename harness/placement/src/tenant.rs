//! A tenant: makes requests, believes no answer, and shows all the while that it is alive.
//!
//! Every write is read back, at random while the trial runs and completely at its end; every
//! computed value is computed here too. A request that fails is tried again, so that what is
//! counted as lost is lost for good.

use crate::bystander::Bystander;
use crate::call::Call;
use crate::hardware::NEXT_BELL;
use crate::link::{BEAT, Link};
use crate::placement::RingAt;
use crate::ring::{Ask, PAGES, Ring, SLOTS, Status};
use crate::sabotage::{BYSTANDER, Mix};
use crate::sibling::{Found, Sibling};
use crate::trial::{DriverId, Fault, TenantIo, TrialSpec};
use cofferdam_seam::service::SECTOR;
use cofferdam_seam::{Deadline, Time};
use corosensei::Yielder;
use std::rc::Rc;
use std::time::Duration;

/// Device time between two requests.
const THINK: Duration = Duration::from_millis(1);
/// Device time before a failed request is tried again.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it looks at its memory before the request at which it looks again.
const QUIET: Duration = Duration::from_millis(10);
/// How often a request is tried before the tenant gives it up.
const TRIES: u32 = 8;
/// Sectors each tenant works on.
pub const SECTORS: u64 = 16;

/// The first sector of a tenant's part of the disk.
pub fn first_sector(tenant: u8) -> u64 {
    u64::from(tenant).saturating_sub(1) * SECTORS
}

/// A tenant's way to the driver.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// There is none: it makes no requests.
    None,
    /// The domain of that index is at the other end of its ring.
    Ring(usize),
    /// The driver is in this domain, and serves the ring when the tenant leaves off.
    Within(&'a Yielder<(), ()>),
}

/// A tenant at work.
pub struct Tenant<'a> {
    link: Rc<Link>,
    ring: Ring,
    /// The data page of each slot.
    pages: [usize; SLOTS],
    way: Way<'a>,
    /// First sector of this tenant's part of the disk.
    first: u64,
    driver: DriverId,
    mix: Mix,
    io: TenantIo,
    submitted: u32,
    /// The device of its own, if it has one in this trial.
    sibling: Option<Sibling>,
    /// It makes its first request, which is no part of a trial.
    warming: bool,
    /// From which request on it gives a page back, if it still has to.
    gives_back: Option<u32>,
    /// It looks at the memory it shares with the driver's CPU, and at which request.
    looks: Option<(Bystander, u32)>,
    /// What each acknowledged sector must hold.
    written: Vec<Option<Vec<u8>>>,
}

impl<'a> Tenant<'a> {
    /// Tenant `number` of a trial.
    pub fn new(link: Rc<Link>, spec: &TrialSpec, number: u8, way: Way<'a>) -> Self {
        let ring = Ring::of(link.window(), RingAt::Tenant(number));
        Self {
            ring,
            pages: std::array::from_fn(|slot| slot),
            way,
            first: first_sector(number),
            driver: spec.driver,
            mix: Mix::of_tenant(spec.seed, number),
            io: TenantIo {
                tenant: number,
                wanted: wanted(way, if spec.warm { 1 } else { spec.requests }),
                ..TenantIo::default()
            },
            warming: spec.warm,
            submitted: 0,
            sibling: (number == 2 && spec.fault.sibling().is_some()).then(Sibling::default),
            gives_back: match spec.fault {
                Fault::D14 { nth, .. } if number == 1 => Some(nth),
                _ => None,
            },
            looks: match spec.fault {
                Fault::B8 { nth, .. } if number == BYSTANDER => Some((Bystander::new(), nth)),
                _ => None,
            },
            written: vec![None; usize::try_from(SECTORS).unwrap_or(0)],
            link,
        }
    }

    /// Works off the requests of its trials, and stays alive until the last one ends.
    pub fn run(mut self) -> ! {
        let next = if self.warming { NEXT_BELL } else { 0 };
        if self.warming {
            let good = self.io.wanted == 0 || self.request();
            self.finish(good);
        } else {
            self.work();
        }
        loop {
            self.rest(next);
            let [seed, requests] = self.link.call(Call::Next).values;
            self.begin(seed, u32::try_from(requests).unwrap_or(0));
            self.work();
        }
    }

    /// The next trial of its boot.
    fn begin(&mut self, seed: u64, requests: u32) {
        self.mix = Mix::of_tenant(seed, self.io.tenant);
        self.io = TenantIo {
            tenant: self.io.tenant,
            wanted: wanted(self.way, requests),
            ..TenantIo::default()
        };
        self.warming = false;
        // What an earlier trial wrote is not this one's to miss.
        self.written.fill(None);
        self.publish();
    }

    /// One request, and whether it was answered well.
    fn request(&mut self) -> bool {
        if self.driver.is_block() {
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
            self.link.pause(THINK);
        }
        for sector in 0..self.written.len() {
            good &= self.written[sector].is_none() || self.check(sector, true);
        }
        self.finish(good);
    }

    fn finish(&mut self, good: bool) {
        self.io.finished = good;
        self.publish();
        self.link.call(Call::Finished);
    }

    /// Stays alive until one of these bells rings.
    fn rest(&mut self, bells: u64) {
        loop {
            if self.link.wait_alive(bells, self.until_sibling()) != 0 {
                return;
            }
            self.look_after_sibling();
        }
    }

    /// When to look after its own device, if it has one.
    fn until_sibling(&self) -> Deadline {
        match self.sibling {
            Some(_) => self.link.deadline(BEAT),
            None => Deadline(Time::NEVER),
        }
    }

    /// Finds out whether its own device is as it left it, and leaves it in another state.
    fn look_after_sibling(&mut self) {
        let Some(sibling) = &mut self.sibling else {
            return;
        };
        let found = sibling.turn(&self.link);
        self.io.device_changed += u32::from(found == Found::Changed);
        self.io.device_lost += u32::from(found == Found::Lost);
        if found != Found::Well {
            self.publish();
            self.link.call(Call::Complain { what: 10 });
        }
    }

    fn publish(&mut self) {
        note_surplus(&mut self.io, self.ring.surplus(self.submitted));
        self.link.page().store_io(&self.io);
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
        let begun = self.link.now();
        for _ in 0..TRIES {
            if self.io.errors + self.io.corrupted > 0 {
                self.publish();
            }
            match self.ask(ask, data, into) {
                Status::Good if right(into) => {
                    let took = self.link.now().since(begun);
                    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                    self.io.longest_ns = self.io.longest_ns.max(took);
                    return true;
                }
                Status::Good => {
                    self.io.corrupted += 1;
                    self.link.call(Call::Complain { what: 5 });
                }
                Status::Failed => {
                    self.io.errors += 1;
                    self.link.call(Call::Complain { what: 4 });
                }
            }
            self.link.pause(PAUSE);
        }
        false
    }

    /// Gives back the page that a slot's request had its data in, and uses another from now on.
    fn give_back(&mut self, slot: usize) {
        let phys = self.ring.data_page(self.pages[slot]);
        if !self.link.call(Call::GiveBack { phys }).ok {
            return;
        }
        // Those that no slot needs come last.
        self.pages[slot] = PAGES - 1;
        if self.link.window().give_up(phys).is_ok() {
            self.link.call(Call::GivenBack);
        }
    }

    /// Reads memory of its own for a moment, if the request it has made so many of is the one at
    /// which to look.
    fn look(&mut self, submitted: u32, during: bool) -> bool {
        match &mut self.looks {
            Some((bystander, nth)) if *nth == submitted => {
                bystander.read(during);
                self.link.beat();
                true
            }
            _ => false,
        }
    }

    /// One request, waited for as long as it takes: the trial's horizon bounds it, and this tenant
    /// beats all the while.
    fn ask(&mut self, ask: Ask, data: &[u8], into: &mut [u8]) -> Status {
        let nth = self.submitted;
        let quiet = self.link.deadline(QUIET);
        while !quiet.passed(self.link.now()) && self.look(nth + 1, false) {}
        let page = self.pages[nth as usize % SLOTS];
        self.ring.submit(nth, page, ask, data, into.len());
        self.submitted = nth.wrapping_add(1);
        if let Way::Ring(server) = self.way {
            self.link.ring(Link::bit(server));
        }
        loop {
            if let Some(status) = self.ring.answer(nth, page, into) {
                if let Some((bystander, _)) = self.looks.take_if(|(_, at)| *at == nth + 1) {
                    self.io.memory = Some(bystander.noticed());
                }
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
            if self.look(nth + 1, true) {
                continue;
            }
            let rang = match self.way {
                Way::None => return Status::Failed,
                Way::Ring(server) => {
                    let bell = Link::bit(server);
                    self.link.wait_alive(bell, self.until_sibling()) != 0
                }
                Way::Within(driver) => {
                    driver.suspend(());
                    self.link.beat();
                    true
                }
            };
            if !rang {
                // Whatever keeps the answer away need not keep this from its own device.
                self.look_after_sibling();
            }
        }
    }
}

/// How many of these requests a tenant with that way makes.
const fn wanted(way: Way<'_>, requests: u32) -> u32 {
    match way {
        Way::None => 0,
        Way::Ring(_) | Way::Within(_) => requests,
    }
}

/// A ring shows its surplus of answers until requests have caught up with it: each surplus answer is
/// one duplicate, however often it is looked at.
fn note_surplus(io: &mut TenantIo, surplus: u32) {
    io.duplicated = io.duplicated.max(surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_answer_is_one_duplicate_however_often_it_is_seen() {
        let mut io = TenantIo::default();

        for surplus in [0, 1, 1, 2, 1, 0] {
            note_surplus(&mut io, surplus);
        }

        assert_eq!(io.duplicated, 2);
    }
}
