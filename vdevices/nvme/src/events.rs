//! Asynchronous events, and the requests that wait for them (NVMe 1.4, 5.2).

use crate::spec::Status;
use crate::spec::log::{Event, LogId};

/// Requests the controller holds at a time; AERL is one less.
pub(crate) const MAX_REQUESTS: u8 = 4;

/// Types of event: error and health.
const KINDS: usize = 2;

/// What is known of one type of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing happened.
    #[default]
    Quiet,
    /// It waits for a request.
    Pending(Event),
    /// The host was told, and has not read that log page yet: the type is masked until it does.
    Told(LogId),
}

/// Requests and events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Command identifiers, oldest first.
    requests: [u16; MAX_REQUESTS as usize],
    count: usize,
    states: [State; KINDS],
}

impl Events {
    /// Holds a request.
    pub fn request(&mut self, id: u16) -> Result<(), Status> {
        let slot = self.requests.get_mut(self.count);
        *slot.ok_or(Status::EVENT_REQUEST_LIMIT)? = id;
        self.count += 1;
        Ok(())
    }

    /// Forgets a request; whether there was one.
    pub fn abort(&mut self, id: u16) -> bool {
        let held = &self.requests[..self.count];
        let found = held.iter().position(|&request| request == id);
        if let Some(index) = found {
            self.remove(index);
        }
        found.is_some()
    }

    fn remove(&mut self, index: usize) -> u16 {
        let id = self.requests[index];
        self.requests.copy_within(index + 1..self.count, index);
        self.count -= 1;
        id
    }

    /// Notes an event, unless one of its type is pending or masked.
    pub fn report(&mut self, event: Event) {
        if let Some(state) = self.states.get_mut(usize::from(event.kind))
            && *state == State::Quiet
        {
            *state = State::Pending(event);
        }
    }

    /// The next event to tell of and the request to tell by, both taken; the type is masked.
    pub fn next(&mut self) -> Option<(u16, Event)> {
        if self.count == 0 {
            return None;
        }
        let pending = self.states.iter_mut().find_map(|state| match *state {
            State::Pending(event) => Some((state, event)),
            _ => None,
        });
        let (state, event) = pending?;
        *state = State::Told(event.log);
        Some((self.remove(0), event))
    }

    /// The host read a log page: what it tells is known, and its type of event unmasked (5.2).
    pub fn log_was_read(&mut self, log: LogId) {
        for state in &mut self.states {
            match *state {
                State::Told(told) if told == log => *state = State::Quiet,
                State::Pending(event) if event.log == log => *state = State::Quiet,
                _ => {}
            }
        }
    }
}
