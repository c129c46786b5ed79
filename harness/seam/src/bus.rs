//! The device's way to the world: one requester, so DMA and interrupts cannot disagree about who
//! asks.

use crate::{Bar, Iova, RequesterId, Time};
use core::time::Duration;
use thiserror::Error;

/// An interrupt vector of one function: MSI number or MSI-X table index; 0 for INTx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vector(pub u16);

/// A set of the vectors 0 to 63. No device here has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VectorSet(pub u64);

impl VectorSet {
    /// No vector.
    pub const EMPTY: Self = Self(0);

    /// The set of that one vector; empty beyond 63.
    pub const fn of(vector: Vector) -> Self {
        if vector.0 < 64 {
            Self(1 << vector.0)
        } else {
            Self(0)
        }
    }

    /// Adds all of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Removes and returns what it shares with `mask`.
    pub fn take(&mut self, mask: Self) -> Self {
        let taken = self.0 & mask.0;
        self.0 &= !taken;
        Self(taken)
    }

    /// Whether `vector` is in it.
    pub const fn contains(self, vector: Vector) -> bool {
        self.0 & Self::of(vector).0 != 0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its vectors, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Vector> {
        (0..64)
            .filter(move |bit| self.0 >> bit & 1 == 1)
            .map(Vector)
    }
}

/// Why the device moves these bytes. Models tell it so that traces can be decoded and a tampering
/// layer can aim; the bus ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A ring index, a descriptor, a command.
    Descriptor,
    /// The data of a request.
    Payload,
    /// A status byte inside a request's buffers.
    Status,
    /// An entry of a completion queue or used ring, without its index or phase.
    Completion,
    /// What publishes completions: a used index, a phase bit.
    Publish,
}

/// Why a DMA request failed, as far as the device can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum DmaFault {
    /// Bus mastering is off in the command register.
    #[error("bus mastering is disabled")]
    MasterDisabled,
    /// The IOMMU has no mapping that allows it.
    #[error("the IOMMU refused the address")]
    Refused,
    /// No memory answers at the address.
    #[error("no memory at the address")]
    Unbacked,
    /// The link is down, or the port contained.
    #[error("the link is down")]
    LinkDown,
}

/// What the rules of the bus forbid a function to do. No honest model does any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// Keeps its grant of a conventional bus past its latency timer (PCI Local Bus 3.0, 3.5.4).
    HoldGrant {
        /// For so long.
        time: Duration,
    },
    /// Asserts LOCK# on a conventional bus and does not release it (PCI Local Bus 2.2, appendix F).
    Lock {
        /// The function that then answers its owner only; none: the whole bus.
        target: Option<RequesterId>,
        /// For so long.
        time: Duration,
    },
    /// Gives no flow-control credits back (PCI Express Base 6.0, 2.6.1).
    StarveCredits {
        /// Those of posted requests; else of non-posted ones.
        posted: bool,
        /// For so long.
        time: Duration,
    },
    /// Lets its link go down.
    LinkDown {
        /// For so long; none: it is gone.
        time: Option<Duration>,
    },
    /// Decodes other addresses than its BAR was given, until it is reset.
    MoveBar {
        /// Which BAR.
        bar: Bar,
        /// Its first address from now on.
        to: u64,
    },
    /// From now on does nothing about a function-level reset.
    IgnoreReset,
    /// From now on takes so long over a function-level reset.
    SlowReset {
        /// How long.
        time: Duration,
    },
}

/// What the fabric does for a function. The machine implements it; a layer between a device and
/// the machine implements it by wrapping another.
pub trait Bus {
    /// Reads memory. On a fault `into` is all ones and nothing says how far it came.
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault>;
    /// Writes memory. Bytes before a refused page have landed.
    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault>;
    /// The INTx pin went up or down: Assert_INTx, Deassert_INTx (PCI Express Base 6.0, 2.2.8.1).
    /// Lost on a bus that delivers no interrupts.
    fn intx(&mut self, by: RequesterId, level: bool) {
        let _ = (by, level);
    }
    /// Writes memory at an address that the request says is translated already (ATS, PCI Express Base
    /// 6.0, 10.1). A fabric that knows no such request refuses it. No honest model sends one.
    fn dma_write_translated(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        let _ = (by, at, from);
        Err(DmaFault::Refused)
    }
    /// Writes memory under another function's requester ID, `claimed`. A fabric that knows who sends
    /// refuses it. No honest model sends one.
    fn dma_write_as(
        &mut self,
        by: RequesterId,
        claimed: RequesterId,
        at: Iova,
        from: &[u8],
    ) -> Result<(), DmaFault> {
        let _ = (by, claimed, at, from);
        Err(DmaFault::Refused)
    }
    /// Breaks a rule of the bus. Whether this fabric has that rule and the function is in a position
    /// to break it; no other fabric than the machine's has any.
    fn violate(&mut self, by: RequesterId, what: Violation) -> bool {
        let _ = (by, what);
        false
    }
    /// Device time.
    fn now(&self) -> Time;
    /// Asks for a [`Device::step`](crate::Device::step) at `at`, or at once if that has passed.
    fn wake_at(&mut self, by: RequesterId, at: Time);
}

/// What a device does to its own PCI function behind the driver's back. No correct model does; a
/// layer that makes one lie does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Sets or clears the bus-master enable bit.
    BusMaster(bool),
    /// Overwrites a double word of every entry of the MSI-X table.
    MsixTable {
        /// 0 and 1 address, 2 data, 3 control.
        field: u8,
        /// What it is to say.
        value: u32,
    },
    /// Sends a message, whatever the function was told about bus mastering and interrupts.
    Message {
        /// Where to.
        at: Iova,
        /// What it says.
        data: u32,
    },
}

/// What a device asked of its own PCI function during one call; the PCI layer carries it out when
/// the call returns, after the call's DMA. So an interrupt never overtakes the data it announces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// Vectors raised.
    pub raised: VectorSet,
    /// New level of the INTx pin.
    pub intx: Option<bool>,
    /// What it does to the function itself, first of all.
    pub meddling: Option<Meddling>,
}

/// A device's handle on the bus, lent for the time of one call.
pub struct BusPort<'a> {
    bus: &'a mut dyn Bus,
    requester: RequesterId,
    pending: &'a mut Pending,
}

impl<'a> BusPort<'a> {
    /// A port for `requester`. The PCI layer makes them; a layer that wraps a device makes one
    /// over a bus of its own.
    #[inline]
    pub fn new(bus: &'a mut dyn Bus, requester: RequesterId, pending: &'a mut Pending) -> Self {
        Self {
            bus,
            requester,
            pending,
        }
    }

    /// Splits the port, for a layer that puts a bus of its own between device and fabric.
    pub fn parts(&mut self) -> (&mut dyn Bus, RequesterId, &mut Pending) {
        (self.bus, self.requester, self.pending)
    }

    /// Reads memory as this requester. On a fault `into` is all ones.
    pub fn dma_read(&mut self, at: Iova, into: &mut [u8], why: Purpose) -> Result<(), DmaFault> {
        self.bus.dma_read(self.requester, at, into, why)
    }

    /// Writes memory as this requester.
    pub fn dma_write(&mut self, at: Iova, from: &[u8], why: Purpose) -> Result<(), DmaFault> {
        self.bus.dma_write(self.requester, at, from, why)
    }

    /// Raises a message interrupt (or INTx, edge by edge, where the driver enabled no messages:
    /// the PCI layer decides). Takes effect after this call's DMA.
    pub fn raise(&mut self, vector: Vector) {
        self.pending.raised.insert(VectorSet::of(vector));
    }

    /// Sets the level of the INTx pin.
    pub fn set_intx(&mut self, level: bool) {
        self.pending.intx = Some(level);
    }

    /// Device time.
    pub fn now(&self) -> Time {
        self.bus.now()
    }

    /// Asks to be stepped at `at`.
    pub fn wake_at(&mut self, at: Time) {
        self.bus.wake_at(self.requester, at);
    }

    /// Who this port speaks as.
    pub fn requester(&self) -> RequesterId {
        self.requester
    }
}
