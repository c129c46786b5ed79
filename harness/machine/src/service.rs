//! What an interrupt costs the CPU that takes it, and what Linux does about a line that nobody
//! serves.
//!
//! A local APIC holds one message of a vector in service and one more in request; what comes beyond
//! coalesces (Intel SDM 3A, 11.8.4). So a storm can saturate a CPU and no more. A pin is a level: it
//! interrupts again when its handler returns, while it is up and not masked.
//!
//! Each function's interrupts are taken by one CPU: which that is, is for the machine's user to
//! know. A driver's handler is known by what the driver does: an interrupt is handled, but for one
//! that finds the last one still lying there. A pin that comes while the driver is at work is left to
//! its thread (`IRQF_ONESHOT`); one that comes while it rests is denied.

use crate::config::InterruptHandler;
use cofferdam_seam::{Time, Vector, VectorSet};
use std::time::Duration;

/// Interrupts after which Linux looks how many of them were handled (kernel/irq/spurious.c).
pub const CHECKED: u32 = 100_000;
/// If more of them were not, it disables the line.
pub const UNHANDLED: u32 = 99_900;
/// Unhandled interrupts further apart than this do not add up (HZ/10).
const FORGIVEN: Duration = Duration::from_millis(100);
/// How often it polls a disabled line (`POLL_SPURIOUS_IRQ_INTERVAL`). Only lines that may be shared
/// are polled (`try_one_irq` asks for `IRQF_SHARED`): pins, not messages.
const POLL: Duration = Duration::from_millis(100);

/// Linux's account of one interrupt.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    count: u32,
    unhandled: u32,
    last_unhandled: Time,
}

impl Account {
    /// Enters an interrupt. Whether the line is to be disabled.
    fn enter(&mut self, handled: bool, now: Time) -> bool {
        if !handled {
            let stale = now.since(self.last_unhandled) > FORGIVEN;
            self.unhandled = if stale { 1 } else { self.unhandled + 1 };
            self.last_unhandled = now;
        }
        self.count += 1;
        if self.count < CHECKED {
            return false;
        }
        let stuck = self.unhandled > UNHANDLED;
        *self = Self::default();
        stuck
    }
}

/// What became of one function's interrupts, as its CPU sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptCost {
    /// Interrupts taken.
    pub taken: u64,
    /// Messages that fell together with one that waited already.
    pub coalesced: u64,
    /// Time the CPU spent in handlers.
    pub time: Duration,
    /// When the first line was disabled because nobody handled its interrupts.
    pub cut_off_at: Option<Time>,
}

/// The CPU's side of one function's interrupts.
#[derive(Debug, Default)]
pub(crate) struct Service {
    /// Until when a handler runs.
    until: Option<Time>,
    /// Accepted, and waiting for the handler before it.
    requested: VectorSet,
    /// Disabled by the kernel.
    cut_off: VectorSet,
    /// When a disabled pin is polled next.
    poll_at: Option<Time>,
    accounts: Vec<Account>,
    /// Level of the pin, if the function was given it.
    pin: bool,
    /// Nobody looks at the pin until the driver waits again.
    pin_masked: bool,
    /// The driver has nothing open: its handler denies whatever comes.
    resting: bool,
    pub(crate) cost: InterruptCost,
}

/// How the host serves interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) handler: InterruptHandler,
    pub(crate) time: Duration,
}

impl Service {
    /// The function was given `count` new vectors, or none: lines that were cut off are given
    /// another chance (`__setup_irq`). A handler that runs goes on.
    pub(crate) fn restart(&mut self, count: u16) {
        *self = Self {
            until: self.until,
            cost: self.cost,
            accounts: vec![Account::default(); usize::from(count)],
            ..Self::default()
        };
    }

    /// A message for `vector` arrives; `raised` are the vectors that wait for the driver.
    pub(crate) fn message(
        &mut self,
        vector: Vector,
        raised: &mut VectorSet,
        rules: Rules,
        now: Time,
    ) {
        let one = VectorSet::of(vector);
        if self.cut_off.contains(vector) {
            return;
        }
        if self.until.is_none() {
            self.begin(vector, raised, rules, now);
        } else if self.requested.contains(vector) {
            self.cost.coalesced += 1;
        } else {
            self.requested.insert(one);
        }
    }

    /// The pin goes up or down.
    pub(crate) fn pin(&mut self, level: bool, raised: &mut VectorSet, rules: Rules, now: Time) {
        self.pin = level;
        if self.until.is_none() {
            self.look_at_pin(raised, rules, now);
        }
    }

    /// The driver waits for the pin: its last interrupt is dealt with, and the line open again.
    pub(crate) fn unmask_pin(&mut self, raised: &mut VectorSet, rules: Rules, now: Time) {
        self.pin_masked = false;
        if self.until.is_none() {
            self.look_at_pin(raised, rules, now);
        }
    }

    /// The driver has nothing more to do. Its own handler opens the line by that; VFIO's waits until
    /// it is asked to.
    pub(crate) fn rest(&mut self, raised: &mut VectorSet, rules: Rules, now: Time) {
        self.resting = true;
        if rules.handler == InterruptHandler::Driver {
            self.unmask_pin(raised, rules, now);
        }
    }

    /// The driver takes up work.
    pub(crate) fn rouse(&mut self) {
        self.resting = false;
    }

    /// The driver took the pin's interrupt. Until it waits again the line is masked: by VFIO, or
    /// because the handler is a thread (`IRQF_ONESHOT`).
    pub(crate) fn mask_pin(&mut self) {
        self.pin_masked = true;
    }

    /// Until when the CPU is in a handler.
    pub(crate) fn busy_until(&self) -> Option<Time> {
        self.until
    }

    /// When it has something to do by itself.
    pub(crate) fn next(&self) -> Option<Time> {
        self.until.into_iter().chain(self.poll_at).min()
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, raised: &mut VectorSet, rules: Rules, now: Time) {
        if self.poll_at.is_some_and(|at| at <= now) {
            self.poll_at = Some(now + POLL);
            // The handler is called whatever the line says.
            raised.insert(VectorSet::of(Vector(0)));
            self.spend(rules, now);
        }
        if self.until.is_none_or(|until| until > now) {
            return;
        }
        self.until = None;
        match self.requested.iter().next() {
            Some(vector) => {
                self.requested.take(VectorSet::of(vector));
                self.begin(vector, raised, rules, now);
            }
            // Without a cost no time would pass between two interrupts of one level.
            None if !rules.time.is_zero() => self.look_at_pin(raised, rules, now),
            None => {}
        }
    }

    fn look_at_pin(&mut self, raised: &mut VectorSet, rules: Rules, now: Time) {
        if self.pin && !self.pin_masked && !self.cut_off.contains(Vector(0)) {
            self.begin(Vector(0), raised, rules, now);
            // VFIO masks at every interrupt (`vfio_intx_handler`); a driver's handler claims one
            // that comes while the driver is at work, and leaves it to its thread.
            self.pin_masked = rules.handler == InterruptHandler::Vfio || !self.resting;
        }
    }

    fn begin(&mut self, vector: Vector, raised: &mut VectorSet, rules: Rules, now: Time) {
        // VFIO's handlers say of every interrupt that it was theirs.
        let handled = rules.handler == InterruptHandler::Vfio || !raised.contains(vector);
        raised.insert(VectorSet::of(vector));
        self.cost.taken += 1;
        self.spend(rules, now);
        let account = self.accounts.get_mut(usize::from(vector.0));
        if account.is_some_and(|account| account.enter(handled, now)) {
            self.cut_off.insert(VectorSet::of(vector));
            self.requested.take(VectorSet::of(vector));
            self.cost.cut_off_at.get_or_insert(now);
            if self.pin {
                self.poll_at = Some(now + POLL);
            }
        }
    }

    fn spend(&mut self, rules: Rules, now: Time) {
        if !rules.time.is_zero() {
            self.until = Some(self.until.unwrap_or(now).max(now) + rules.time);
            self.cost.time += rules.time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        handler: InterruptHandler::Driver,
        time: Duration::from_micros(1),
    };
    const VFIO: Rules = Rules {
        handler: InterruptHandler::Vfio,
        ..RULES
    };

    fn service() -> Service {
        let mut service = Service::default();
        service.restart(1);
        service
    }

    /// Lets the service run until `to`.
    fn run(service: &mut Service, raised: &mut VectorSet, rules: Rules, to: Time) {
        while let Some(at) = service.next().filter(|&at| at <= to) {
            service.advance(raised, rules, at);
        }
    }

    #[test]
    fn of_many_messages_one_is_served_one_pends_and_the_rest_coalesces() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);

        for _ in 0..10 {
            service.message(Vector(0), &mut raised, RULES, Time::ZERO);
        }
        run(&mut service, &mut raised, RULES, Time(10_000));

        let cost = service.cost;
        assert_eq!((cost.taken, cost.coalesced), (2, 8));
        assert_eq!(cost.time, Duration::from_micros(2));
        assert_eq!(service.busy_until(), None);
    }

    #[test]
    fn held_pin_interrupts_again_after_each_handler_until_linux_cuts_it_off() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);

        service.rest(&mut raised, RULES, Time::ZERO);
        service.pin(true, &mut raised, RULES, Time::ZERO);
        run(&mut service, &mut raised, RULES, Time(150_000_000));

        assert_eq!(service.cost.taken, u64::from(CHECKED));
        let cut_off = service.cost.cut_off_at.expect("cut off");
        assert_eq!(cut_off, Time(u64::from(CHECKED - 1) * 1000));
        assert_eq!(service.next(), Some(cut_off + POLL));
    }

    #[test]
    fn disabled_pin_is_polled_every_hundred_milliseconds() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);
        service.rest(&mut raised, RULES, Time::ZERO);
        service.pin(true, &mut raised, RULES, Time::ZERO);
        run(&mut service, &mut raised, RULES, Time(150_000_000));
        let spent = service.cost.time;
        raised = VectorSet::EMPTY;

        run(&mut service, &mut raised, RULES, Time(450_000_000));

        assert!(raised.contains(Vector(0)));
        assert_eq!(service.cost.time - spent, Duration::from_micros(3));
    }

    #[test]
    fn pin_that_the_driver_attends_to_waits_for_it() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);

        service.pin(true, &mut raised, RULES, Time::ZERO);
        run(&mut service, &mut raised, RULES, Time(10_000));
        let masked = service.cost.taken;
        service.unmask_pin(&mut raised, RULES, Time(10_000));

        assert_eq!((masked, service.cost.taken), (1, 2));
    }

    #[test]
    fn vfio_masks_a_held_pin_and_never_cuts_off() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);
        service.rest(&mut raised, VFIO, Time::ZERO);
        service.pin(true, &mut raised, VFIO, Time::ZERO);
        run(&mut service, &mut raised, VFIO, Time(500_000_000));
        assert_eq!(service.cost.taken, 1);

        let mut storm = self::service();
        for nth in 0..u64::from(CHECKED) + 5 {
            storm.message(Vector(0), &mut raised, VFIO, Time(nth * 1000));
            run(&mut storm, &mut raised, VFIO, Time((nth + 1) * 1000));
        }
        assert!(storm.cost.taken > CHECKED.into());
        assert_eq!(storm.cost.cut_off_at, None);
    }

    #[test]
    fn one_handled_in_a_thousand_keeps_a_line_alive() {
        let mut account = Account::default();
        let mut stuck = false;
        for nth in 0..CHECKED {
            stuck |= account.enter(nth % 900 == 0, Time(u64::from(nth) * 1000));
        }
        assert!(!stuck);
    }

    #[test]
    fn rare_unhandled_interrupts_do_not_add_up() {
        let mut account = Account::default();
        let mut stuck = false;
        for nth in 0..u64::from(CHECKED) {
            stuck |= account.enter(false, Time(nth * 101_000_000));
        }
        assert!(!stuck);
    }

    #[test]
    fn new_vectors_give_a_disabled_line_another_chance() {
        let (mut service, mut raised) = (service(), VectorSet::EMPTY);
        service.rest(&mut raised, RULES, Time::ZERO);
        service.pin(true, &mut raised, RULES, Time::ZERO);
        run(&mut service, &mut raised, RULES, Time(150_000_000));

        service.restart(1);
        service.pin(true, &mut raised, RULES, Time(150_000_000));

        assert_eq!(service.cost.taken, u64::from(CHECKED) + 1);
    }
}
