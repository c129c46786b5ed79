//! What the model of an NVM Express controller costs: reads of 4 KiB at queue depth 32, and reads of
//! 128 KiB next to a copy of the same bytes; the bare model, and the model inside its PCI function.

use cofferdam_seam::{
    Access, Bar, Budget, Bus, BusPort, Device, DmaFault, Iova, Pending, Progress, Purpose,
    RequesterId, Time, Width,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;
use vdevice_nvme::spec::{Command, Completion, DOORBELLS};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_pci::PciFunction;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes of memory: queues and lists in the first pages, data from [`DATA`] on.
const MEMORY: usize = 2 << 20;
const ADMIN_SQ: usize = 0x1000;
const ADMIN_CQ: usize = 0x2000;
const SQ: usize = 0x3000;
const CQ: usize = 0x5000;
const LIST: usize = 0x6000;
const DATA: usize = 0x10_0000;
/// Entries of the I/O queues.
const ENTRIES: u32 = 64;
/// Blocks of 512 bytes on the medium.
const BLOCKS: u64 = 2048;
/// Bytes in the large reads.
const LARGE: usize = 128 << 10;

/// Opcodes.
const WRITE: u8 = 1;
const READ: u8 = 2;
/// What is on the medium.
const FILL: u8 = 0x5a;

/// Memory and nothing else.
struct Ram(Vec<u8>);

impl Ram {
    fn range(at: Iova, len: usize) -> Result<Range<usize>, DmaFault> {
        let start = usize::try_from(at.0).map_err(|_| DmaFault::Unbacked)?;
        let end = start.checked_add(len).filter(|&end| end <= MEMORY);
        Ok(start..end.ok_or(DmaFault::Unbacked)?)
    }
}

impl Bus for Ram {
    fn dma_read(
        &mut self,
        _: RequesterId,
        at: Iova,
        into: &mut [u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        into.copy_from_slice(&self.0[Self::range(at, into.len())?]);
        Ok(())
    }
    fn dma_write(
        &mut self,
        _: RequesterId,
        at: Iova,
        from: &[u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        self.0[Self::range(at, from.len())?].copy_from_slice(from);
        Ok(())
    }
    fn now(&self) -> Time {
        Time::ZERO
    }
    fn wake_at(&mut self, _: RequesterId, _: Time) {}
}

/// How the model is reached.
enum Plug {
    Bare(Box<Nvme>, Pending),
    Function(Box<PciFunction>),
}

impl Plug {
    fn bare() -> Self {
        Self::Bare(Box::new(model()), Pending::default())
    }

    fn function(ram: &mut Ram) -> Self {
        let mut function = PciFunction::new(Box::new(model()), RequesterId(0));
        // Memory decoding and bus mastering.
        function.config_write(4, Width::Two, 6, ram);
        Self::Function(Box::new(function))
    }

    fn write(&mut self, offset: u32, width: Width, value: u64, ram: &mut Ram) {
        let at = Access::new(Bar::ZERO, offset, width, 0x4000).expect("a register");
        match self {
            Self::Bare(nvme, pending) => {
                nvme.write(at, value, &mut BusPort::new(ram, RequesterId(0), pending));
            }
            Self::Function(function) => function.write(at, value, ram),
        }
    }

    fn step(&mut self, ram: &mut Ram) -> Progress {
        match self {
            Self::Bare(nvme, pending) => {
                let mut port = BusPort::new(ram, RequesterId(0), pending);
                nvme.step(Budget(256), &mut port)
            }
            Self::Function(function) => function.step(Budget(256), ram),
        }
    }
}

/// A controller that takes no device time.
fn model() -> Nvme {
    Nvme::new(NvmeConfig {
        blocks: BLOCKS,
        latency: Duration::ZERO,
        ..NvmeConfig::default()
    })
}

/// The least of a driver: one I/O queue pair, polled.
struct Host {
    plug: Plug,
    ram: Ram,
    tail: u32,
    head: u32,
    phase: u16,
    block: u64,
}

impl Host {
    fn new(in_function: bool) -> Self {
        let mut ram = Ram(vec![0; MEMORY]);
        let plug = if in_function {
            Plug::function(&mut ram)
        } else {
            Plug::bare()
        };
        let mut host = Self {
            plug,
            ram,
            tail: 0,
            head: 0,
            phase: 1,
            block: 0,
        };
        host.set(0x24, Width::Four, 0x0007_0007);
        host.set(0x28, Width::Eight, ADMIN_SQ as u64);
        host.set(0x30, Width::Eight, ADMIN_CQ as u64);
        host.set(0x14, Width::Four, 0x0046_0001);
        // Create completion queue, then submission queue.
        for (slot, opcode, at, flags) in [(0, 5, CQ, 1), (1, 1, SQ, 1 << 16 | 1)] {
            let mut create = Command::new_zeroed();
            create.opcode = opcode;
            create.prp1.set(at as u64);
            create.dwords[0].set((ENTRIES - 1) << 16 | 1);
            create.dwords[1].set(flags);
            host.put(ADMIN_SQ + 64 * slot, create);
        }
        host.set(DOORBELLS, Width::Four, 2);
        while host.plug.step(&mut host.ram) == Progress::More {}
        for (index, page) in (DATA + 0x1000..DATA + LARGE).step_by(0x1000).enumerate() {
            let at = LIST + 8 * index;
            host.ram.0[at..at + 8].copy_from_slice(&(page as u64).to_le_bytes());
        }
        // Zeros that nobody wrote are all one page to the operating system, and cheap to read.
        host.ram.0[DATA..].fill(FILL);
        for _ in 0..BLOCKS * 512 / LARGE as u64 {
            host.transfer(WRITE, 1, LARGE);
        }
        host
    }

    fn set(&mut self, offset: u32, width: Width, value: u64) {
        self.plug.write(offset, width, value, &mut self.ram);
    }

    fn put(&mut self, at: usize, command: Command) {
        self.ram.0[at..at + 64].copy_from_slice(command.as_bytes());
    }

    /// Moves `depth` times `bytes`, one after the other on the medium: doorbell, step, reap.
    fn transfer(&mut self, opcode: u8, depth: u32, bytes: usize) {
        let blocks = (bytes / 512) as u64;
        for slot in 0..depth {
            let mut command = Command::new_zeroed();
            command.opcode = opcode;
            command.namespace.set(1);
            let buffer = DATA + bytes * slot as usize;
            command.prp1.set(buffer as u64);
            command.prp2.set(LIST as u64);
            let [low, high] = [self.block, blocks - 1].map(|value| value.to_le_bytes());
            for (dword, from) in [(0, low), (2, high)] {
                let [a, b, c, d, ..] = from;
                command.dwords[dword].set(u32::from_le_bytes([a, b, c, d]));
            }
            self.block = (self.block + blocks) % BLOCKS;
            self.put(SQ + 64 * self.tail as usize, command);
            self.tail = (self.tail + 1) % ENTRIES;
        }
        self.set(DOORBELLS + 8, Width::Four, self.tail.into());
        while self.plug.step(&mut self.ram) == Progress::More {}
        for _ in 0..depth {
            let at = CQ + 16 * self.head as usize;
            let entry = Completion::read_from_bytes(&self.ram.0[at..at + 16]).expect("16 bytes");
            assert_eq!(entry.status.get(), self.phase, "every command succeeds");
            self.head = (self.head + 1) % ENTRIES;
            self.phase ^= u16::from(self.head == 0);
        }
        self.set(DOORBELLS + 12, Width::Four, self.head.into());
    }
}

fn nvme(criterion: &mut Criterion) {
    let plugs = [("bare model", false), ("PCI function", true)];

    let mut group = criterion.benchmark_group("nvme/read 4 KiB, depth 32");
    group.throughput(Throughput::Elements(32));
    for (name, in_function) in plugs {
        let mut host = Host::new(in_function);
        group.bench_function(name, |bencher| {
            bencher.iter(|| host.transfer(READ, 32, 4096))
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("nvme/read 128 KiB");
    group.throughput(Throughput::Bytes(LARGE as u64));
    for (name, in_function) in plugs {
        let mut host = Host::new(in_function);
        group.bench_function(name, |bencher| {
            bencher.iter(|| host.transfer(READ, 1, LARGE))
        });
    }
    group.bench_function("memcpy", |bencher| {
        let medium = vec![FILL; 1 << 20];
        let mut memory = vec![FILL; MEMORY];
        let mut at = 0;
        bencher.iter(|| {
            let from = black_box(&medium[at..at + LARGE]);
            memory[DATA..DATA + LARGE].copy_from_slice(from);
            at = (at + LARGE) % medium.len();
            black_box(&mut memory);
        });
    });
    group.finish();
}

criterion_group!(benches, nvme);
criterion_main!(benches);
