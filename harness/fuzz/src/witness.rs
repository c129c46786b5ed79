//! What only an adapter can see.

use crate::oracle::Oracle;
use crate::world;

/// Takes an adapter's testimony. There is one in an execution, and it knows which call is running.
#[derive(Debug)]
pub struct Witness {
    _private: (),
}

/// A byte pattern that no device here sends: the marks of [`Witness::mark`], one after the other.
const MARK: [u8; 16] = [
    0xc0, 0xff, 0xe7, 0xda, 0x3b, 0x5e, 0x91, 0x0d, 0x6d, 0xa4, 0x17, 0xf2, 0x88, 0x4b, 0x2c, 0xd9,
];

impl Witness {
    pub(crate) const fn new() -> Self {
        Self { _private: () }
    }

    /// Fills a buffer, before it is given to the driver to receive into, with a pattern that the
    /// device cannot read.
    #[inline(never)]
    pub fn mark(&mut self, buffer: &mut [u8]) {
        for (byte, mark) in buffer.iter_mut().zip(MARK.iter().cycle()) {
            *byte = *mark;
        }
    }

    /// The driver returned success, and says that all of `data`, the start of a [marked](Self::mark)
    /// buffer, came from the device. A mark that is still there did not. It is the driver's fault unless
    /// the device held data back and said all the same, as far as a driver can know, that it sent them.
    #[inline(never)]
    pub fn received(&mut self, what: &'static str, data: &[u8]) {
        let (blocks, _) = data.as_chunks::<16>();
        if blocks.contains(&MARK) && world::with(|world| world.state.may_miss_data(data.len())) {
            let words = || format!("{what}: bytes that the device never sent");
            world::sight(Oracle::UnsentData, what, words);
        }
    }

    /// The driver says that it received so many bytes into a buffer of `room`.
    #[inline(never)]
    pub fn length(&mut self, what: &'static str, returned: usize, room: usize) {
        if returned > room {
            let words = || format!("{what}: {returned} bytes reported, room for {room}");
            world::sight(Oracle::LengthBeyondBuffer, what, words);
        }
    }

    /// A promise of the driver's documentation.
    #[inline(never)]
    pub fn promise(&mut self, what: &'static str, kept: bool) {
        if !kept {
            world::sight(Oracle::Promise, what, || what.to_owned());
        }
    }
}
