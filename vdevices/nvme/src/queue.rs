//! Submission and completion queues as the controller sees them (NVMe 1.4, 4.1).
//!
//! The host owns a submission queue entry until the tail doorbell moves past it; the controller
//! then owns it until a completion's SQ head does. A completion queue entry is the controller's
//! until its phase tag turns, then the host's until the head doorbell moves past it. Nothing here
//! grows with a queue: its entries stay in the host's memory.

use crate::spec::{Command, Completion, completion};
use cofferdam_seam::{BusPort, DmaFault, Iova, Purpose};
use zerocopy::{FromZeros, IntoBytes};

/// A doorbell was written with a value it cannot have (4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDoorbell;

/// Entries between `from` and `to` in a ring of `size`.
fn distance(from: u32, to: u32, size: u32) -> u32 {
    if to >= from {
        to - from
    } else {
        to + size - from
    }
}

fn after(index: u32, size: u32) -> u32 {
    if index + 1 == size { 0 } else { index + 1 }
}

/// A submission queue.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    base: Iova,
    /// Entries, at least two.
    size: u32,
    head: u32,
    tail: u32,
    /// The completion queue of its commands.
    pub completion: u16,
    /// Its doorbell was written wrongly: nothing more is fetched until it is created anew (4.1).
    stuck: bool,
}

impl SubmissionQueue {
    pub fn new(base: Iova, size: u32, completion: u16) -> Self {
        Self {
            base,
            size,
            head: 0,
            tail: 0,
            completion,
            stuck: false,
        }
    }

    /// Whether the host has submitted a command that was not fetched yet.
    pub fn has_commands(&self) -> bool {
        self.head != self.tail && !self.stuck
    }

    /// Moves the tail. The value it has already is no news; one beyond the queue, or one that
    /// passes the head, is wrong (3.1.25, 4.1.2).
    pub fn ring(&mut self, tail: u32) -> Result<(), BadDoorbell> {
        let waiting = distance(self.head, self.tail, self.size);
        if tail >= self.size || waiting + distance(self.tail, tail, self.size) >= self.size {
            self.stuck = true;
            return Err(BadDoorbell);
        }
        self.tail = tail;
        Ok(())
    }

    /// Fetches the next command.
    pub fn fetch(&mut self, bus: &mut BusPort<'_>) -> Result<Command, DmaFault> {
        let mut command = Command::new_zeroed();
        let at = self.base.offset(64 * u64::from(self.head));
        bus.dma_read(at, command.as_mut_bytes(), Purpose::Descriptor)?;
        self.head = after(self.head, self.size);
        Ok(command)
    }

    /// The SQ head for a completion.
    pub fn head(&self) -> u16 {
        u16::try_from(self.head).unwrap_or(u16::MAX)
    }
}

/// A completion queue.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    base: Iova,
    /// Entries, at least two.
    size: u32,
    head: u32,
    tail: u32,
    phase: bool,
    /// The vector it interrupts by, if it does.
    pub vector: Option<u16>,
}

impl CompletionQueue {
    pub fn new(base: Iova, size: u32, vector: Option<u16>) -> Self {
        Self {
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            vector,
        }
    }

    /// Entries that can be posted before it is full (4.1.2).
    pub fn room(&self) -> u32 {
        self.size - 1 - distance(self.head, self.tail, self.size)
    }

    /// Whether the host has not consumed all that was posted.
    pub fn has_news(&self) -> bool {
        self.head != self.tail
    }

    /// Moves the head. The value it has already is no news; one beyond the queue, or one that
    /// passes the tail, is wrong (3.1.26, 4.1).
    pub fn ring(&mut self, head: u32) -> Result<(), BadDoorbell> {
        let posted = distance(self.head, self.tail, self.size);
        if head >= self.size || distance(self.head, head, self.size) > posted {
            return Err(BadDoorbell);
        }
        self.head = head;
        Ok(())
    }

    /// Posts an entry, of which the status field lacks the phase tag: there must be room. What it
    /// tells goes first, what publishes it last.
    pub fn post(&mut self, mut entry: Completion, bus: &mut BusPort<'_>) -> Result<(), DmaFault> {
        entry.status.set(entry.status.get() | u16::from(self.phase));
        let at = self.base.offset(16 * u64::from(self.tail));
        let (tells, publishes) = entry.as_bytes().split_at(completion::PUBLISH);
        bus.dma_write(at, tells, Purpose::Completion)?;
        let at = at.offset(completion::PUBLISH as u64);
        bus.dma_write(at, publishes, Purpose::Publish)?;
        self.tail = after(self.tail, self.size);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_submission_queue_takes_no_more() {
        let mut queue = SubmissionQueue::new(Iova(0), 4, 0);

        assert_eq!(queue.ring(3), Ok(()));
        assert_eq!(queue.ring(0), Err(BadDoorbell));

        assert!(!queue.has_commands());
    }

    #[test]
    fn same_value_rings_for_nothing() {
        let mut submission = SubmissionQueue::new(Iova(0), 4, 0);
        let mut completion = CompletionQueue::new(Iova(0), 4, None);

        assert_eq!(submission.ring(0), Ok(()));
        assert_eq!(completion.ring(0), Ok(()));

        assert!(!submission.has_commands());
        assert_eq!(completion.room(), 3);
    }

    #[test]
    fn completion_head_cannot_pass_the_tail() {
        let mut queue = CompletionQueue::new(Iova(0), 4, None);

        assert_eq!(queue.ring(1), Err(BadDoorbell));
        assert_eq!(queue.ring(4), Err(BadDoorbell));

        assert_eq!(queue.room(), 3);
    }
}
