//! What the micro-VM and the payload inside it agree on: where everything is in the guest's address
//! space, and the calls over the call page.
//!
//! Guest-virtual addresses are guest-physical ones. Numbers in the call page are little-endian words of
//! 64 bits; the page is ordinary guest memory, so each side takes every word of it for the other's
//! invention.

#![no_std]
#![forbid(unsafe_code)]

/// Bytes of the guest's private memory, from address 0 on.
pub const RAM: u64 = 8 << 20;
/// Tables and stubs of privilege level 0 lie below this; the driver cannot touch them.
pub const USER: u64 = 0x20_0000;
/// The level 0 stack's end.
pub const SYSTEM_STACK: u64 = 0x2_0000;
/// The driver's stack; the page below it belongs to nobody.
pub const STACK: core::ops::Range<u64> = 0x60_0000..0x60_8000;
/// The driver's heap.
pub const HEAP: core::ops::Range<u64> = 0x68_0000..0x69_0000;
/// The stack of a payload for fuzzing, which has a symbol `payload_arena`: as deep as where drivers are
/// fuzzed otherwise. The page below it belongs to nobody.
pub const DEEP_STACK: core::ops::Range<u64> = 0x60_0000..0x64_0000;
/// The heap of such a payload: a driver there may take much memory, and a reset leaves what it wrote.
pub const ARENA: core::ops::Range<u64> = 0x40_0000..0x5e_0000;
/// The call page and the data behind it.
pub const CALL: u64 = 0x70_0000;
/// Where the machine's physical memory begins: its frames are at their physical address plus this, as
/// far as the guest was given them.
pub const MACHINE: u64 = 0x8000_0000;
/// Bytes of the window onto the machine's memory.
pub const MACHINE_LEN: u64 = 0x4000_0000;
/// A four-byte store of a [`Service`] here makes the call that the call page describes.
pub const HYPERCALL: u64 = 0xd000_0000;
/// BAR `n` is at this address plus `n` times [`BAR_WINDOW`].
pub const BARS: u64 = 0xd100_0000;
/// Bytes of address space a BAR has; what a device has beyond it cannot be reached.
pub const BAR_WINDOW: u64 = 0x100_0000;
/// The interrupt vector of device vector 0; the others follow.
pub const VECTORS: u8 = 0x30;

/// Byte offsets in the call page.
pub mod page {
    /// Eight words from the payload: a service's arguments, or a finished call's result.
    pub const FROM_GUEST: u64 = 0x00;
    /// Eight words from the VMM: a service's result, or the next call.
    pub const TO_GUEST: u64 = 0x40;
    /// Interrupts the guest has taken.
    pub const TAKEN: u64 = 0x80;
    /// The device's time, as of the last entry, if the VMM says it: else 0, and it has to be asked.
    pub const CLOCK: u64 = 0x88;
    /// Five words of an exception: its number, error code, instruction, CR2, and stack pointer.
    pub const FAULT: u64 = 0xc0;
    /// Bytes of text: a panic's message, or an error's reason.
    pub const TEXT_LEN: u64 = 0xf8;
    /// The text.
    pub const TEXT: u64 = 0x100;
    /// The longest text.
    pub const TEXT_MAX: u64 = 0x300;
    /// A request's data.
    pub const DATA: u64 = 0x1000;
    /// The longest data.
    pub const DATA_MAX: u64 = 0x1_0000;
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $($(#[$of:meta])* $code:ident = $value:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $($(#[$of])* $code = $value),+ }

        impl $name {
            /// The one of that code.
            pub const fn of(code: u64) -> Option<Self> {
                match code { $($value => Some(Self::$code),)+ _ => None }
            }
        }
    };
}

codes! {
    /// What the payload asks of the VMM. Results: word 0 is 0, or an error of [`refusal`].
    Service:
    /// The call that was asked for is finished; what is next? (result) -> (call)
    Next = 0,
    /// (BAR) -> (bytes)
    MapBar = 1,
    /// (offset, width) -> (value)
    ConfigRead = 2,
    /// (offset, width, value)
    ConfigWrite = 3,
    /// (on)
    BusMaster = 4,
    /// (wanted) -> (kind: 0 MSI-X, 1 MSI, 2 INTx; count)
    EnableInterrupts = 5,
    /// (bytes) -> (name, guest address)
    AllocDma = 6,
    /// (name)
    FreeDma = 7,
    /// (name, start, end, way: 1 to the device, 2 from it, 3 both) -> (IOVA, mapping)
    Map = 8,
    /// (mapping)
    Unmap = 9,
    /// ()
    Relax = 10,
    /// () -> (nanoseconds)
    Now = 11,
    /// (vectors, deadline) -> (raised vectors, none if the deadline passed): halts until then; the raised
    /// vectors' interrupts are injected
    Wait = 12,
    /// A panic, whose message is the page's text; never returns
    Panic = 13,
    /// An exception, described in the page; never returns
    Fault = 14,
    /// (address, bytes, way) -> (IOVA): the driver lends the device memory of its own, of which the VMM
    /// makes a copy
    Share = 15,
    /// (IOVA, bytes, address or 0) -> (whether it was lent): takes that back, with what the device wrote
    /// if there is an address
    Unshare = 16,
    /// (pages, way) -> (IOVA, guest address): DMA memory that is mapped for as long as it lives
    AllocPages = 17,
    /// (IOVA) -> (whether they were held)
    FreePages = 18,
    /// (address, bytes) -> (guest address): where registers are that firmware placed there
    Registers = 19,
    /// (address, bytes): the driver freed memory that it had lent
    Freed = 20,
    /// (address, bytes) -> (whether the device can reach any of it)
    IsLent = 21,
    /// The driver's host cannot do what the driver needs, for the reason that is the page's text; never
    /// returns
    GiveUp = 22,
    /// A loop that goes on without looking at the world has had some turns
    Turn = 23,
    /// A tenant's, as all that follow: it rings its server's doorbell. ()
    Ring = 24,
    /// (what for, of [`bell`]; deadline) -> (whether it rang)
    Await = 25,
    /// (six words of counters)
    Publish = 26,
    /// (what of, of [`complaint`])
    Complain = 27,
    /// It made all its requests. ()
    Finished = 28,
    /// () -> (seed, requests)
    NextTrial = 29,
    /// (offset) -> (value)
    SiblingRead = 30,
    /// (offset, value)
    SiblingWrite = 31,
    /// (the machine's physical address) -> (whether it was taken)
    GiveBack = 32,
}

codes! {
    /// What the VMM asks of the payload, as a [`Service::Next`] answers it. Results: word 0 is 0, or an
    /// error of [`failure`].
    Call:
    /// (driver of [`Driver`]) -> (sectors; for a device that computes, the longest round trip)
    Probe = 1,
    /// (sector, bytes, deadline): the data is read
    Read = 2,
    /// (sector, bytes, deadline): the data is written
    Write = 3,
    /// (n, deadline) -> (n!)
    Factorial = 4,
    /// (bytes, deadline): the data goes to the device and comes back
    RoundTrip = 5,
    /// Drops the driver.
    Remove = 6,
    /// (address, byte, bytes): the driver's CPU stores there; sabotage
    Store = 7,
    /// The driver panics; sabotage
    Crash = 8,
    /// The driver loops without end; sabotage
    Spin = 9,
    /// (frames): the driver calls itself until its stack is used up; sabotage
    Overflow = 10,
    /// The driver allocates until its heap is used up; sabotage
    Exhaust = 11,
    /// Nothing
    Nop = 12,
    /// (address, bytes): the driver's CPU stores the data there; sabotage
    Plant = 13,
    /// (aligned, count): locked increments, across two cache lines unless aligned; sabotage
    Lock = 14,
    /// (bug, build): probes a driver with a planted bug, or its fixed twin
    ProbePlanted = 15,
    /// (call of [`Planted`], number, bytes, room, deadline) -> (bytes of the answer): asks such a driver;
    /// the data is what it is given, and then its answer
    AskPlanted = 16,
    /// (operation, sector, bytes) -> (a length): an operation of a virtio disk, by its place in the list
    /// that the workload has; the data is what is written, or read
    Operate = 17,
    /// (number, properties of [`tenant`], seed, requests, the machine's physical address of its ring, from
    /// which request on it gives a page back): a tenant lives here; never returns
    Tenant = 18,
}

codes! {
    /// What planted drivers are asked.
    Planted:
    /// (n)
    Factorial = 0,
    /// Data out, and back
    RoundTrip = 1,
    /// (sector)
    Read = 2,
    /// (sector)
    Write = 3,
    /// Who are you
    Identify = 4,
}

codes! {
    /// The drivers in the payload.
    Driver:
    /// Ours, of QEMU's edu
    Edu = 0,
    /// Ours, of NVM Express
    Nvme = 1,
    /// virtio-drivers, by its own PCI transport
    VirtioBlk = 2,
    /// The same for fuzzing, where firmware placed the registers: all its calls
    VirtioBlkPci = 3,
    /// The same over a transport of the workload's
    VirtioBlkMmio = 4,
}

/// Properties of a tenant, by bit.
pub mod tenant {
    /// Its server has a disk.
    pub const BLOCK: u64 = 1 << 0;
    /// Its first request is no part of a trial.
    pub const WARM: u64 = 1 << 1;
    /// It has a device of its own.
    pub const SIBLING: u64 = 1 << 2;
    /// It gives a page back.
    pub const GIVES_BACK: u64 = 1 << 3;
}

/// What a tenant waits for beside a deadline.
pub mod bell {
    /// Nothing.
    pub const NONE: u64 = 0;
    /// Its server.
    pub const SERVER: u64 = 1;
    /// The next trial.
    pub const NEXT: u64 = 2;
}

/// What a tenant complains of.
pub mod complaint {
    /// An error.
    pub const FAILED: u64 = 0;
    /// Wrong data.
    pub const WRONG: u64 = 1;
    /// Its own device.
    pub const DEVICE: u64 = 2;
}

/// Errors of [`Service`]s: the seam's `HostError`, its payload in word 1 and on.
pub mod refusal {
    /// Nothing failed.
    pub const NONE: u64 = 0;
    /// No such BAR (BAR).
    pub const NO_SUCH_BAR: u64 = 1;
    /// Out of memory (bytes).
    pub const OUT_OF_MEMORY: u64 = 2;
    /// Out of the region (start, end, length).
    pub const OUT_OF_REGION: u64 = 3;
    /// Refused.
    pub const REFUSED: u64 = 4;
    /// No vectors (wanted).
    pub const NO_VECTORS: u64 = 5;
    /// The machine stopped.
    pub const STOPPED: u64 = 6;
    /// Infrastructure (code).
    pub const INFRASTRUCTURE: u64 = 7;
}

/// Errors of [`Call`]s: the seam's `DriverError`. Those with a reason leave it as the page's text; a
/// host's error is the refusal plus [`failure::HOST`].
pub mod failure {
    /// Timed out (reason).
    pub const TIMED_OUT: u64 = 1;
    /// Unsupported (reason).
    pub const UNSUPPORTED: u64 = 2;
    /// Protocol (reason).
    pub const PROTOCOL: u64 = 3;
    /// I/O.
    pub const IO: u64 = 4;
    /// Bad request (reason).
    pub const BAD_REQUEST: u64 = 5;
    /// Added to a refusal.
    pub const HOST: u64 = 0x100;
}
