//! The device behind the registers.

use crate::spec::{self, Register, dma, interrupt, status};
use cofferdam_seam::{
    Access, Bar, BarSpec, Budget, BusPort, Capability, Completion, Device, Iova, PciIdentity,
    Progress, Purpose, Reset, Time, Vector,
};
use core::ops::Range;
use core::time::Duration;

static IDENTITY: PciIdentity = PciIdentity {
    vendor: spec::VENDOR,
    device: spec::DEVICE,
    revision: 0x10,
    class: [0x00, 0xff, 0x00],
    // QEMU's default.
    subsystem: [0x1af4, 0x1100],
    intx: true,
    bars: &[BarSpec {
        bar: Bar::ZERO,
        size: spec::BAR_BYTES,
        wide: false,
        prefetchable: false,
    }],
    capabilities: &[
        Capability::Msi { log2_vectors: 0 },
        Capability::PcieEndpoint { flr: true },
    ],
};

/// The only vector.
const VECTOR: Vector = Vector(0);

/// 34! is divisible by 2^32, and so is the factorial of every larger number.
const VANISHES: u32 = 34;

/// How long work takes, in device time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EduTiming {
    /// A factorial.
    pub factorial: Duration,
    /// A transfer, whatever its length.
    pub dma: Duration,
}

impl Default for EduTiming {
    /// 10 us and 20 us.
    fn default() -> Self {
        Self {
            factorial: Duration::from_micros(10),
            dma: Duration::from_micros(20),
        }
    }
}

/// The edu device.
pub struct Edu {
    timing: EduTiming,
    registers: Registers,
    buffer: [u8; spec::BUFFER_BYTES],
}

/// All that a reset clears, the buffer apart.
#[derive(Default)]
struct Registers {
    liveness: u32,
    factorial: u32,
    interrupt_when_computed: bool,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    /// When the factorial is done. Its argument stays in `factorial` until then.
    computed: Option<Time>,
    /// When the transfer moves its bytes, all at once. No register of it changes before then.
    moved: Option<Time>,
}

impl Edu {
    /// A device after power-on.
    pub fn new(timing: EduTiming) -> Self {
        Self {
            timing,
            registers: Registers::default(),
            buffer: [0; spec::BUFFER_BYTES],
        }
    }

    fn set_factorial(&mut self, value: u32, bus: &mut BusPort<'_>) {
        if self.registers.computed.is_none() {
            let due = bus.now() + self.timing.factorial;
            self.registers.factorial = value;
            self.registers.computed = Some(due);
            bus.wake_at(due);
        }
    }

    fn set_command(&mut self, value: u64, bus: &mut BusPort<'_>) {
        if value & dma::START != 0 && self.registers.moved.is_none() {
            let due = bus.now() + self.timing.dma;
            self.registers.command = value;
            self.registers.moved = Some(due);
            bus.wake_at(due);
        }
    }

    /// The transfer's registers are the device's while a transfer is under way.
    fn set_transfer(&mut self, field: fn(&mut Registers) -> &mut u64, value: u64) {
        if self.registers.moved.is_none() {
            *field(&mut self.registers) = value;
        }
    }

    fn finish_factorial(&mut self, bus: &mut BusPort<'_>) {
        self.registers.computed = None;
        let last = self.registers.factorial.min(VANISHES);
        self.registers.factorial = (1..=last).fold(1, u32::wrapping_mul);
        if self.registers.interrupt_when_computed {
            self.raise(interrupt::FACTORIAL, bus);
        }
    }

    /// Moves the bytes. A transfer that leaves the buffer is not carried out, and one that the bus
    /// refuses leaves the buffer as it was; both end like any other, for want of a way to tell.
    fn finish_transfer(&mut self, bus: &mut BusPort<'_>) {
        self.registers.moved = None;
        let registers = &self.registers;
        if registers.command & dma::TO_MEMORY == 0 {
            if let Some(range) = buffer_range(registers.destination, registers.count) {
                let mut arriving = [0; spec::BUFFER_BYTES];
                let arriving = &mut arriving[..range.len()];
                let from = Iova(registers.source);
                if bus.dma_read(from, arriving, Purpose::Payload).is_ok() {
                    self.buffer[range].copy_from_slice(arriving);
                }
            }
        } else if let Some(range) = buffer_range(registers.source, registers.count) {
            let to = Iova(registers.destination);
            // A posted write has nobody to tell when it is refused.
            let _ = bus.dma_write(to, &self.buffer[range], Purpose::Payload);
        }
        self.registers.command &= !dma::START;
        if self.registers.command & dma::INTERRUPT != 0 {
            self.raise(interrupt::DMA, bus);
        }
    }

    /// Sets interrupt bits, and announces them by message and by pin; the PCI layer lets one of
    /// them through.
    fn raise(&mut self, bits: u32, bus: &mut BusPort<'_>) {
        self.registers.interrupts |= bits;
        if self.registers.interrupts != 0 {
            bus.raise(VECTOR);
            bus.set_intx(true);
        }
    }

    fn acknowledge(&mut self, bits: u32, bus: &mut BusPort<'_>) {
        self.registers.interrupts &= !bits;
        if self.registers.interrupts == 0 {
            bus.set_intx(false);
        }
    }

    /// Finishes one piece of work that is due, if any is.
    fn finish_one(&mut self, bus: &mut BusPort<'_>) -> bool {
        let now = bus.now();
        let is_due = |due: Option<Time>| due.is_some_and(|at| at <= now);
        if is_due(self.registers.computed) {
            self.finish_factorial(bus);
        } else if is_due(self.registers.moved) {
            self.finish_transfer(bus);
        } else {
            return false;
        }
        true
    }
}

/// Where `count` bytes at a device address lie in the buffer; none if any lies outside, or if there
/// are none to move.
fn buffer_range(address: u64, count: u64) -> Option<Range<usize>> {
    let start = usize::try_from(address.checked_sub(spec::BUFFER)?).ok()?;
    let end = start.checked_add(usize::try_from(count).ok()?)?;
    (count > 0 && end <= spec::BUFFER_BYTES).then_some(start..end)
}

impl Device for Edu {
    fn describe(&self) -> &PciIdentity {
        &IDENTITY
    }

    #[inline]
    fn read(&mut self, at: Access, _bus: &mut BusPort<'_>) -> Completion {
        let registers = &self.registers;
        let value = match Register::at(at.offset(), at.width()) {
            Some(Register::Identification) => spec::IDENTIFICATION.into(),
            Some(Register::Liveness) => registers.liveness.into(),
            Some(Register::Factorial) => registers.factorial.into(),
            Some(Register::Status) => {
                let computing = u32::from(registers.computed.is_some()) * status::COMPUTING;
                let interrupt = u32::from(registers.interrupt_when_computed) * status::INTERRUPT;
                (computing | interrupt).into()
            }
            Some(Register::InterruptStatus) => registers.interrupts.into(),
            Some(Register::DmaSource) => registers.source,
            Some(Register::DmaDestination) => registers.destination,
            Some(Register::DmaCount) => registers.count,
            Some(Register::DmaCommand) => registers.command,
            // QEMU's edu answers all ones where nothing can be read.
            Some(Register::InterruptRaise | Register::InterruptAcknowledge) | None => u64::MAX,
        };
        Completion::Data(value & at.width().all_ones())
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        let [a, b, c, d, ..] = value.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        match Register::at(at.offset(), at.width()) {
            Some(Register::Liveness) => self.registers.liveness = !low,
            Some(Register::Factorial) => self.set_factorial(low, bus),
            Some(Register::Status) => {
                self.registers.interrupt_when_computed = low & status::INTERRUPT != 0;
            }
            Some(Register::InterruptRaise) => self.raise(low, bus),
            Some(Register::InterruptAcknowledge) => self.acknowledge(low, bus),
            Some(Register::DmaSource) => self.set_transfer(|to| &mut to.source, value),
            Some(Register::DmaDestination) => self.set_transfer(|to| &mut to.destination, value),
            Some(Register::DmaCount) => self.set_transfer(|to| &mut to.count, value),
            Some(Register::DmaCommand) => self.set_command(value, bus),
            Some(Register::Identification | Register::InterruptStatus) | None => {}
        }
    }

    /// A unit of work is a factorial or a transfer.
    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        for _ in 0..budget.0 {
            if !self.finish_one(bus) {
                break;
            }
        }
        let waiting = [self.registers.computed, self.registers.moved];
        match waiting.into_iter().flatten().min() {
            Some(due) if due <= bus.now() => Progress::More,
            Some(due) => {
                bus.wake_at(due);
                Progress::Idle
            }
            None => Progress::Idle,
        }
    }

    fn reset(&mut self, _kind: Reset) {
        self.registers = Registers::default();
        self.buffer.fill(0);
    }
}
