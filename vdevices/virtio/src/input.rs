//! The input device (virtio 1.2, 5.8): a keyboard on which a seeded hand types.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::input::{EVENT, Event, config, event, select};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose, SplitMix64, Width};
use core::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

/// The codes of the keys: the three rows of letters of an American keyboard.
const KEYS: core::ops::Range<u16> = 16..51;

/// Bytes of an event.
const BYTES: u64 = size_of::<Event>() as u64;

/// What input device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputConfig {
    /// Decides which keys are struck.
    pub seed: u64,
    /// How many keys are struck before the hand rests for good: four events each.
    pub strokes: u32,
    /// How long one event takes.
    pub latency: Duration,
}

impl Default for InputConfig {
    /// Seed 0, 64 strokes, 20 us an event.
    fn default() -> Self {
        Self {
            seed: 0,
            strokes: 64,
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio keyboard.
pub type VirtioInput = Virtio<Keyboard>;

impl VirtioInput {
    /// A keyboard that nobody has touched.
    pub fn new(config: InputConfig) -> Self {
        let kind = Keyboard {
            keys: SplitMix64::new(config.seed),
            key: 0,
            left: config.strokes.saturating_mul(4),
            latency: config.latency,
            name: format!("Cofferdam keyboard {:016x}", config.seed),
            select: 0,
            subsel: 0,
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// The keyboard, and the hand on it. A reset does not start the typing over.
pub struct Keyboard {
    keys: SplitMix64,
    /// The key that was struck last.
    key: u16,
    /// Events still to come: a multiple of four where no key is down.
    left: u32,
    latency: Duration,
    name: String,
    select: u8,
    subsel: u8,
}

impl Keyboard {
    /// The next event: press, end of packet, release, end of packet.
    fn next(&mut self) -> Event {
        let phase = self.left % 4;
        self.left = self.left.saturating_sub(1);
        let (kind, value) = match phase {
            0 => {
                let keys = u64::from(KEYS.end - KEYS.start);
                let key = u16::try_from(self.keys.number() % keys);
                self.key = KEYS.start + key.unwrap_or(0);
                (event::KEY, 1)
            }
            2 => (event::KEY, 0),
            _ => (event::SYN, 0),
        };
        Event {
            kind: kind.into(),
            code: if kind == event::KEY { self.key } else { 0 }.into(),
            value: value.into(),
        }
    }

    /// The answer to what is selected, with how many of its bytes count (5.8.5.2).
    fn answer(&self) -> ([u8; config::MOST], usize) {
        let mut answer = [0; config::MOST];
        let mut put = |bytes: &[u8]| {
            let length = bytes.len().min(answer.len());
            answer[..length].copy_from_slice(&bytes[..length]);
            length
        };
        let size = match (self.select, u16::from(self.subsel)) {
            (select::NAME, 0) => put(self.name.as_bytes()),
            (select::SERIAL, 0) => put(b"1"),
            // A virtual bus; vendor and version as other virtio keyboards have them.
            (select::DEVICE_IDS, 0) => put(&[6, 0, 0x27, 0x06, 1, 0, 1, 0]),
            (select::EVENT_BITS, event::KEY) => {
                let bytes = usize::from(KEYS.end).div_ceil(8);
                for key in KEYS {
                    answer[usize::from(key / 8)] |= 1 << (key % 8);
                }
                bytes
            }
            // Num lock, caps lock and scroll lock.
            (select::EVENT_BITS, event::LED) => put(&[0b111]),
            _ => 0,
        };
        (answer, size)
    }
}

impl Kind for Keyboard {
    const IDENTITY: &'static PciIdentity = &identity::<3>(device::INPUT, [0x09, 0x00, 0x00]);
    const QUEUES: u16 = 2;

    fn config(&self, at: u32) -> u8 {
        match at {
            config::SELECT => self.select,
            config::SUBSEL => self.subsel,
            _ => {
                let (answer, size) = self.answer();
                let within = at.checked_sub(config::ANSWER);
                let byte = within.and_then(|at| answer.get(at as usize)).copied();
                match at {
                    config::SIZE => u8::try_from(size).unwrap_or(0),
                    _ => byte.unwrap_or(0),
                }
            }
        }
    }

    /// The driver asks for something else: the answer is there at once.
    fn configure(&mut self, at: u32, width: Width, value: u64) {
        let bytes = value.to_le_bytes();
        let width = width.bytes() as usize;
        for (at, byte) in (at..).zip(&bytes[..width]) {
            match at {
                config::SELECT => self.select = *byte,
                config::SUBSEL => self.subsel = *byte,
                _ => {}
            }
        }
    }

    fn watches(&self, queue: u16) -> bool {
        queue == EVENT
    }

    fn takes(&self, queue: u16) -> Option<Duration> {
        (queue != EVENT || self.left > 0).then_some(self.latency)
    }

    /// Events fill one buffer each (5.8.6.2). What the driver sends is looked at and forgotten: the
    /// lights are nobody's business.
    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        if queue != EVENT {
            if chain.readable_len() < BYTES {
                return Err(Broken::TooShort);
            }
            let mut light = Event::new_zeroed();
            chain.read(0, light.as_mut_bytes(), Purpose::Payload, bus)?;
            return Ok(Served::written(0));
        }
        if chain.writable_len() < BYTES {
            return Err(Broken::TooShort);
        }
        if self.left == 0 {
            return Ok(Served::written(0));
        }
        chain.write(0, self.next().as_bytes(), Purpose::Payload, bus)?;
        Ok(Served::written(BYTES))
    }

    fn reset(&mut self) {
        self.select = 0;
        self.subsel = 0;
    }
}
