//! The device as a driver sees it, through its registers and its queues.

use crate::spec::{Command, Completion, DOORBELLS, Status};
use crate::{Nvme, NvmeConfig};
use cofferdam_seam::{Bar, Budget, Progress, Purpose, Time, Width};
use vdevice_pci::testbed::Testbed;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

mod admin;
mod events;
mod features;
mod hostile;
mod identify;
mod io;
mod queues;
mod registers;

/// Admin queues, of eight entries each.
const ADMIN_SQ: u64 = 0x1000;
const ADMIN_CQ: u64 = 0x2000;
/// I/O queue pair 1, of [`ENTRIES`] entries each.
const SQ: u64 = 0x3000;
const CQ: u64 = 0x4000;
const ENTRIES: u32 = 8;
/// A PRP list.
const LIST: u64 = 0x5000;
/// Data: the rest of memory, as far as further queue pairs leave it.
const DATA: u64 = 0x6000;

/// Longer than a command takes.
const SOON: u64 = 21_000;

mod register {
    pub const MASK_SET: u32 = 0x0c;
    pub const MASK_CLEAR: u32 = 0x10;
    pub const CC: u32 = 0x14;
    pub const CSTS: u32 = 0x1c;
    pub const AQA: u32 = 0x24;
    pub const ASQ: u32 = 0x28;
    pub const ACQ: u32 = 0x30;
}

/// CC: entries of 64 and 16 bytes, enabled.
const ENABLED: u64 = 0x0046_0001;

/// A host's side of a queue pair.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    tail: u32,
    head: u32,
    phase: bool,
}

/// A driver that does exactly what a test says.
struct Driver {
    testbed: Testbed,
    pairs: [Pair; 5],
    stride: u32,
}

impl Driver {
    fn with(config: NvmeConfig) -> Self {
        Self {
            testbed: Testbed::new(Box::new(Nvme::new(config))),
            pairs: [Pair::default(); 5],
            stride: 4 << config.doorbell_stride,
        }
    }

    /// A controller that nobody has touched: 64 blocks, one I/O command in 20 us.
    fn before_probe() -> Self {
        Self::with(NvmeConfig {
            blocks: 64,
            seed: 7,
            ..NvmeConfig::default()
        })
    }

    /// An enabled controller.
    fn enabled() -> Self {
        let mut driver = Self::before_probe();
        driver.enable();
        driver
    }

    /// A controller ready for I/O on queue pair 1.
    fn ready() -> Self {
        let mut driver = Self::enabled();
        driver.create_pair(1);
        driver
    }

    /// The initialisation of 7.6.1.
    fn enable(&mut self) {
        self.pairs = [Pair::default(); 5];
        self.testbed.bus.bytes(ADMIN_CQ, 0x1000).fill(0);
        self.testbed.bus.bytes(CQ, 0x1000).fill(0);
        self.set(register::AQA, 0x0007_0007);
        self.testbed
            .write(Bar::ZERO, register::ASQ, Width::Eight, ADMIN_SQ);
        self.testbed
            .write(Bar::ZERO, register::ACQ, Width::Eight, ADMIN_CQ);
        self.set(register::CC, ENABLED);
        assert_eq!(self.get(register::CSTS), 1);
    }

    fn create_pair(&mut self, id: u16) {
        self.pairs[usize::from(id)] = Pair::default();
        let (sq, cq) = Self::bases(id);
        let created = self.create_cq(id, ENTRIES, cq, 0b11, id);
        assert_eq!(created, Status::SUCCESS);
        let created = self.create_sq(id, ENTRIES, sq, 1, id);
        assert_eq!(created, Status::SUCCESS);
    }

    fn create_cq(&mut self, id: u16, size: u32, at: u64, flags: u16, vector: u16) -> Status {
        let mut command = command(0x05, 0);
        command.prp1.set(at);
        command.dwords[0].set(u32::from(id) | (size - 1) << 16);
        command.dwords[1].set(u32::from(flags) | u32::from(vector) << 16);
        self.admin(command).0
    }

    fn create_sq(&mut self, id: u16, size: u32, at: u64, flags: u16, cq: u16) -> Status {
        let mut command = command(0x01, 0);
        command.prp1.set(at);
        command.dwords[0].set(u32::from(id) | (size - 1) << 16);
        command.dwords[1].set(u32::from(flags) | u32::from(cq) << 16);
        self.admin(command).0
    }

    fn get(&mut self, offset: u32) -> u64 {
        self.testbed.value(Bar::ZERO, offset, Width::Four)
    }

    fn set(&mut self, offset: u32, value: u64) {
        self.testbed.write(Bar::ZERO, offset, Width::Four, value);
    }

    fn is_fatal(&mut self) -> bool {
        self.get(register::CSTS) & 2 != 0
    }

    fn ring_sq(&mut self, queue: u16, tail: u32) {
        let offset = DOORBELLS + 2 * u32::from(queue) * self.stride;
        self.set(offset, tail.into());
    }

    fn ring_cq(&mut self, queue: u16, head: u32) {
        let offset = DOORBELLS + (2 * u32::from(queue) + 1) * self.stride;
        self.set(offset, head.into());
    }

    /// Where a queue pair lies.
    fn bases(queue: u16) -> (u64, u64) {
        match queue {
            0 => (ADMIN_SQ, ADMIN_CQ),
            1 => (SQ, CQ),
            id => {
                let at = 0xa000 + 0x2000 * (u64::from(id) - 2);
                (at, at + 0x1000)
            }
        }
    }

    /// Puts a command into a queue's next slot, without a doorbell.
    fn place(&mut self, queue: u16, command: Command) {
        let pair = &mut self.pairs[usize::from(queue)];
        let at = Self::bases(queue).0 + 64 * u64::from(pair.tail);
        pair.tail = (pair.tail + 1) % ENTRIES;
        let bytes = command.as_bytes();
        self.testbed.bus.bytes(at, 64).copy_from_slice(bytes);
    }

    /// Submits a command, and does not wait.
    fn submit(&mut self, queue: u16, command: Command) {
        self.place(queue, command);
        self.ring_sq(queue, self.pairs[usize::from(queue)].tail);
    }

    /// The entry the device posts next, if it is there; not consumed.
    fn peek(&mut self, queue: u16) -> Option<Completion> {
        let pair = self.pairs[usize::from(queue)];
        let at = Self::bases(queue).1 + 16 * u64::from(pair.head);
        let bytes = self.testbed.bus.bytes(at, 16);
        let entry = Completion::read_from_bytes(bytes).unwrap();
        (entry.status.get() & 1 == u16::from(!pair.phase)).then_some(entry)
    }

    /// Consumes the next entry, without a doorbell.
    fn take(&mut self, queue: u16) -> Option<Completion> {
        let entry = self.peek(queue)?;
        let pair = &mut self.pairs[usize::from(queue)];
        pair.head = (pair.head + 1) % ENTRIES;
        pair.phase ^= pair.head == 0;
        Some(entry)
    }

    /// Consumes the next entry and rings the doorbell.
    fn reap(&mut self, queue: u16) -> Option<Completion> {
        let entry = self.take(queue)?;
        self.ring_cq(queue, self.pairs[usize::from(queue)].head);
        Some(entry)
    }

    /// Submits a command and consumes its completion: status, and dword 0.
    fn run(&mut self, queue: u16, command: Command) -> (Status, u32) {
        self.submit(queue, command);
        self.testbed.settle();
        let entry = self.reap(queue).expect("a completion");
        assert_eq!(entry.id, command.id);
        (Status::of(entry.status.get()), entry.result.get())
    }

    fn admin(&mut self, command: Command) -> (Status, u32) {
        self.run(0, command)
    }

    fn io(&mut self, command: Command) -> Status {
        self.run(1, command).0
    }

    fn data(&mut self, length: usize) -> &mut [u8] {
        self.testbed.bus.bytes(DATA, length)
    }

    /// Fills blocks by Write commands of one block each.
    fn fill(&mut self, block: u64, fill: u8) {
        self.data(512).fill(fill);
        assert_eq!(self.io(transfer(WRITE, block, 1)), Status::SUCCESS);
    }

    fn block(&mut self, block: u64) -> Vec<u8> {
        self.data(512).fill(0xcc);
        assert_eq!(self.io(transfer(READ, block, 1)), Status::SUCCESS);
        self.data(512).to_vec()
    }

    fn purposes(&self) -> Vec<(Purpose, bool, usize)> {
        let requests = self.testbed.bus.requests.iter();
        requests.map(|r| (r.why, r.write, r.len)).collect()
    }

    fn step(&mut self, budget: u32) -> Progress {
        let testbed = &mut self.testbed;
        testbed.function.step(Budget(budget), &mut testbed.bus)
    }
}

const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const COMPARE: u8 = 0x05;

/// A command with its data at [`DATA`], for that namespace, with an identifier of its own kind.
fn command(opcode: u8, namespace: u32) -> Command {
    let mut command = Command::new_zeroed();
    command.opcode = opcode;
    command.id.set(0x5500 | u16::from(opcode));
    command.namespace.set(namespace);
    command.prp1.set(DATA);
    command
}

/// A command that moves `count` blocks.
fn transfer(opcode: u8, block: u64, count: u32) -> Command {
    let mut command = command(opcode, 1);
    let [a, b, c, d, e, f, g, h] = block.to_le_bytes();
    command.dwords[0].set(u32::from_le_bytes([a, b, c, d]));
    command.dwords[1].set(u32::from_le_bytes([e, f, g, h]));
    command.dwords[2].set(count - 1);
    command
}
