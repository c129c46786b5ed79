//! A domain between the tenants and the server: it copies requests from their rings into those the
//! server serves, and the answers back.
//!
//! Neither side maps the other's ring; this domain maps both, copies each byte once, and believes
//! what it has read once. It keeps one request of a tenant open at a time: a message is synchronous.
//! A kernel looks into no message. A VMM emulates a device: what its disk does not have, or its
//! device does not do, it refuses itself.

use crate::link::Link;
use crate::placement::{Placement, RingAt, Role};
use crate::ring::{self, Ask, Request, Ring, Status};
use crate::tenant::{SECTORS, first_sector};
use crate::trial::DriverId;
use cofferdam_seam::service::SECTOR;
use cofferdam_seam::{Deadline, Time};
use std::rc::Rc;

/// What a VMM shows its tenant: a disk as large as the tenant's part of the real one, or a device
/// that computes.
#[derive(Clone, Copy, Debug)]
struct Emulated {
    class: DriverId,
    tenant: u8,
}

impl Emulated {
    /// Whether the emulated device does what is asked.
    fn does(self, request: &Request) -> bool {
        let first = first_sector(self.tenant);
        let on_disk = |sector: u64, bytes: usize| {
            let sectors = (bytes / SECTOR) as u64;
            let end = sector.saturating_add(sectors);
            sectors > 0 && bytes.is_multiple_of(SECTOR) && sector >= first && end <= first + SECTORS
        };
        match (request.ask(), self.class) {
            (None, _) => false,
            (Some(Ask::Nop), _) => true,
            (Some(Ask::Read { sector }), class) => {
                class.is_block() && on_disk(sector, request.room)
            }
            (Some(Ask::Write { sector }), class) => {
                class.is_block() && on_disk(sector, request.len)
            }
            (Some(Ask::Factorial { .. } | Ask::RoundTrip), class) => !class.is_block(),
        }
    }
}

/// One tenant's way to the server.
struct Leg {
    /// Shared with the tenant.
    up: Ring,
    /// Shared with the server.
    down: Ring,
    /// The tenant's doorbell bit.
    tenant: u64,
    /// The request that waits for the server's answer.
    open: Option<Request>,
    /// Requests passed on before it.
    passed: u32,
    emulated: Option<Emulated>,
}

impl Leg {
    /// Does the next thing there is to do, if any.
    fn step(&mut self, link: &Link, server: u64) -> bool {
        if let Some(request) = self.open {
            let Some(bytes) = self.up.give_back(&request, &self.down, self.passed) else {
                return false;
            };
            link.copied(bytes);
            self.open = None;
            self.passed = self.passed.wrapping_add(1);
            link.ring(self.tenant);
            return true;
        }
        let Some(request) = self.up.next() else {
            return false;
        };
        if self.emulated.is_some_and(|device| !device.does(&request)) {
            self.up.complete(&request, Status::Failed, &[]);
            link.ring(self.tenant);
            return true;
        }
        link.copied(self.up.forward(&request, &self.down, self.passed));
        self.open = Some(request);
        link.ring(server);
        true
    }
}

/// Carries requests until the trial ends.
pub fn run(link: &Rc<Link>, placement: &Placement, me: usize, driver: DriverId) -> ! {
    let role = placement.domains[me].role;
    let server = Link::bit(placement.server());
    let mut legs: Vec<Leg> = placement
        .tenants()
        .filter(|(tenant, _)| role.stands_before(*tenant))
        .map(|(tenant, index)| Leg {
            up: ring::of(link.window(), RingAt::Tenant(tenant)),
            down: ring::of(link.window(), RingAt::Messages(tenant)),
            tenant: Link::bit(index),
            open: None,
            passed: 0,
            emulated: match role {
                Role::Emulates(_) => Some(Emulated {
                    class: driver,
                    tenant,
                }),
                _ => None,
            },
        })
        .collect();
    let bells = legs.iter().fold(server, |bits, leg| bits | leg.tenant);
    loop {
        for leg in &mut legs {
            while leg.step(link, server) {
                link.beat();
            }
        }
        link.wait_alive(bells, Deadline(Time::NEVER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_tenant::ring::{BYTES, Header, Shared};
    use std::cell::Cell;

    /// A ring that nobody else sees.
    #[derive(Clone, Copy)]
    struct Private<'a> {
        header: &'a Header,
        data: &'a [Cell<u8>],
    }

    impl Shared for Private<'_> {
        fn header(&self) -> &Header {
            self.header
        }

        fn byte(&self, at: usize) -> u8 {
            self.data[at].get()
        }

        fn set_byte(&self, at: usize, value: u8) {
            self.data[at].set(value);
        }
    }

    /// A request as a server takes it from a ring.
    fn request(ask: Ask, len: usize, room: usize) -> Request {
        let (header, data) = (Header::default(), vec![Cell::new(0); BYTES]);
        let memory = Private {
            header: &header,
            data: &data,
        };
        let ring = cofferdam_tenant::Ring::new(memory, 0);
        ring.submit(0, 0, ask, &vec![0; len], room);
        ring.next().expect("it was submitted")
    }

    fn disk(ask: Ask, len: usize, room: usize) -> bool {
        let emulated = Emulated {
            class: DriverId::VirtioBlk,
            tenant: 2,
        };
        emulated.does(&request(ask, len, room))
    }

    #[test]
    fn emulated_disk_is_the_tenants_part_and_no_more() {
        let (first, last) = (first_sector(2), first_sector(2) + SECTORS - 1);

        for sector in [first, last] {
            assert!(disk(Ask::Read { sector }, 0, SECTOR));
            assert!(disk(Ask::Write { sector }, SECTOR, 0));
        }
        for sector in [0, first - 1, last + 1, u64::MAX] {
            assert!(!disk(Ask::Read { sector }, 0, SECTOR));
            assert!(!disk(Ask::Write { sector }, SECTOR, 0));
        }
        assert!(!disk(Ask::Read { sector: last }, 0, 2 * SECTOR));
        assert!(!disk(Ask::Read { sector: first }, 0, SECTOR - 1));
        assert!(!disk(Ask::Write { sector: first }, 0, SECTOR));
    }

    #[test]
    fn emulated_device_does_what_its_class_does() {
        assert!(disk(Ask::Nop, 0, 0));
        assert!(!disk(Ask::RoundTrip, 8, 8));
        let computes = Emulated {
            class: DriverId::Edu,
            tenant: 1,
        };
        assert!(computes.does(&request(Ask::Factorial { n: 3 }, 0, 4)));
        assert!(!computes.does(&request(Ask::Read { sector: 0 }, 0, SECTOR)));
    }
}
