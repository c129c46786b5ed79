//! Who may use the conventional bus: one transaction at a time, for CPUs and functions alike.
//!
//! An honest transaction takes no device time here, so the arbiter only has to know of those that do
//! not end. PCI has no way to take the bus back from such a master or target but RST#.

use cofferdam_seam::Time;

/// A user of the bus; none is a CPU.
pub(crate) type User = Option<usize>;

/// Somebody keeps the whole bus.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The function that may go on using it.
    by: User,
    until: Time,
}

/// LOCK# is asserted.
#[derive(Clone, Copy, Debug)]
struct Locked {
    by: usize,
    /// The function that answers its owner only; none: nobody but the owner uses the bus.
    target: Option<usize>,
    until: Time,
}

/// The arbiter.
#[derive(Debug, Default)]
pub(crate) struct Arbiter {
    held: Option<Held>,
    locked: Option<Locked>,
}

impl Arbiter {
    /// The bus stays with one user; the later end of two counts.
    pub(crate) fn hold(&mut self, by: User, until: Time) {
        if self.held.is_none_or(|held| held.until <= until) {
            self.held = Some(Held { by, until });
        }
    }

    /// LOCK# is asserted; whether it was free.
    pub(crate) fn lock(
        &mut self,
        by: usize,
        target: Option<usize>,
        until: Time,
        now: Time,
    ) -> bool {
        let free = self.locked.is_none_or(|locked| locked.until <= now);
        if free {
            self.locked = Some(Locked { by, target, until });
        }
        free
    }

    /// Until when a transaction of that user with that target (none: memory) has to wait.
    pub(crate) fn keeps_out(&self, user: User, target: Option<usize>, now: Time) -> Option<Time> {
        let held = self
            .held
            .filter(|held| held.by.is_none() || held.by != user)
            .map(|held| held.until);
        let locked = self
            .locked
            .filter(|locked| Some(locked.by) != user)
            .filter(|locked| locked.target.is_none() || locked.target == target)
            .map(|locked| locked.until);
        held.max(locked).filter(|&until| until > now)
    }

    /// RST#: everybody lets go.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    /// Whether everybody may use the bus.
    pub(crate) fn is_free(&self, now: Time) -> bool {
        self.held.is_none_or(|held| held.until <= now)
            && self.locked.is_none_or(|locked| locked.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_that_is_kept_keeps_out_everybody_else() {
        let mut arbiter = Arbiter::default();
        arbiter.hold(Some(0), Time(10));
        assert_eq!(arbiter.keeps_out(None, Some(0), Time(5)), Some(Time(10)));
        assert_eq!(arbiter.keeps_out(Some(1), None, Time(5)), Some(Time(10)));
        assert_eq!(arbiter.keeps_out(Some(0), None, Time(5)), None);
        assert_eq!(arbiter.keeps_out(None, Some(0), Time(10)), None);
    }

    #[test]
    fn locked_target_answers_its_owner_only() {
        let mut arbiter = Arbiter::default();
        assert!(arbiter.lock(0, Some(1), Time(10), Time(0)));
        assert_eq!(arbiter.keeps_out(None, Some(1), Time(5)), Some(Time(10)));
        assert_eq!(arbiter.keeps_out(None, Some(0), Time(5)), None);
        assert_eq!(arbiter.keeps_out(Some(0), Some(1), Time(5)), None);
    }

    #[test]
    fn locked_bus_is_its_owners_alone_until_reset() {
        let mut arbiter = Arbiter::default();
        assert!(arbiter.lock(0, None, Time::NEVER, Time(0)));
        assert!(!arbiter.lock(1, None, Time(7), Time(1)));
        assert_eq!(arbiter.keeps_out(None, Some(1), Time(5)), Some(Time::NEVER));
        assert!(!arbiter.is_free(Time(5)));
        arbiter.release();
        assert!(arbiter.is_free(Time(5)));
    }

    #[test]
    fn transaction_that_never_ends_keeps_out_its_target_too() {
        let mut arbiter = Arbiter::default();
        arbiter.hold(None, Time::NEVER);
        assert!(arbiter.keeps_out(Some(0), None, Time(1)).is_some());
        assert!(arbiter.keeps_out(None, None, Time(1)).is_some());
    }
}
