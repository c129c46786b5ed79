//! A tenant in this process: its world is the domain's link to everybody else.

use crate::bystander::Bystander;
use crate::call::Call;
use crate::hardware::NEXT_BELL;
use crate::link::Link;
use crate::placement::RingAt;
use crate::ring;
use crate::sabotage::BYSTANDER;
use crate::trial::{Fault, SharedMemory, TenantIo, TrialSpec};
use cofferdam_seam::{Deadline, Time};
use cofferdam_tenant::{Bell, Complaint, Io, Task, Tenant, World};
pub use cofferdam_tenant::{SECTORS, first_sector};
use corosensei::Yielder;
use std::rc::Rc;

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

impl Way<'_> {
    /// How many of these requests a tenant with that way makes.
    pub const fn wanted(self, requests: u32) -> u32 {
        match self {
            Self::None => 0,
            Self::Ring(_) | Self::Within(_) => requests,
        }
    }
}

/// What tenant `number` of a trial has to do, with that way to the driver.
pub fn task(spec: &TrialSpec, number: u8, way: Way<'_>) -> Task {
    Task {
        number,
        block: spec.driver.is_block(),
        seed: spec.seed,
        requests: way.wanted(if spec.warm { 1 } else { spec.requests }),
        warm: spec.warm,
        sibling: number == 2 && spec.fault.sibling().is_some(),
        gives_back: match spec.fault {
            Fault::D14 { nth, .. } if number == 1 => Some(nth),
            _ => None,
        },
    }
}

/// Lets tenant `number` of a trial live in this process.
pub fn run(link: Rc<Link>, spec: &TrialSpec, number: u8, way: Way<'_>) -> ! {
    let ring = ring::of(link.window(), RingAt::Tenant(number));
    let task = task(spec, number, way);
    let world = Surroundings::new(link, spec, number, way);
    Tenant::new(world, ring, task).run()
}

/// What is around a tenant: the domain it lives in, as its process or as the VMM of its machine.
pub struct Surroundings<'a> {
    link: Rc<Link>,
    number: u8,
    way: Way<'a>,
    /// It looks at the memory it shares with the driver's CPU, and at which request.
    looks: Option<(Bystander, u32)>,
    /// What it noticed of that.
    noticed: Option<SharedMemory>,
}

impl<'a> Surroundings<'a> {
    /// Those of tenant `number` of a trial.
    pub fn new(link: Rc<Link>, spec: &TrialSpec, number: u8, way: Way<'a>) -> Self {
        Self {
            link,
            number,
            way,
            looks: match spec.fault {
                Fault::B8 { nth, .. } if number == BYSTANDER => Some((Bystander::new(), nth)),
                _ => None,
            },
            noticed: None,
        }
    }

    /// The domain's link.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

impl World for Surroundings<'_> {
    fn now(&self) -> Time {
        self.link.now()
    }

    fn ring(&mut self) {
        if let Way::Ring(server) = self.way {
            self.link.ring(Link::bit(server));
        }
    }

    fn wait(&mut self, bell: Bell, until: Deadline) -> bool {
        let bells = match (bell, self.way) {
            (Bell::Server, Way::Within(driver)) => {
                driver.suspend(());
                self.link.beat();
                return true;
            }
            (Bell::Server, Way::Ring(server)) => Link::bit(server),
            (Bell::Next, _) => NEXT_BELL,
            (Bell::None, _) | (Bell::Server, Way::None) => 0,
        };
        self.link.wait_alive(bells, until) != 0
    }

    fn publish(&mut self, io: &Io) {
        self.link.page().store_io(&TenantIo {
            tenant: self.number,
            wanted: io.wanted,
            completed: io.completed,
            errors: io.errors,
            corrupted: io.corrupted,
            lost: io.lost,
            duplicated: io.duplicated,
            longest_ns: io.longest_ns,
            finished: io.finished,
            device_changed: io.device_changed,
            device_lost: io.device_lost,
            memory: self.noticed,
        });
    }

    fn complain(&mut self, what: Complaint) {
        let what = match what {
            Complaint::Failed => 4,
            Complaint::Wrong => 5,
            Complaint::Device => 10,
        };
        self.link.call(Call::Complain { what });
    }

    fn finished(&mut self) {
        self.link.call(Call::Finished);
    }

    fn next(&mut self) -> (u64, u32) {
        let [seed, requests] = self.link.call(Call::Next).values;
        // Of the trial after the one in which it looked, nothing was noticed yet.
        self.noticed = None;
        let requests = u32::try_from(requests).unwrap_or(0);
        (seed, self.way.wanted(requests))
    }

    fn sibling_read(&mut self, offset: u32) -> u32 {
        let read = self.link.call(Call::SiblingRead { offset });
        u32::try_from(read.values[0]).unwrap_or(u32::MAX)
    }

    fn sibling_write(&mut self, offset: u32, value: u32) {
        self.link.call(Call::SiblingWrite { offset, value });
    }

    fn give_back(&mut self, phys: u64) -> bool {
        let given = self.link.call(Call::GiveBack { phys }).ok;
        if given && self.link.window().give_up(phys).is_ok() {
            self.link.call(Call::GivenBack);
        }
        given
    }

    fn look(&mut self, nth: u32, during: bool) -> bool {
        match &mut self.looks {
            Some((bystander, at)) if *at == nth => {
                bystander.read(during);
                self.link.beat();
                true
            }
            _ => false,
        }
    }

    fn answered(&mut self, nth: u32) {
        if let Some((bystander, _)) = self.looks.take_if(|(_, at)| *at == nth) {
            self.noticed = Some(bystander.noticed());
        }
    }
}
