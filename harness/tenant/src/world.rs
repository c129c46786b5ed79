//! What a tenant may ask of whatever is around it.

use crate::io::Io;
use cofferdam_seam::{Deadline, Time};
use core::time::Duration;

/// What a wait is for, beside its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bell {
    /// Nothing.
    None,
    /// Its server's: an answer.
    Server,
    /// That of the next trial of its boot.
    Next,
}

/// What a tenant complains of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// A request was answered with an error.
    Failed,
    /// A request was answered with wrong data.
    Wrong,
    /// Its own device lost its state, or its registers changed.
    Device,
}

/// The world around a tenant.
pub trait World {
    /// Device time, as far as it has heard.
    fn now(&self) -> Time;

    /// Tells the server that there is a request.
    fn ring(&mut self);

    /// Waits for a bell and shows meanwhile that it is alive. Whether the bell rang: it may come back
    /// before, when a heartbeat was due.
    fn wait(&mut self, bell: Bell, until: Deadline) -> bool;

    /// Shows the counters.
    fn publish(&mut self, io: &Io);

    /// Complains.
    fn complain(&mut self, what: Complaint);

    /// Says that it has made all its requests.
    fn finished(&mut self);

    /// The seed of the next trial of its boot, and how many requests to make.
    fn next(&mut self) -> (u64, u32);

    /// Reads a register of its own device.
    fn sibling_read(&mut self, offset: u32) -> u32;

    /// Writes one.
    fn sibling_write(&mut self, offset: u32, value: u32);

    /// Gives a page back; whether it was taken.
    fn give_back(&mut self, phys: u64) -> bool;

    /// Looks at the memory it shares with everybody, before or during its `nth` request; whether there
    /// was anything to look at.
    fn look(&mut self, nth: u32, during: bool) -> bool {
        let _ = (nth, during);
        false
    }

    /// Its `nth` request was answered.
    fn answered(&mut self, nth: u32) {
        let _ = nth;
    }

    /// The deadline `after` from now.
    fn deadline(&self, after: Duration) -> Deadline {
        Deadline::after(self.now(), after)
    }

    /// Lets `time` pass, beating.
    fn pause(&mut self, time: Duration) {
        let until = self.deadline(time);
        while !until.passed(self.now()) {
            self.wait(Bell::None, until);
        }
    }
}
