//! What a device says it is: the constant part of its configuration space.
//!
//! Data only. The shared PCI layer turns it into a configuration space with sizing, masks and
//! capability chains, so no model repeats that code.

use crate::Bar;

/// A PCI function's identity, resources and capabilities.
#[derive(Clone, Copy, Debug)]
pub struct PciIdentity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor and subsystem ID.
    pub subsystem: [u16; 2],
    /// Whether the function has an INTx pin (it is always INTA#).
    pub intx: bool,
    /// Memory BARs, at most one entry each.
    pub bars: &'static [BarSpec],
    /// The capability list, in the order software finds it.
    pub capabilities: &'static [Capability],
}

/// One memory BAR. There are no I/O BARs: nothing here needs one.
#[derive(Clone, Copy, Debug)]
pub struct BarSpec {
    /// Which register; a 64-bit BAR takes the next one too.
    pub bar: Bar,
    /// Bytes: a power of two, at least 16.
    pub size: u64,
    /// 64-bit decoding.
    pub wide: bool,
    /// Prefetchable.
    pub prefetchable: bool,
}

/// One entry of the capability list.
#[derive(Clone, Copy, Debug)]
pub enum Capability {
    /// Message signalled interrupts, 64-bit address, no per-vector mask (PCI 3.0, 6.8.1).
    Msi {
        /// log2 of the vectors asked for, 0 to 5.
        log2_vectors: u8,
    },
    /// MSI-X (PCI 3.0, 6.8.2).
    Msix {
        /// Entries in the table, 1 to 64 here.
        vectors: u16,
        /// Where the table is.
        table: MsixLocation,
        /// Where the pending bits are.
        pba: MsixLocation,
    },
    /// PCI Express endpoint (PCI Express Base 6.0, 7.5.3) with function-level reset.
    PcieEndpoint {
        /// Whether Initiate Function Level Reset works.
        flr: bool,
    },
    /// Vendor-specific (ID 09h): the bytes after ID, next pointer and length.
    Vendor(&'static [u8]),
}

/// A place inside a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLocation {
    /// The BAR.
    pub bar: Bar,
    /// Byte offset, a multiple of 8.
    pub offset: u32,
}
