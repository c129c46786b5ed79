//! The domain that holds the driver: probes it, serves the tenants' rings with it, and brings it
//! back when it fails.

use crate::call::{COMPLAINTS, Call};
use crate::host::PortHost;
use crate::link::Link;
use crate::placement::{Placement, Role};
use crate::ring::{Ask, DATA, Request, Ring, Status};
use crate::sabotage::{Onward, Sabotage, SabotagedHost};
use crate::trial::{DriverId, Oops, TrialSpec};
use cofferdam_seam::service::{Block, Compute, DriverError};
use cofferdam_seam::{Deadline, Time};
use driver_edu::Edu;
use driver_virtio::VirtioBlk;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

/// How long the driver may take over one request. Below the supervisor's watchdog, so that a
/// driver that can give up does so before it is killed.
const REQUEST: Duration = Duration::from_millis(30);
/// How often a request is tried on a restarted driver before it is answered with an error.
const TRIES: u32 = 3;
/// How often in a row the driver may fail to start before the device is given up, and the time
/// between two attempts: a link that is away for a moment comes back.
const STARTS: u32 = 4;
const START_PAUSE: Duration = Duration::from_millis(50);

type Host = SabotagedHost<PortHost>;

/// A driver behind the service of its class.
trait Serves {
    fn serve(&mut self, ask: Ask, data: &mut Vec<u8>, until: Deadline) -> Result<(), DriverError>;
}

impl Serves for VirtioBlk<Host> {
    fn serve(&mut self, ask: Ask, data: &mut Vec<u8>, until: Deadline) -> Result<(), DriverError> {
        match ask {
            Ask::Nop => Ok(()),
            Ask::Read { sector } => self.read(sector, data, until),
            Ask::Write { sector } => self.write(sector, data, until),
            Ask::Factorial { .. } | Ask::RoundTrip => {
                Err(DriverError::BadRequest("a block device does not compute"))
            }
        }
    }
}

impl Serves for Edu<Host> {
    fn serve(&mut self, ask: Ask, data: &mut Vec<u8>, until: Deadline) -> Result<(), DriverError> {
        match ask {
            Ask::Nop => Ok(()),
            Ask::Factorial { n } => {
                let n =
                    u32::try_from(n).map_err(|_| DriverError::BadRequest("n is beyond 32 bits"))?;
                *data = self.factorial(n, until)?.to_le_bytes().to_vec();
                Ok(())
            }
            Ask::RoundTrip => {
                let out = std::mem::take(data);
                let mut back = vec![0; out.len()];
                self.round_trip(&out, &mut back, until)?;
                *data = back;
                Ok(())
            }
            Ask::Read { .. } | Ask::Write { .. } => {
                Err(DriverError::BadRequest("edu has no sectors"))
            }
        }
    }
}

/// A tenant's ring, its doorbell bit, and how often its oldest request was tried.
struct Client {
    ring: Ring,
    bit: u64,
    tries: u32,
}

/// The server of one domain.
pub struct Server {
    link: Rc<Link>,
    spec: TrialSpec,
    privileged: bool,
    clients: Vec<Client>,
    sabotage: Rc<Sabotage>,
}

impl Server {
    /// The server of domain `me`; `generation` counts the domain's restarts.
    pub fn new(
        link: Rc<Link>,
        spec: &TrialSpec,
        placement: &Placement,
        me: usize,
        generation: u32,
    ) -> Self {
        let clients = placement
            .domains
            .iter()
            .enumerate()
            .filter_map(|(index, domain)| match domain.role {
                Role::Tenant(tenant) => Some(Client {
                    ring: Ring::of(link.window(), tenant),
                    bit: Link::bit(index),
                    tries: 0,
                }),
                Role::Serves | Role::Idles => None,
            })
            .collect();
        let sabotage = Sabotage::new(spec, Rc::clone(&link), generation == 0);
        let privileged = placement.domains[me].privileged;
        Self {
            link,
            spec: spec.clone(),
            privileged,
            clients,
            sabotage,
        }
    }

    /// Serves for ever: the hardware ends the domain with the trial.
    pub fn run(mut self) {
        loop {
            // A privileged layer that merely kills the task which oopsed goes on without a driver.
            let contained = self.privileged && self.spec.oops == Oops::KillTask;
            let drove = if contained {
                catch_unwind(AssertUnwindSafe(|| self.drive())).unwrap_or_else(|_| {
                    self.complain(6);
                    Drove::GaveUp
                })
            } else {
                self.drive()
            };
            match drove {
                Drove::Failed => {
                    // What a driver does about a device that no longer answers: reset, start over.
                    self.reset();
                }
                Drove::GaveUp => self.refuse(),
            }
        }
    }

    /// One incarnation of the driver.
    fn drive(&mut self) -> Drove {
        for _ in 0..STARTS {
            let host = SabotagedHost::new(
                PortHost::new(Rc::clone(&self.link)),
                Rc::clone(&self.sabotage),
            );
            let served = match self.spec.driver {
                DriverId::Edu => Edu::probe(host).map(|mut driver| self.serve_with(&mut driver)),
                DriverId::VirtioBlk => {
                    VirtioBlk::probe(host).map(|mut driver| self.serve_with(&mut driver))
                }
            };
            if served.is_ok() {
                return Drove::Failed;
            }
            self.complain(3);
            self.link.pause(START_PAUSE);
            self.reset();
        }
        Drove::GaveUp
    }

    /// Resets the device, and waits for that as long as the standard says.
    fn reset(&self) {
        if !self.link.call(Call::Reset).ok {
            self.complain(9);
        }
    }

    /// Serves until the driver fails.
    fn serve_with(&mut self, driver: &mut dyn Serves) {
        self.link.call(Call::Serving);
        loop {
            for index in 0..self.clients.len() {
                while let Some(request) = self.clients[index].ring.next() {
                    if self.sabotage.before_request() == Onward::GiveUp {
                        return;
                    }
                    if let Err(error) = self.handle(index, &request, driver) {
                        self.complain(match error {
                            DriverError::TimedOut(_) => 0,
                            _ => 1,
                        });
                        return;
                    }
                    self.link.beat();
                }
            }
            self.sleep();
        }
    }

    /// One request. An error is the driver's end.
    fn handle(
        &mut self,
        index: usize,
        request: &Request,
        driver: &mut dyn Serves,
    ) -> Result<(), DriverError> {
        let client = &mut self.clients[index];
        let mut data = client.ring.data(request);
        let result = match request.ask {
            Some(ask) => driver.serve(ask, &mut data, self.link.deadline(REQUEST)),
            None => Err(DriverError::BadRequest("unknown operation")),
        };
        let failed = match result {
            Ok(()) => None,
            Err(error) if error.is_request_only() => {
                self.link.call(Call::Complain { what: 2 });
                Some(error)
            }
            Err(error) => {
                client.tries += 1;
                if client.tries < TRIES {
                    return Err(error);
                }
                Some(error)
            }
        };
        client.tries = 0;
        let status = if failed.is_none() {
            Status::Good
        } else {
            Status::Failed
        };
        data.truncate(DATA);
        client
            .ring
            .complete(request, status, if failed.is_none() { &data } else { &[] });
        self.link.ring(client.bit);
        match failed {
            Some(error) if !error.is_request_only() => Err(error),
            _ => Ok(()),
        }
    }

    /// Answers everything with an error: there is no driver any more.
    fn refuse(&mut self) {
        loop {
            for client in &self.clients {
                while let Some(request) = client.ring.next() {
                    client.ring.complete(&request, Status::Failed, &[]);
                    self.link.ring(client.bit);
                }
            }
            self.sleep();
        }
    }

    fn sleep(&self) {
        let bells = self
            .clients
            .iter()
            .fold(0, |bits, client| bits | client.bit);
        self.link.wait_alive(bells, Deadline(Time::NEVER));
    }

    fn complain(&self, what: usize) {
        debug_assert!(what < COMPLAINTS.len());
        self.link.call(Call::Complain { what: what as u64 });
    }
}

/// How an incarnation of the driver ended.
enum Drove {
    /// It failed and may be started again.
    Failed,
    /// It cannot be started any more.
    GaveUp,
}
