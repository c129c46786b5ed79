//! The domain that holds the driver: probes it, serves the tenants' rings with it, and brings it
//! back when it fails.

use crate::boundary::{Boundary, Crashed};
use crate::call::{COMPLAINTS, Call};
use crate::guest::{self, Guest, InGuest};
use crate::host::PortHost;
use crate::link::Link;
use crate::loan::{Lent, Loan};
use crate::lodger::Lodger;
use crate::own::{Host, Probe};
use crate::placement::Placement;
use crate::ring::{self, Ask, Request, Ring, Status};
use crate::sabotage::{Deed, Onward, Sabotage, SabotagedHost};
use crate::trial::{DataPath, DriverId, Fault, TrialSpec};
use cofferdam_backends::pool::DmaPool;
use cofferdam_seam::service::{Block, Compute, DriverError};
use cofferdam_seam::{Deadline, Time};
use driver_edu::Edu;
use driver_nvme::Nvme;
use driver_nvme_crate::NvmeCrate;
use driver_virtio::VirtioBlk;
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

/// A driver behind the service of its class. `data` comes with the request's data and leaves with
/// the answer's, which may be `room` bytes long.
pub trait Serves {
    fn serve(
        &mut self,
        ask: Ask,
        data: &mut Vec<u8>,
        room: usize,
        until: Deadline,
    ) -> Result<(), DriverError>;

    /// Lets the driver's CPU go wrong, where the driver runs.
    fn commit(&mut self, deed: &Deed, link: &Link) {
        deed.commit(link);
    }
}

/// A driver of a block device.
struct Disk<B: Block + ?Sized>(Box<B>);

impl<B: Block> Disk<B> {
    fn of(driver: B) -> Self {
        Self(Box::new(driver))
    }
}

impl<B: Block + ?Sized> Serves for Disk<B> {
    fn serve(
        &mut self,
        ask: Ask,
        data: &mut Vec<u8>,
        room: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        store(&mut *self.0, ask, data, room, until)
    }
}

/// A request to a disk.
pub fn store<B: Block + ?Sized>(
    disk: &mut B,
    ask: Ask,
    data: &mut Vec<u8>,
    room: usize,
    until: Deadline,
) -> Result<(), DriverError> {
    match ask {
        Ask::Nop => Ok(()),
        Ask::Read { sector } => {
            data.clear();
            data.resize(room, 0);
            disk.read(sector, data, until)
        }
        Ask::Write { sector } => disk.write(sector, data, until),
        Ask::Factorial { .. } | Ask::RoundTrip => {
            Err(DriverError::BadRequest("a block device does not compute"))
        }
    }
}

/// A driver of a device that computes.
struct Computer<C: Compute + ?Sized>(Box<C>);

impl<C: Compute> Computer<C> {
    fn of(driver: C) -> Self {
        Self(Box::new(driver))
    }
}

impl<C: Compute + ?Sized> Serves for Computer<C> {
    fn serve(
        &mut self,
        ask: Ask,
        data: &mut Vec<u8>,
        _: usize,
        until: Deadline,
    ) -> Result<(), DriverError> {
        compute(&mut *self.0, ask, data, until)
    }
}

/// A request to a device that computes.
pub fn compute<C: Compute + ?Sized>(
    computer: &mut C,
    ask: Ask,
    data: &mut Vec<u8>,
    until: Deadline,
) -> Result<(), DriverError> {
    match ask {
        Ask::Nop => Ok(()),
        Ask::Factorial { n } => {
            let n = u32::try_from(n).map_err(|_| DriverError::BadRequest("n is beyond 32 bits"))?;
            *data = computer.factorial(n, until)?.to_le_bytes().to_vec();
            Ok(())
        }
        Ask::RoundTrip => {
            let out = std::mem::take(data);
            let mut back = vec![0; out.len()];
            computer.round_trip(&out, &mut back, until)?;
            *data = back;
            Ok(())
        }
        Ask::Read { .. } | Ask::Write { .. } => Err(DriverError::BadRequest(
            "a device that computes has no sectors",
        )),
    }
}

/// A ring, whose requests it holds, the doorbell bit of who is at its other end, and how often its
/// oldest request was tried.
struct Client {
    ring: Ring,
    tenant: u8,
    bit: u64,
    tries: u32,
}

/// The server of one domain.
pub struct Server {
    link: Rc<Link>,
    spec: TrialSpec,
    boundary: Boundary,
    copies: bool,
    /// How many drivers there were before the next one, in this process and its predecessors.
    incarnation: u32,
    clients: Vec<Client>,
    sabotage: Rc<Sabotage>,
    loan: Rc<Loan>,
    /// Where the driver runs, if not in this process.
    guest: Option<Rc<Guest>>,
    /// The tenant whose driver this is, where it is in the same domain.
    lodger: Option<Lodger>,
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
            .served_rings()
            .map(|(ring, index)| Client {
                ring: ring::of(link.window(), ring),
                tenant: ring.tenant(),
                bit: Link::bit(index),
                tries: 0,
            })
            .collect();
        let tenants = u32::try_from(placement.served_rings().count()).unwrap_or(0);
        let sabotage = Sabotage::new(spec, Rc::clone(&link), generation, tenants);
        Self {
            link,
            spec: spec.clone(),
            boundary: Boundary::of(spec, placement, me),
            copies: placement.copies,
            incarnation: generation,
            clients,
            sabotage,
            loan: Rc::default(),
            guest: None,
            lodger: None,
        }
    }

    /// The same with the driver in that guest, if there is one.
    #[must_use]
    pub fn with_guest(mut self, guest: Option<Guest>) -> Self {
        self.guest = guest.map(Rc::new);
        self
    }

    /// The same with that tenant in this domain, if one is: nobody has to be rung for, then.
    #[must_use]
    pub fn with_lodger(mut self, lodger: Option<Lodger>) -> Self {
        self.lodger = lodger;
        self
    }

    /// Serves for ever: the hardware ends the domain with the trial.
    pub fn run(mut self) {
        loop {
            match (self.drive(), self.boundary) {
                (Drove::Failed, _) => {
                    // What a driver does about a device that no longer answers: reset, start over.
                    self.reset();
                }
                (Drove::Crashed, Boundary::Unwinds(after)) => {
                    self.contained();
                    self.sabotage.outlived();
                    self.reset();
                    self.link.pause(after);
                }
                (Drove::Crashed, Boundary::KillsTask | Boundary::None) => {
                    self.contained();
                    self.refuse();
                }
                (Drove::GaveUp, _) => self.refuse(),
            }
        }
    }

    /// The driver panicked and the layer around it lives.
    fn contained(&self) {
        self.complain(6);
        // The panic's message is not this domain's last word.
        self.link.page().leave_text("");
    }

    /// The DMA memory of the next incarnation: all there is, or, if pages of the last are in
    /// quarantine, the half it did not use.
    fn pool(&mut self) -> DmaPool {
        let odd = self.incarnation % 2 == 1;
        self.incarnation = self.incarnation.wrapping_add(1);
        match self.spec.fault {
            Fault::D12 {
                quarantine: true, ..
            } => DmaPool::half_of_driver(odd),
            _ => DmaPool::of_driver(),
        }
    }

    fn host(&self, pool: DmaPool) -> PortHost {
        let (link, loan) = (Rc::clone(&self.link), Rc::clone(&self.loan));
        PortHost::new(link, pool, loan, self.spec.packing)
    }

    /// Lends the page of a request that moves data, if that is the trial's way; whether it did.
    fn lend(&self, ring: &Ring, request: &Request) -> bool {
        let (reads, fills) = match (self.spec.data, request.ask()) {
            (DataPath::Copy, _) | (_, None | Some(Ask::Nop | Ask::Factorial { .. })) => {
                return false;
            }
            (DataPath::ZeroCopy, Some(Ask::Read { .. })) => (0, request.room),
            (DataPath::ZeroCopy, Some(Ask::Write { .. })) => (request.len, 0),
            (DataPath::ZeroCopy, Some(Ask::RoundTrip)) => (request.len, request.room),
        };
        self.loan.begin(Lent {
            phys: ring.page_of(request),
            reads,
            fills,
        });
        true
    }

    /// One incarnation of the driver.
    fn drive(&mut self) -> Drove {
        for _ in 0..STARTS {
            let drove = match self.spec.driver {
                _ if self.guest.is_some() => self.incarnate_in_guest(),
                DriverId::Edu => self.incarnate(|host| Edu::probe(host).map(Computer::of)),
                DriverId::VirtioBlk => self.incarnate(|host| VirtioBlk::probe(host).map(Disk::of)),
                DriverId::Nvme => self.incarnate(|host| Nvme::probe(host).map(Disk::of)),
                DriverId::NvmeCrate => self.incarnate(|host| NvmeCrate::probe(host).map(Disk::of)),
                DriverId::Own(own) => match own.get().probe {
                    Probe::Block(probe) => self.incarnate(|host| probe(host).map(Disk)),
                    Probe::Compute(probe) => self.incarnate(|host| probe(host).map(Computer)),
                },
            };
            if let Some(drove) = drove {
                return drove;
            }
            self.complain(3);
            self.link.pause(START_PAUSE);
            self.reset();
        }
        Drove::GaveUp
    }

    fn incarnate_in_guest(&mut self) -> Option<Drove> {
        let guest = Rc::clone(self.guest.as_ref()?);
        let driver = guest::in_payload(self.spec.driver)?;
        let link = Rc::clone(&self.link);
        self.incarnate(|host| InGuest::probe(&guest, &link, host, driver))
    }

    /// Starts the driver and serves with it until it ends; `None` if it does not start.
    fn incarnate<D: Serves>(
        &mut self,
        probe: impl FnOnce(Host) -> Result<D, DriverError>,
    ) -> Option<Drove> {
        let pool = self.pool();
        let (boundary, port) = (self.boundary, self.host(pool));
        let host = SabotagedHost::new(port, Rc::clone(&self.sabotage));
        let mut driver = match boundary.enter(|| {
            self.sabotage.at_start(0);
            probe(host)
        }) {
            Ok(started) => started.ok()?,
            Err(Crashed) => return Some(Drove::Crashed),
        };
        let drove = self.serve_with(&mut driver);
        // Its drop is its code, too.
        let dropped = boundary.enter(|| drop(driver));
        Some(dropped.map_or(Drove::Crashed, |()| drove))
    }

    /// Resets the device, and waits for that as long as the standard says.
    fn reset(&self) {
        if !self.link.call(Call::Reset).ok {
            self.complain(9);
        }
    }

    /// Serves until the driver fails.
    fn serve_with(&mut self, driver: &mut dyn Serves) -> Drove {
        if self.boundary.enter(|| self.sabotage.at_start(1)).is_err() {
            return Drove::Crashed;
        }
        self.link.call(Call::Serving);
        loop {
            for index in 0..self.clients.len() {
                while let Some(request) = self.clients[index].ring.next() {
                    if let Some(drove) = self.handle(index, &request, driver) {
                        return drove;
                    }
                    self.link.beat();
                }
            }
            self.sleep();
        }
    }

    /// One request. Says so if it was the driver's end.
    fn handle(
        &mut self,
        index: usize,
        request: &Request,
        driver: &mut dyn Serves,
    ) -> Option<Drove> {
        let Client { ring, tenant, .. } = self.clients[index];
        let lent = self.lend(&ring, request);
        let mut data = if lent {
            vec![0; request.len]
        } else {
            let data = ring.data(request);
            self.copied(data.len());
            data
        };
        let served = match request.ask() {
            Some(ask) => self.boundary.enter(|| {
                match self.sabotage.before_request(tenant) {
                    Onward::GiveUp => return None,
                    Onward::Errs(deed) => driver.commit(&deed, &self.link),
                    Onward::Serve => {}
                }
                let until = self.link.deadline(REQUEST);
                Some(driver.serve(ask, &mut data, request.room, until))
            }),
            None => Ok(Some(Err(DriverError::BadRequest("unknown operation")))),
        };
        let moved = !lent || self.loan.end();
        let (good, end) = match served {
            Ok(None) => return Some(Drove::Failed),
            Ok(Some(Ok(()))) if !moved => {
                self.complain(11);
                (false, None)
            }
            Ok(Some(Ok(()))) => (true, None),
            Ok(Some(Err(error))) if error.is_request_only() => {
                self.complain(2);
                (false, None)
            }
            Ok(Some(Err(error))) => {
                self.complain(match error {
                    DriverError::TimedOut(_) => 0,
                    _ => 1,
                });
                (false, Some(Drove::Failed))
            }
            Err(Crashed) => (false, Some(Drove::Crashed)),
        };
        let client = &mut self.clients[index];
        if end.is_some() {
            client.tries += 1;
            if client.tries < TRIES {
                return end;
            }
        }
        client.tries = 0;
        let status = if good { Status::Good } else { Status::Failed };
        data.truncate(if good && !lent { request.room } else { 0 });
        self.copied(data.len());
        if let Some(byte) = self.sabotage.torn_answer() {
            let torn = self.boundary.enter(|| {
                ring.begin_answer(request, &data[..byte.min(data.len())]);
                panic!("planned death after {byte} bytes of an answer (X6)");
            });
            return torn.err().map(|Crashed| Drove::Crashed);
        }
        if lent {
            let brought = if good { request.room } else { 0 };
            ring.complete_in_place(request, status, brought);
        } else {
            ring.complete(request, status, &data);
        }
        self.notify(index);
        self.sabotage.answered();
        end
    }

    /// Answers everything with an error: there is no driver any more.
    fn refuse(&mut self) {
        loop {
            for index in 0..self.clients.len() {
                let ring = self.clients[index].ring;
                while let Some(request) = ring.next() {
                    ring.complete(&request, Status::Failed, &[]);
                    self.notify(index);
                }
            }
            self.sleep();
        }
    }

    /// Counts bytes of a request or an answer, where somebody copies them.
    fn copied(&self, bytes: usize) {
        if self.copies {
            self.link.copied(bytes);
        }
    }

    /// Tells the other end of a ring that there is an answer.
    fn notify(&self, index: usize) {
        if self.lodger.is_none() {
            self.link.ring(self.clients[index].bit);
        }
    }

    /// Until there may be another request.
    fn sleep(&mut self) {
        if let Some(lodger) = &mut self.lodger {
            lodger.go_on();
            return;
        }
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
    /// It panicked, and a boundary held.
    Crashed,
    /// It cannot be started any more.
    GaveUp,
}
