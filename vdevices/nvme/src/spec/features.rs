//! Features: identifiers and attributes (\[1\] 5.21.1).

/// Feature identifier. An open set: unknown codes are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureId(pub u8);

impl FeatureId {
    /// Arbitration (5.21.1.1).
    pub const ARBITRATION: Self = Self(0x01);
    /// Power Management (5.21.1.2).
    pub const POWER_MANAGEMENT: Self = Self(0x02);
    /// Temperature Threshold (5.21.1.4).
    pub const TEMPERATURE_THRESHOLD: Self = Self(0x04);
    /// Error Recovery (5.21.1.5).
    pub const ERROR_RECOVERY: Self = Self(0x05);
    /// Volatile Write Cache (5.21.1.6).
    pub const VOLATILE_WRITE_CACHE: Self = Self(0x06);
    /// Number of Queues (5.21.1.7).
    pub const NUMBER_OF_QUEUES: Self = Self(0x07);
    /// Interrupt Coalescing (5.21.1.8).
    pub const INTERRUPT_COALESCING: Self = Self(0x08);
    /// Interrupt Vector Configuration (5.21.1.9).
    pub const INTERRUPT_VECTOR: Self = Self(0x09);
    /// Write Atomicity Normal (5.21.1.10).
    pub const WRITE_ATOMICITY: Self = Self(0x0a);
    /// Asynchronous Event Configuration (5.21.1.11).
    pub const ASYNC_EVENTS: Self = Self(0x0b);
}

/// Which attributes Get Features returns: SEL, dword 10 bits 10:8 (\[1\] 5.13).
pub mod select {
    /// Those in force.
    pub const CURRENT: u8 = 0;
    /// Those after a reset.
    pub const DEFAULT: u8 = 1;
    /// Those that were saved.
    pub const SAVED: u8 = 2;
    /// What can be done to the feature: see [`capability`](super::capability).
    pub const SUPPORTED: u8 = 3;
}

/// What can be done to a feature (\[1\] 5.13).
pub mod capability {
    /// It can be saved.
    pub const SAVEABLE: u32 = 1;
    /// It belongs to a namespace.
    pub const NAMESPACE_SPECIFIC: u32 = 1 << 1;
    /// It can be changed.
    pub const CHANGEABLE: u32 = 1 << 2;
}

/// Set Features, dword 10: SV, save the attributes (\[1\] 5.21).
pub const SAVE: u32 = 1 << 31;
