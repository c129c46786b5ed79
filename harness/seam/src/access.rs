//! Where in a device an access goes, and how wide it is.

/// A base address register, 0 to 5 (PCI Local Bus 3.0, 6.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bar(u8);

impl Bar {
    /// The BAR of that index, if a type 0 header has it.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 6 { Some(Self(index)) } else { None }
    }

    /// BAR 0, where most devices keep their registers.
    pub const ZERO: Self = Self(0);

    /// The index, 0 to 5.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many bytes one access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    One = 1,
    /// 16 bits.
    Two = 2,
    /// 32 bits.
    Four = 4,
    /// 64 bits.
    Eight = 8,
}

impl Width {
    /// The width of that many bytes, if there is one.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u32 {
        self as u32
    }

    /// The value a master reads when nobody answers: all ones, this wide (PCI Express Base 6.0,
    /// 2.3.2: how the root complex ends an aborted configuration or memory read).
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// One access to a device's registers: aligned, and inside a BAR whose size the bus knows.
///
/// Only the bus builds one, so a model may index by `offset` without looking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    bar: Bar,
    offset: u32,
    width: Width,
}

impl Access {
    /// The access, if it is naturally aligned and ends within `bar_size` bytes.
    #[inline]
    pub const fn new(bar: Bar, offset: u32, width: Width, bar_size: u64) -> Option<Self> {
        let aligned = offset & (width.bytes() - 1) == 0;
        let inside = (offset as u64) + (width.bytes() as u64) <= bar_size;
        if aligned && inside {
            Some(Self { bar, offset, width })
        } else {
            None
        }
    }

    /// The BAR it goes to.
    pub const fn bar(self) -> Bar {
        self.bar
    }

    /// Bytes from the start of the BAR.
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// How wide it is.
    pub const fn width(self) -> Width {
        self.width
    }
}
