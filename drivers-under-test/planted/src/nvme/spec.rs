//! NVM Express over PCI, as the standard has it.
//!
//! 1. NVM Express Base Specification 1.4, 3.1 "Register Definition".
//! 2. the same, 4.2 "Submission Queue Entry - Command Format".
//! 3. the same, 4.6 "Completion Queue Entry".
//! 4. the same, 5 "Admin Command Set".
//! 5. the same, 6 "NVM Command Set".

/// Word of configuration space with the class code, and that code.
pub const PCI_CLASS: u16 = 0x08;
pub const CLASS: u32 = 0x01_08_02;

/// Controller configuration, status, admin queue attributes and addresses [1].
pub const CC: u32 = 0x14;
pub const CSTS: u32 = 0x1c;
pub const AQA: u32 = 0x24;
pub const ASQ: u32 = 0x28;
pub const ACQ: u32 = 0x30;
/// `CC`: enabled, commands of 64 and completions of 16 bytes [1].
pub const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
/// `CSTS.RDY` [1].
pub const READY: u32 = 1;
/// Doorbells, four bytes apart: tail of submission queue 0, head of completion queue 0, and so on
/// [1].
pub const DOORBELLS: u32 = 0x1000;

/// Bytes of a command and of a completion [2] [3].
pub const COMMAND: usize = 64;
pub const COMPLETION: usize = 16;

/// Admin commands [4].
pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
pub const IDENTIFY: u8 = 0x06;
pub const SET_FEATURES: u8 = 0x09;
/// Feature: number of queues [4].
pub const NUMBER_OF_QUEUES: u32 = 0x07;
/// Identify: the namespace, the controller [4].
pub const NAMESPACE: u32 = 0;
pub const CONTROLLER: u32 = 1;

/// I/O commands [5].
pub const WRITE: u8 = 0x01;
pub const READ: u8 = 0x02;

/// Bytes of a memory page and of what Identify returns.
pub const PAGE: usize = 4096;
