//! The bytes of a hostile device.

use cofferdam_seam::{Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset};
use std::cell::RefCell;

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    at: usize,
}

thread_local! {
    static STREAM: RefCell<Stream> = const { RefCell::new(Stream { bytes: Vec::new(), at: 0 }) };
}

/// An empty buffer, the last execution's if it is there.
pub(crate) fn take_buffer() -> Vec<u8> {
    STREAM.with_borrow_mut(|stream| {
        let mut buffer = std::mem::take(&mut stream.bytes);
        buffer.clear();
        buffer
    })
}

/// These are the answers of the execution that begins.
pub(crate) fn load(bytes: Vec<u8>) {
    STREAM.set(Stream { bytes, at: 0 });
}

/// The answers of the running execution. Hostile devices of a [`Target`](crate::target::Target)
/// take theirs here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers;

impl Answers {
    /// Whether all were taken.
    pub fn is_empty(self) -> bool {
        STREAM.with_borrow(|stream| stream.at >= stream.bytes.len())
    }

    /// Fills `into`. What is not there is zero.
    pub fn take(self, into: &mut [u8]) {
        STREAM.with_borrow_mut(|stream| {
            let left = stream.bytes.get(stream.at..).unwrap_or_default();
            let taken = left.len().min(into.len());
            into[..taken].copy_from_slice(&left[..taken]);
            into[taken..].fill(0);
            stream.at += taken;
        });
    }

    /// A number of so many bytes, at most 8, little-endian.
    pub fn number(self, bytes: usize) -> u64 {
        let mut word = [0; 8];
        self.take(&mut word[..bytes.min(8)]);
        u64::from_le_bytes(word)
    }
}

/// A device that has the identity of another and answers each register read from the program.
pub(crate) struct Answering {
    like: Box<dyn Device>,
}

impl Answering {
    pub(crate) fn like(like: Box<dyn Device>) -> Self {
        Self { like }
    }
}

impl Device for Answering {
    fn describe(&self) -> &PciIdentity {
        self.like.describe()
    }

    fn read(&mut self, at: Access, _bus: &mut BusPort<'_>) -> Completion {
        Completion::Data(Answers.number(at.width().bytes() as usize))
    }

    fn write(&mut self, _at: Access, _value: u64, _bus: &mut BusPort<'_>) {}

    fn step(&mut self, _budget: Budget, _bus: &mut BusPort<'_>) -> Progress {
        Progress::Idle
    }

    fn reset(&mut self, _kind: Reset) {}
}
