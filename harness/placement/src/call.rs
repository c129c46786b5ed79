//! What a domain may ask of the hardware, as the words of its port page.
//!
//! The hardware trusts no domain: [`Call::decode`] accepts nothing it does not know, and what a
//! domain is *allowed* to ask is the hardware's to check.

use cofferdam_seam::{Direction, VectorSet, Width};

/// Words of a call in the port page.
pub const WORDS: usize = 6;

/// A request of a domain to the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The domain is in its jail and ready; the word says how the jail went.
    Hello {
        /// [`crate::jail::Confinement`], packed.
        confinement: u64,
    },
    /// Reads a device register.
    MmioRead {
        /// Which BAR.
        bar: u8,
        /// Byte offset.
        offset: u32,
        /// How wide.
        width: Width,
    },
    /// Writes a device register.
    MmioWrite {
        /// Which BAR.
        bar: u8,
        /// Byte offset.
        offset: u32,
        /// How wide.
        width: Width,
        /// The value.
        value: u64,
    },
    /// Reads configuration space.
    ConfigRead {
        /// Byte offset.
        offset: u16,
        /// How wide.
        width: Width,
    },
    /// Writes configuration space.
    ConfigWrite {
        /// Byte offset.
        offset: u16,
        /// How wide.
        width: Width,
        /// The value.
        value: u32,
    },
    /// Asks for a BAR's size.
    BarSize {
        /// Which BAR.
        bar: u8,
    },
    /// Asks for interrupts.
    EnableInterrupts {
        /// At most so many.
        wanted: u16,
    },
    /// Maps physical memory for the device.
    Map {
        /// First physical address.
        phys: u64,
        /// Bytes.
        len: u64,
        /// Which way.
        way: Direction,
        /// Whether its pages hold nothing else, so that there is nothing to keep from the device. A
        /// driver that lies here gives its own memory away, and nobody else's.
        coherent: bool,
    },
    /// Maps physical memory at an address of the driver's choice.
    MapAt {
        /// The address the device is to use.
        iova: u64,
        /// First physical address.
        phys: u64,
        /// Bytes.
        len: u64,
        /// Which way.
        way: Direction,
    },
    /// Takes a mapping back.
    Unmap {
        /// The name `Map` gave it.
        id: u64,
    },
    /// Waits for interrupts or doorbells.
    Wait {
        /// Vectors to wait for.
        vectors: VectorSet,
        /// Peers, by bit, whose doorbell to wait for.
        bells: u64,
        /// Device time at which to give up, ns.
        until: u64,
        /// Whether it shows meanwhile that it is alive.
        alive: bool,
    },
    /// Lets others run for a moment.
    Relax,
    /// Asks for the time: every reply carries it.
    Now,
    /// Rings the doorbell of the peers whose bits are set.
    Ring {
        /// Peers by bit.
        peers: u64,
    },
    /// A heartbeat.
    Beat,
    /// The driver serves (again).
    Serving,
    /// A planned fault of the driver is about to happen.
    Mark,
    /// The domain noticed something wrong.
    Complain {
        /// An index into [`COMPLAINTS`].
        what: u64,
    },
    /// Resets the device.
    Reset,
    /// Reads a register of its own device (tenant 2 only), 32 bits of BAR 0.
    SiblingRead {
        /// Byte offset.
        offset: u32,
    },
    /// Writes one (tenant 2 only).
    SiblingWrite {
        /// Byte offset.
        offset: u32,
        /// The value.
        value: u32,
    },
    /// Asks how the domain that holds the driver is (supervisor only).
    Status,
    /// Kills it (supervisor only).
    Kill,
    /// Starts it again (supervisor only).
    Restart,
    /// A tenant is about to unmap a page of its own and give it back.
    GiveBack {
        /// Its physical address.
        phys: u64,
    },
    /// It has unmapped it.
    GivenBack,
    /// A newcomer has filled its page.
    Filled,
    /// The domain has done all it meant to do.
    Finished,
    /// What the next trial of this boot asks of a tenant: seed and requests.
    Next,
}

/// What a domain can complain of.
pub const COMPLAINTS: [&str; 12] = [
    "a wait of the driver timed out",
    "the device broke its protocol",
    "the device failed a request",
    "the driver could not be started",
    "a request was answered with an error",
    "a request was answered with wrong data",
    "the driver crashed and was contained",
    "the domain that holds the driver died",
    "the domain that holds the driver shows no life",
    "the device could not be reset",
    "a tenant's own device lost its state or its registers changed",
    "the device was not given the page that a tenant lent for its request",
];

const fn way_code(way: Direction) -> u64 {
    match way {
        Direction::ToDevice => 0,
        Direction::FromDevice => 1,
        Direction::Both => 2,
    }
}

const fn way_of(code: u64) -> Option<Direction> {
    match code {
        0 => Some(Direction::ToDevice),
        1 => Some(Direction::FromDevice),
        2 => Some(Direction::Both),
        _ => None,
    }
}

const fn flag(code: u64) -> Option<bool> {
    match code {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Call {
    /// The words to put into the port page.
    pub const fn encode(self) -> [u64; WORDS] {
        match self {
            Self::Hello { confinement } => [1, confinement, 0, 0, 0, 0],
            Self::MmioRead { bar, offset, width } => {
                [2, bar as u64, offset as u64, width as u64, 0, 0]
            }
            Self::MmioWrite {
                bar,
                offset,
                width,
                value,
            } => [3, bar as u64, offset as u64, width as u64, value, 0],
            Self::ConfigRead { offset, width } => [4, offset as u64, width as u64, 0, 0, 0],
            Self::ConfigWrite {
                offset,
                width,
                value,
            } => [5, offset as u64, width as u64, value as u64, 0, 0],
            Self::BarSize { bar } => [6, bar as u64, 0, 0, 0, 0],
            Self::EnableInterrupts { wanted } => [7, wanted as u64, 0, 0, 0, 0],
            Self::Map {
                phys,
                len,
                way,
                coherent,
            } => [8, phys, len, way_code(way), coherent as u64, 0],
            Self::MapAt {
                iova,
                phys,
                len,
                way,
            } => [30, phys, len, way_code(way), iova, 0],
            Self::Unmap { id } => [9, id, 0, 0, 0, 0],
            Self::Wait {
                vectors,
                bells,
                until,
                alive,
            } => [10, vectors.0, bells, until, alive as u64, 0],
            Self::Relax => [11, 0, 0, 0, 0, 0],
            Self::Now => [12, 0, 0, 0, 0, 0],
            Self::Ring { peers } => [13, peers, 0, 0, 0, 0],
            Self::Beat => [14, 0, 0, 0, 0, 0],
            Self::Serving => [15, 0, 0, 0, 0, 0],
            Self::Mark => [16, 0, 0, 0, 0, 0],
            Self::Complain { what } => [17, what, 0, 0, 0, 0],
            Self::Reset => [18, 0, 0, 0, 0, 0],
            Self::Status => [19, 0, 0, 0, 0, 0],
            Self::Kill => [20, 0, 0, 0, 0, 0],
            Self::Restart => [21, 0, 0, 0, 0, 0],
            Self::Finished => [22, 0, 0, 0, 0, 0],
            Self::Next => [23, 0, 0, 0, 0, 0],
            Self::GiveBack { phys } => [50, phys, 0, 0, 0, 0],
            Self::GivenBack => [51, 0, 0, 0, 0, 0],
            Self::Filled => [52, 0, 0, 0, 0, 0],
            Self::SiblingRead { offset } => [40, offset as u64, 0, 0, 0, 0],
            Self::SiblingWrite { offset, value } => [41, offset as u64, value as u64, 0, 0, 0],
        }
    }

    /// The call those words mean, if they mean one.
    pub fn decode(words: [u64; WORDS]) -> Option<Self> {
        let [op, a, b, c, d, _] = words;
        Some(match op {
            1 => Self::Hello { confinement: a },
            2 => Self::MmioRead {
                bar: u8::try_from(a).ok()?,
                offset: u32::try_from(b).ok()?,
                width: Width::from_bytes(c)?,
            },
            3 => Self::MmioWrite {
                bar: u8::try_from(a).ok()?,
                offset: u32::try_from(b).ok()?,
                width: Width::from_bytes(c)?,
                value: d,
            },
            4 => Self::ConfigRead {
                offset: u16::try_from(a).ok()?,
                width: Width::from_bytes(b)?,
            },
            5 => Self::ConfigWrite {
                offset: u16::try_from(a).ok()?,
                width: Width::from_bytes(b)?,
                value: u32::try_from(c).ok()?,
            },
            6 => Self::BarSize {
                bar: u8::try_from(a).ok()?,
            },
            7 => Self::EnableInterrupts {
                wanted: u16::try_from(a).ok()?,
            },
            8 => Self::Map {
                phys: a,
                len: b,
                way: way_of(c)?,
                coherent: flag(d)?,
            },
            30 => Self::MapAt {
                iova: d,
                phys: a,
                len: b,
                way: way_of(c)?,
            },
            9 => Self::Unmap { id: a },
            10 => Self::Wait {
                vectors: VectorSet(a),
                bells: b,
                until: c,
                alive: flag(d)?,
            },
            11 => Self::Relax,
            12 => Self::Now,
            13 => Self::Ring { peers: a },
            14 => Self::Beat,
            15 => Self::Serving,
            16 => Self::Mark,
            17 => Self::Complain { what: a },
            18 => Self::Reset,
            19 => Self::Status,
            20 => Self::Kill,
            21 => Self::Restart,
            22 => Self::Finished,
            23 => Self::Next,
            50 => Self::GiveBack { phys: a },
            51 => Self::GivenBack,
            52 => Self::Filled,
            40 => Self::SiblingRead {
                offset: u32::try_from(a).ok()?,
            },
            41 => Self::SiblingWrite {
                offset: u32::try_from(a).ok()?,
                value: u32::try_from(b).ok()?,
            },
            _ => return None,
        })
    }
}

/// The hardware's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the call was carried out.
    pub ok: bool,
    /// What it returns.
    pub values: [u64; 2],
}

impl Answer {
    /// Done, nothing to return.
    pub const DONE: Self = Self::with(0, 0);
    /// Refused, or failed.
    pub const REFUSED: Self = Self {
        ok: false,
        values: [0; 2],
    };

    /// Done, with values.
    pub const fn with(first: u64, second: u64) -> Self {
        Self {
            ok: true,
            values: [first, second],
        }
    }
}

/// Bits of the answer to [`Call::Status`].
pub mod status {
    /// The domain that holds the driver is dead.
    pub const DEAD: u64 = 1;
    /// It has served since it was (re)started.
    pub const SERVING: u64 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_survives_the_port_page() {
        let calls = [
            Call::Hello { confinement: 3 },
            Call::MmioRead {
                bar: 0,
                offset: 4,
                width: Width::Four,
            },
            Call::MmioWrite {
                bar: 5,
                offset: 8,
                width: Width::Eight,
                value: u64::MAX,
            },
            Call::ConfigRead {
                offset: 0x100,
                width: Width::Two,
            },
            Call::ConfigWrite {
                offset: 4,
                width: Width::Four,
                value: u32::MAX,
            },
            Call::BarSize { bar: 1 },
            Call::EnableInterrupts { wanted: 2 },
            Call::Map {
                phys: 0x1000,
                len: 8,
                way: Direction::FromDevice,
                coherent: true,
            },
            Call::MapAt {
                iova: 0x2000_0000,
                phys: 0x1000,
                len: 8,
                way: Direction::Both,
            },
            Call::Unmap { id: 9 },
            Call::Wait {
                vectors: VectorSet(1),
                bells: 6,
                until: 10,
                alive: true,
            },
            Call::Relax,
            Call::Now,
            Call::Ring { peers: 2 },
            Call::Beat,
            Call::Serving,
            Call::Mark,
            Call::Complain { what: 1 },
            Call::Reset,
            Call::Status,
            Call::Kill,
            Call::Restart,
            Call::Finished,
            Call::Next,
            Call::GiveBack { phys: 0x14_9000 },
            Call::GivenBack,
            Call::Filled,
            Call::SiblingRead { offset: 4 },
            Call::SiblingWrite {
                offset: 4,
                value: u32::MAX,
            },
        ];
        for call in calls {
            assert_eq!(Call::decode(call.encode()), Some(call));
        }
    }

    #[test]
    fn unknown_words_mean_nothing() {
        assert_eq!(Call::decode([0; WORDS]), None);
        assert_eq!(Call::decode([2, 256, 0, 4, 0, 0]), None);
        assert_eq!(Call::decode([2, 0, 0, 3, 0, 0]), None);
        assert_eq!(Call::decode([8, 0, 0, 3, 0, 0]), None);
        assert_eq!(Call::decode([8, 0, 0, 0, 2, 0]), None);
        assert_eq!(Call::decode([30, 0, 0, 3, 0, 0]), None);
        assert_eq!(Call::decode([u64::MAX; WORDS]), None);
    }
}
