//! A bus with a little memory, for the unit tests of device models.
//!
//! It has no IOMMU, no fabric and one device; addresses are physical. It trusts the test that
//! drives it and panics where the test is wrong.

use crate::{PciFunction, spec};
use cofferdam_seam::{
    Access, Bar, Budget, Bus, Completion, Device, DmaFault, Iova, Progress, Purpose, RequesterId,
    Time, Width,
};
use core::ops::Range;

/// Bytes of memory, from address zero.
pub const MEMORY: usize = 0x1_0000;

/// Writes from here on, for 1 MiB, are interrupt messages.
pub const MESSAGES: u64 = 0xfee0_0000;

/// Whom the device speaks as.
pub const REQUESTER: RequesterId = RequesterId::new(1, 0, 0);

/// One DMA request, whether it succeeded or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who sent it.
    pub by: RequesterId,
    /// Where it went.
    pub at: Iova,
    /// Bytes.
    pub len: usize,
    /// Whether it was a write.
    pub write: bool,
    /// What the model said it was for.
    pub why: Purpose,
}

/// Memory, messages, a clock, and a log of every request.
pub struct TestBus {
    /// Memory from address zero.
    pub memory: Vec<u8>,
    /// Ranges that are refused, as an IOMMU would.
    pub refused: Vec<Range<u64>>,
    /// Every DMA request, messages apart.
    pub requests: Vec<Request>,
    /// Every interrupt message: address and data.
    pub messages: Vec<(Iova, u32)>,
    /// Device time.
    pub now: Time,
    /// When the device wants to be stepped, unordered.
    pub wakes: Vec<Time>,
}

impl TestBus {
    /// Zeroed memory at time zero.
    pub fn new() -> Self {
        Self {
            memory: vec![0; MEMORY],
            refused: Vec::new(),
            requests: Vec::new(),
            messages: Vec::new(),
            now: Time::ZERO,
            wakes: Vec::new(),
        }
    }

    /// The bytes of memory at `at`.
    pub fn bytes(&mut self, at: u64, len: usize) -> &mut [u8] {
        let start = usize::try_from(at).expect("an address inside memory");
        &mut self.memory[start..start + len]
    }

    fn locate(&self, at: Iova, len: usize) -> Result<Range<usize>, DmaFault> {
        let end = at.0.saturating_add(len as u64);
        let overlaps = |range: &Range<u64>| at.0 < range.end && range.start < end;
        if self.refused.iter().any(overlaps) {
            return Err(DmaFault::Refused);
        }
        if end > MEMORY as u64 {
            return Err(DmaFault::Unbacked);
        }
        let start = usize::try_from(at.0).expect("checked against the size of memory");
        Ok(start..start + len)
    }
}

impl Default for TestBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus for TestBus {
    fn dma_read(
        &mut self,
        by: RequesterId,
        at: Iova,
        into: &mut [u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        self.requests.push(Request {
            by,
            at,
            len: into.len(),
            write: false,
            why,
        });
        let range = self.locate(at, into.len()).inspect_err(|_| into.fill(0xff));
        into.copy_from_slice(&self.memory[range?]);
        Ok(())
    }

    fn dma_write(
        &mut self,
        by: RequesterId,
        at: Iova,
        from: &[u8],
        why: Purpose,
    ) -> Result<(), DmaFault> {
        if (MESSAGES..MESSAGES + 0x10_0000).contains(&at.0) {
            let data = from.try_into().expect("messages are four bytes");
            self.messages.push((at, u32::from_le_bytes(data)));
            return Ok(());
        }
        self.requests.push(Request {
            by,
            at,
            len: from.len(),
            write: true,
            why,
        });
        let range = self.locate(at, from.len())?;
        self.memory[range].copy_from_slice(from);
        Ok(())
    }

    fn now(&self) -> Time {
        self.now
    }

    fn wake_at(&mut self, _by: RequesterId, at: Time) {
        self.wakes.push(at);
    }
}

/// A device on a [`TestBus`].
pub struct Testbed {
    /// The device.
    pub function: PciFunction,
    /// What it is plugged into.
    pub bus: TestBus,
}

impl Testbed {
    /// Plugs `device` in, with memory decoding and bus mastering on.
    pub fn new(device: Box<dyn Device>) -> Self {
        let mut testbed = Self {
            function: PciFunction::new(device, REQUESTER),
            bus: TestBus::new(),
        };
        testbed.set_command(spec::command::MEMORY | spec::command::BUS_MASTER);
        testbed
    }

    /// Writes the command register.
    pub fn set_command(&mut self, command: u16) {
        self.config_write(spec::COMMAND, Width::Two, command.into());
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32) {
        self.function
            .config_write(offset, width, value, &mut self.bus);
    }

    /// The offset of the first capability with that identifier.
    pub fn capability(&mut self, id: u8) -> u16 {
        let mut at = self.function.config_read(spec::CAPABILITIES, Width::One);
        for _ in 0..48 {
            assert_ne!(at, 0, "the function has no capability {id:#x}");
            let offset = u16::try_from(at).expect("a byte");
            if self.function.config_read(offset, Width::One) == id.into() {
                return offset;
            }
            at = self.function.config_read(offset + 1, Width::One);
        }
        panic!("the capability list loops");
    }

    /// Starts a function-level reset, then turns decoding and mastering on again.
    pub fn function_level_reset(&mut self) {
        let control = self.capability(spec::capability::PCIE) + spec::pcie::DEVICE_CONTROL;
        self.config_write(control, Width::Two, spec::pcie::INITIATE_FLR.into());
        self.set_command(spec::command::MEMORY | spec::command::BUS_MASTER);
    }

    /// Enables MSI-X with every vector unmasked: vector `n` sends data `n`.
    pub fn enable_msix(&mut self) {
        let at = self.capability(spec::capability::MSIX);
        let control = self
            .function
            .config_read(at + spec::msix::CONTROL, Width::Two);
        let table = self
            .function
            .config_read(at + spec::msix::TABLE, Width::Four);
        let bar = u8::try_from(table & 7).ok().and_then(Bar::new);
        let bar = bar.expect("the table is in a BAR");
        for vector in 0..=(control & u32::from(spec::msix::SIZE)) {
            let entry = (table & !7) + vector * spec::msix::ENTRY;
            self.write(bar, entry, Width::Eight, MESSAGES);
            self.write(bar, entry + 8, Width::Eight, vector.into());
        }
        let enable = spec::msix::ENABLE;
        self.config_write(at + spec::msix::CONTROL, Width::Two, enable.into());
    }

    /// Reads a register.
    pub fn read(&mut self, bar: Bar, offset: u32, width: Width) -> Completion {
        let at = self.access(bar, offset, width);
        self.function.read(at, &mut self.bus)
    }

    /// Reads a register that answers with data.
    pub fn value(&mut self, bar: Bar, offset: u32, width: Width) -> u64 {
        match self.read(bar, offset, width) {
            Completion::Data(value) => value,
            other => panic!("{other:?} from {offset:#x}"),
        }
    }

    /// Writes a register.
    pub fn write(&mut self, bar: Bar, offset: u32, width: Width, value: u64) {
        let at = self.access(bar, offset, width);
        self.function.write(at, value, &mut self.bus);
    }

    /// Lets time pass until `until`, stepping the device when it asked to be.
    pub fn run_until(&mut self, until: Time) {
        for _ in 0..100_000 {
            let due = self
                .bus
                .wakes
                .iter()
                .copied()
                .filter(|&at| at <= until)
                .min();
            let Some(due) = due else {
                self.bus.now = self.bus.now.max(until);
                return;
            };
            self.bus.now = self.bus.now.max(due);
            let now = self.bus.now;
            self.bus.wakes.retain(|&at| at > now);
            while self.function.step(Budget(1), &mut self.bus) == Progress::More {}
        }
        panic!("the device asks to be stepped for ever");
    }

    /// Lets time pass until the device asks for no more steps.
    pub fn settle(&mut self) {
        while let Some(&at) = self.bus.wakes.iter().min() {
            self.run_until(at);
        }
    }

    fn access(&self, bar: Bar, offset: u32, width: Width) -> Access {
        let size = self.function.bar_size(bar).expect("the device has the BAR");
        Access::new(bar, offset, width, size).expect("aligned and inside the BAR")
    }
}
