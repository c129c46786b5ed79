//! The 9P transport.
//!
//! References:
//! - \[2\] Linux, `include/uapi/linux/virtio_9p.h`: the device is not described in \[1\]
//! - \[3\] 9P2000.L, as Linux speaks it (`include/net/9p/9p.h`, diod's protocol.md)

/// The queue of requests \[2\].
pub const REQUEST: u16 = 0;

/// Feature bit: the configuration has a mount tag \[2\].
pub const MOUNT_TAG: u64 = 1 << 0;

/// Bytes of size, type and tag before each message \[3\].
pub const HEADER: usize = 7;

/// No tag, as a version request has \[3\].
pub const NO_TAG: u16 = 0xffff;
/// No file: an attach without authentication \[3\].
pub const NO_FID: u32 = u32::MAX;

/// Message types \[3\]: a reply is one more than its request.
pub mod message {
    /// The reply that is an error number of Linux.
    pub const RLERROR: u8 = 7;
    /// Opens a file.
    pub const TLOPEN: u8 = 12;
    /// Asks for a file's attributes.
    pub const TGETATTR: u8 = 24;
    /// Agrees on a version and a size.
    pub const TVERSION: u8 = 100;
    /// Asks for the root.
    pub const TATTACH: u8 = 104;
    /// Goes from a file to another.
    pub const TWALK: u8 = 110;
    /// Reads.
    pub const TREAD: u8 = 116;
    /// Forgets a file.
    pub const TCLUNK: u8 = 120;
}

/// Error numbers of Linux.
pub mod errno {
    /// No such file.
    pub const ENOENT: u32 = 2;
    /// Not that file.
    pub const EBADF: u32 = 9;
    /// Not a directory.
    pub const ENOTDIR: u32 = 20;
    /// Not a message.
    pub const EINVAL: u32 = 22;
    /// Too many files.
    pub const EMFILE: u32 = 24;
    /// Read only.
    pub const EROFS: u32 = 30;
    /// Not supported.
    pub const EOPNOTSUPP: u32 = 95;
}
