//! The balloon: a page that a tenant gives back goes to a tenant that is started for it.
//!
//! The tenant unmaps the page itself, as the balloon driver of a guest does. Nothing here asks whether
//! the driver's device was given its address once: that is what invalidations are for. The driver's
//! domain keeps its mapping of the lender's whole ring.

use super::unit::{State, Unit};
use super::{Hardware, Infrastructure, ToZygote};
use crate::newcomer;
use crate::placement::{RingAt, Role};
use crate::port::PAGE;
use crate::ring;
use crate::trial::{Balloon, Corruption, Fault};
use cofferdam_machine::PhysAddr;
use cofferdam_machine::frames::{FRAME, MEMORY, Owner, Use, owner_at, run_at};
use cofferdam_seam::Iova;

impl Hardware {
    /// Index of the process that gets the page, once there is one.
    pub(super) const fn newcomer(&self) -> usize {
        self.supervisor() + 1
    }

    /// A data page of a tenant was mapped for the device.
    pub(super) fn remember_lent(&mut self, phys: u64, iova: Iova) {
        if run_at(phys).is_some_and(|run| run.purpose == Use::Ring) {
            // The page that has the address's place on it, wherever that is.
            self.lent.insert(phys / FRAME, iova.0 - phys % FRAME);
        }
    }

    /// Whether that domain may give that page back: a tenant a data page of its own ring, in a trial
    /// with a balloon, once.
    fn may_give_back(&self, index: usize, phys: u64) -> Option<u8> {
        let domain = self.placement.domains.get(index)?;
        let Role::Tenant(tenant) = domain.role else {
            return None;
        };
        let fits = matches!(self.spec.fault, Fault::D14 { .. })
            && self.balloon.is_none()
            && phys.is_multiple_of(FRAME)
            && phys < MEMORY
            && phys > ring::ring_start(RingAt::Tenant(tenant))
            && run_at(phys).is_some_and(|run| run.purpose == Use::Ring)
            && domain.may_touch(phys, FRAME);
        fits.then_some(tenant)
    }

    /// A tenant is about to unmap a page. Says whether it may.
    pub(super) fn give_back(&mut self, index: usize, phys: u64) -> Result<bool, Infrastructure> {
        let Some(from) = self.may_give_back(index, phys) else {
            return Ok(false);
        };
        let resident_before = self.weigh(index)?;
        self.balloon = Some(Balloon {
            from,
            page: phys,
            given_at_ns: self.now().nanos(),
            filled_at_ns: None,
            resident_before,
            resident_after: None,
        });
        Ok(true)
    }

    /// It did: the page is wiped and somebody else's. Says whether there is such a page.
    pub(super) fn given_back(&mut self, index: usize) -> Result<bool, Infrastructure> {
        let Some(balloon) = self.balloon else {
            return Ok(false);
        };
        let (Some(port), true) = (
            self.spare_port.take(),
            self.placement.tenant(balloon.from) == Some(index),
        ) else {
            return Ok(false);
        };
        let resident_after = self.weigh(index)?;
        self.balloon = Some(Balloon {
            resident_after,
            ..balloon
        });
        let blank = [0; PAGE];
        let wiped = self.machine.memory().write(PhysAddr(balloon.page), &blank);
        wiped.map_err(std::io::Error::other)?;
        let newcomer = self.newcomer();
        let unit = Unit::new(newcomer::NAME, Some(newcomer::CPU), port);
        self.units.push(unit);
        self.zygote.send(&ToZygote::SpawnNewcomer {
            index: newcomer,
            page: balloon.page,
        })?;
        self.await_hello(newcomer)?;
        Ok(true)
    }

    /// The newcomer has filled its page: from now on a device that remembers its address does harm.
    pub(super) fn filled(&mut self) {
        let now = self.now();
        let Some(balloon) = &mut self.balloon else {
            return;
        };
        balloon.filled_at_ns = Some(now.nanos());
        let named = self.lent.get(&(balloon.page / FRAME));
        if let (Some(tally), Some(&iova)) = (&self.tally, named) {
            tally.recall(Iova(iova), now);
        }
    }

    /// Whose a byte is now.
    pub(super) fn owner_now(&self, at: PhysAddr) -> Option<Owner> {
        let theirs = self.balloon.filter(|balloon| {
            balloon.filled_at_ns.is_some() && balloon.page == at.0 / FRAME * FRAME
        });
        theirs.map_or_else(|| owner_at(at.0), |_| Some(Owner::Newcomer))
    }

    /// What somebody else changed of the page that changed hands.
    pub(super) fn newcomers_loss(&self) -> Option<Corruption> {
        let balloon = self
            .balloon
            .filter(|balloon| balloon.filled_at_ns.is_some())?;
        let (memory, owner) = (self.machine.memory(), Owner::Newcomer);
        let bytes = memory.differs(PhysAddr(balloon.page), owner).ok()?;
        (bytes > 0).then_some(Corruption { owner, bytes })
    }

    /// Bytes of the machine's memory that a domain has resident, as its host's kernel counts them.
    fn weigh(&mut self, index: usize) -> Result<Option<u64>, Infrastructure> {
        self.units[index].weighed = None;
        self.zygote.send(&ToZygote::Weigh(index))?;
        self.until(index, |unit| {
            unit.weighed.is_some() || matches!(unit.state, State::Dead | State::Halted)
        })?;
        Ok(self.units[index].weighed.flatten())
    }
}
