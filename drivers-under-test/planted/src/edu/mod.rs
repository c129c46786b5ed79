//! Drivers of edu: what they share, which is without a known defect.
//!
//! 1. QEMU, `docs/specs/edu.rst`, "MMIO area spec".

use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, Deadline, Direction, DriverHost, Iova, Mmio, Vector, Wake, Width};
use core::time::Duration;

pub(crate) mod bus_master_left;
pub(crate) mod dropped_buffer;
pub(crate) mod early_interrupt;
pub(crate) mod interrupt_loop;
pub(crate) mod leak_on_timeout;
pub(crate) mod padded_transfer;
pub(crate) mod scratch_cookie;
pub(crate) mod spurious_interrupt;
pub(crate) mod status_poll;
pub(crate) mod timeout_unmap;
pub(crate) mod truncated_address;

/// First word of configuration space [1].
const PCI_ID: u32 = 0x11e8_1234;
/// Reads as the inverse of what was written last [1].
const LIVENESS: u32 = 0x04;
/// Operand, then result [1].
const FACTORIAL: u32 = 0x08;
/// Status of the factorial engine [1].
const STATUS: u32 = 0x20;
/// [`STATUS`]: a factorial is being computed.
const COMPUTING: u32 = 0x01;
/// [`STATUS`]: raise an interrupt when it is done.
const RAISE_WHEN_DONE: u32 = 0x80;
/// Reasons of the pending interrupt [1].
const INTERRUPT_STATUS: u32 = 0x24;
/// Clears the reasons written to it [1].
const INTERRUPT_ACKNOWLEDGE: u32 = 0x64;
/// Interrupt reason: a factorial is done [1].
const FACTORIAL_DONE: u32 = 0x001;
/// Interrupt reason: a DMA is done [1].
const DMA_DONE: u32 = 0x100;
/// Source, destination, count and command of a DMA [1].
const DMA: [u32; 4] = [0x80, 0x88, 0x90, 0x98];
/// DMA command: start; reads as set until the copy is done.
const DMA_START: u32 = 0x01;
/// DMA command: from the device to memory.
const DMA_TO_RAM: u32 = 0x02;
/// DMA command: raise an interrupt when it is done.
const DMA_RAISE: u32 = 0x04;
/// The buffer's address inside the device, and its bytes [1].
const BUFFER: u64 = 0x4_0000;
pub(crate) const BUFFER_LEN: usize = 4096;

const VECTOR: Vector = Vector(0);
/// How long a device that an earlier driver left busy may take to come to rest.
const IDLE_LIMIT: Duration = Duration::from_millis(5);

/// The device's registers and the host they came from.
pub(crate) struct Edu<H: DriverHost> {
    regs: H::Mmio,
    host: H,
}

impl<H: DriverHost> Edu<H> {
    /// An edu at rest, without the bus.
    fn open(mut host: H) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != PCI_ID {
            return Err(DriverError::Unsupported("PCI ID is not 1234:11e8"));
        }
        host.set_bus_master(false)?;
        let regs = host.map_bar(Bar::ZERO)?;
        let until = Deadline::after(host.now(), IDLE_LIMIT);
        while regs.read32(STATUS) & COMPUTING != 0 || regs.read32(DMA[3]) & DMA_START != 0 {
            if until.passed(host.now()) {
                return Err(DriverError::TimedOut("the device to come to rest"));
            }
            host.relax()?;
        }
        regs.write32(INTERRUPT_ACKNOWLEDGE, regs.read32(INTERRUPT_STATUS));
        Ok(Self { regs, host })
    }

    /// Gives the device its interrupt and the bus.
    fn start(&mut self) -> Result<(), DriverError> {
        self.host.enable_interrupts(1)?;
        Ok(self.host.set_bus_master(true)?)
    }

    /// Takes the bus away, so that nothing the device still does reaches memory.
    fn stop(&mut self) {
        // A host that cannot do this has stopped, and its device with it.
        let _ = self.host.set_bus_master(false);
    }

    fn start_factorial(&self, n: u32) {
        self.regs.write32(STATUS, RAISE_WHEN_DONE);
        self.regs.write32(FACTORIAL, n);
    }

    /// Starts a copy between memory and the device's buffer.
    fn start_copy(&self, at: Iova, len: usize, way: Direction) {
        let (source, destination, direction) = if way.device_writes() {
            (BUFFER, at.0, DMA_TO_RAM)
        } else {
            (at.0, BUFFER, 0)
        };
        self.regs.write64(DMA[0], source);
        self.regs.write64(DMA[1], destination);
        self.regs.write64(DMA[2], len as u64);
        self.regs.write32(DMA[3], DMA_START | direction | DMA_RAISE);
    }

    /// Whether a copy is under way.
    fn copying(&self) -> bool {
        self.regs.read32(DMA[3]) & DMA_START != 0
    }

    /// Waits for an interrupt and acknowledges its reasons; none if the deadline passed first.
    fn interrupt(&mut self, until: Deadline) -> Result<Option<u32>, DriverError> {
        if until.passed(self.host.now()) {
            return Ok(None);
        }
        let Wake::Interrupt(_) = self.host.wait_any(&[VECTOR], until)? else {
            return Ok(None);
        };
        let reasons = self.regs.read32(INTERRUPT_STATUS);
        self.regs.write32(INTERRUPT_ACKNOWLEDGE, reasons);
        Ok(Some(reasons))
    }

    /// Waits for an interrupt with that reason.
    fn done(&mut self, reason: u32, until: Deadline) -> Result<(), DriverError> {
        while let Some(reasons) = self.interrupt(until)? {
            if reasons == u32::MAX {
                return Err(DriverError::Protocol("interrupt status reads all ones"));
            }
            if reasons & reason != 0 {
                return Ok(());
            }
            self.host.relax()?;
        }
        Err(DriverError::TimedOut("edu"))
    }

    /// Waits for a copy that is really over.
    fn copied(&mut self, until: Deadline) -> Result<(), DriverError> {
        self.done(DMA_DONE, until)?;
        if self.copying() {
            return Err(DriverError::Protocol("interrupt for a DMA under way"));
        }
        Ok(())
    }
}

/// Checks the two buffers of a round trip.
fn check_round_trip(out: &[u8], into: &[u8]) -> Result<(), DriverError> {
    if out.is_empty() || out.len() > BUFFER_LEN || into.len() < out.len() {
        return Err(DriverError::BadRequest("a round trip is 1 to 4096 bytes"));
    }
    Ok(())
}
