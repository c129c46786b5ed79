//! The console device (\[1\] 5.3).

/// The queue in which the driver leaves buffers for input of port 0 (\[1\] 5.3.2).
pub const RECEIVE: u16 = 0;
/// The queue in which it sends output of port 0.
pub const TRANSMIT: u16 = 1;

/// Feature bit: the configuration has columns and rows (\[1\] 5.3.3).
pub const SIZE: u64 = 1 << 0;
/// Feature bit: the configuration takes single bytes of output.
pub const EMERG_WRITE: u64 = 1 << 2;

/// Byte offsets in the configuration (\[1\] 5.3.4).
pub mod config {
    /// Columns, 16 bits.
    pub const COLUMNS: u32 = 0;
    /// Rows, 16 bits.
    pub const ROWS: u32 = 2;
    /// Ports, 32 bits.
    pub const PORTS: u32 = 4;
    /// Emergency output, 32 bits, of which the lowest 8 count.
    pub const EMERG_WR: u32 = 8;
}
