//! What only an adapter can see.

use crate::oracle::Oracle;
use crate::world;

/// Takes an adapter's testimony. There is one in an execution, and it knows which call is running.
#[derive(Debug)]
pub struct Witness {
    /// Requests whose data were marked.
    secrets: u32,
}

/// A byte pattern that no device here sends: the marks of [`Witness::mark`], one after the other.
const MARK: [u8; 16] = [
    0xc0, 0xff, 0xe7, 0xda, 0x3b, 0x5e, 0x91, 0x0d, 0x6d, 0xa4, 0x17, 0xf2, 0x88, 0x4b, 0x2c, 0xd9,
];

/// Begins the marks of [`Witness::secret`]; the request's number and its complement follow.
const SECRET: [u8; 8] = [0x9b, 0x1e, 0xd4, 0x72, 0xa9, 0x35, 0xc8, 0x5f];

fn mark_of(secret: u32) -> [u8; 16] {
    let mut mark = [0; 16];
    mark[..8].copy_from_slice(&SECRET);
    mark[8..12].copy_from_slice(&secret.to_le_bytes());
    mark[12..].copy_from_slice(&(!secret).to_le_bytes());
    mark
}

/// The request whose data bear that mark. The start of a mark, which ends the data, is none.
pub(crate) fn secret_of(block: &[u8; 16]) -> Option<u32> {
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *block;
    let secret = u32::from_le_bytes([a, b, c, d]);
    (*block == mark_of(secret)).then_some(secret)
}

impl Witness {
    pub(crate) const fn new() -> Self {
        Self { secrets: 0 }
    }

    /// Fills a buffer, before it is given to the driver to receive into, with a pattern that the
    /// device cannot read.
    #[inline(never)]
    pub fn mark(&mut self, buffer: &mut [u8]) {
        let (whole, rest) = buffer.as_chunks_mut::<16>();
        whole.fill(MARK);
        rest.copy_from_slice(&MARK[..rest.len()]);
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

    /// Fills data that the driver is given to send with marks of this request's own.
    pub fn secret(&mut self, data: &mut [u8]) {
        self.secrets += 1;
        for (byte, mark) in data
            .iter_mut()
            .zip(mark_of(self.secrets).into_iter().cycle())
        {
            *byte = mark;
        }
    }

    /// The driver returned success, and by its documentation the device has all of the data marked so
    /// far. If it gets them once more, the driver gave away what was not asked for: it sends its buffer
    /// longer than what is in it.
    pub fn sent(&mut self) {
        world::with(|world| world.state.over(self.secrets));
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
