//! The driver: probe, one factorial at a time, one DMA at a time.

use crate::spec;
use cofferdam_seam::service::{Compute, DriverError};
use cofferdam_seam::{Bar, Deadline, Direction, DmaRegion, DriverHost, Mmio, Vector, Wake, Width};
use core::ops::Range;
use core::time::Duration;

/// How long a device that an earlier driver left busy may take to come to rest.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// MSI number 0, or INTx.
const VECTOR: Vector = Vector(0);

/// What a register reads when nobody answers.
const ALL_ONES: u32 = u32::MAX;

/// The parts of the DMA region: what goes out, and what comes back. Each has its own pages, so
/// that a mapping of one never opens the other.
const OUT: Range<usize> = 0..spec::BUFFER_LEN;
const BACK: Range<usize> = spec::BUFFER_LEN..2 * spec::BUFFER_LEN;

/// The driver of one edu device.
///
/// After any error that is not [request only](DriverError::is_request_only) it refuses further
/// work; drop it and probe again.
#[derive(Debug)]
pub struct Edu<H: DriverHost> {
    regs: H::Mmio,
    /// Dropped before the host it came from.
    region: H::Dma,
    host: H,
    broken: bool,
}

impl<H: DriverHost> Edu<H> {
    /// Takes the device into service: checks that it is an edu and alive, waits until work of an
    /// earlier driver has ended, and enables interrupts and bus mastering.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device,
    /// [`Protocol`](DriverError::Protocol) if it does not behave like one,
    /// [`TimedOut`](DriverError::TimedOut) if it stays busy for a second, and what the host says.
    pub fn probe(mut host: H) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != spec::PCI_ID {
            return Err(DriverError::Unsupported("PCI ID is not 1234:11e8"));
        }
        // Whatever an earlier driver started ends as a refused DMA.
        host.set_bus_master(false)?;
        let regs = host.map_bar(Bar::ZERO)?;
        if regs.len() < spec::REGISTERS {
            return Err(DriverError::Unsupported("BAR 0 is too small for edu"));
        }
        if regs.read32(spec::IDENTIFICATION) & 0xffff != spec::IDENTIFIER {
            return Err(DriverError::Unsupported("identification is not edu's"));
        }
        for value in [0x5a5a_c3c3, 0xa5a5_3c3c] {
            regs.write32(spec::LIVENESS, value);
            if regs.read32(spec::LIVENESS) != !value {
                return Err(DriverError::Protocol("liveness register is not inverted"));
            }
        }
        come_to_rest(&mut host, &regs)?;
        host.enable_interrupts(1)?;
        let region = host.alloc_dma(BACK.end)?;
        host.set_bus_master(true)?;
        Ok(Self {
            regs,
            region,
            host,
            broken: false,
        })
    }

    /// Runs one request on a driver that is well, and remembers if it no longer is.
    fn request<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        if self.broken {
            return Err(DriverError::Protocol(
                "an earlier request failed; drop the driver and probe again",
            ));
        }
        let result = run(self);
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }

    fn compute(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        self.regs.write32(spec::STATUS, spec::RAISE_WHEN_DONE);
        self.regs.write32(spec::FACTORIAL, n);
        self.await_interrupt(spec::FACTORIAL_DONE, "the factorial", until)?;
        if self.regs.read32(spec::STATUS) & spec::COMPUTING != 0 {
            return Err(DriverError::Protocol(
                "interrupt for a factorial that is not done",
            ));
        }
        match self.regs.read32(spec::FACTORIAL) {
            // Odd and not 1, so never a factorial.
            ALL_ONES => Err(DriverError::Protocol("result reads all ones")),
            value => Ok(value),
        }
    }

    /// Copies between the start of one part of the region and the device's buffer. On an error
    /// the device may still be at it, so the mapping stays until the region goes.
    fn transfer(
        &mut self,
        part: Range<usize>,
        way: Direction,
        until: Deadline,
    ) -> Result<(), DriverError> {
        let mapping = self.host.map(&self.region, part, way)?;
        let (source, destination, direction) = if way.device_writes() {
            (spec::BUFFER, mapping.iova.0, spec::DMA_TO_RAM)
        } else {
            (mapping.iova.0, spec::BUFFER, 0)
        };
        self.regs.write64(spec::DMA_SOURCE, source);
        self.regs.write64(spec::DMA_DESTINATION, destination);
        self.regs.write64(spec::DMA_COUNT, mapping.len as u64);
        self.regs.write32(
            spec::DMA_COMMAND,
            spec::DMA_START | direction | spec::DMA_RAISE,
        );
        self.await_interrupt(spec::DMA_DONE, "the DMA", until)?;
        if self.regs.read32(spec::DMA_COMMAND) & spec::DMA_START != 0 {
            return Err(DriverError::Protocol(
                "interrupt for a DMA that is not done",
            ));
        }
        self.host.unmap(mapping);
        Ok(())
    }

    /// Waits for an interrupt with that reason and acknowledges it. Others are acknowledged and
    /// ignored.
    ///
    /// A reason without an interrupt does not count, not even at the deadline: whatever kept the
    /// interrupt from us (it is a DMA write too) may have kept the data.
    fn await_interrupt(
        &mut self,
        reason: u32,
        what: &'static str,
        until: Deadline,
    ) -> Result<(), DriverError> {
        while let Wake::Interrupt(_) = self.host.wait_any(&[VECTOR], until)? {
            let raised = self.regs.read32(spec::INTERRUPT_STATUS);
            if raised == ALL_ONES {
                return Err(DriverError::Protocol("interrupt status reads all ones"));
            }
            if raised != 0 {
                // Releases INTx; with MSI it clears the reasons for the next interrupt.
                self.regs.write32(spec::INTERRUPT_ACKNOWLEDGE, raised);
            }
            if raised & reason != 0 {
                return Ok(());
            }
            // A storm wakes us for ever, so the wait's own verdict is not enough.
            if until.passed(self.host.now()) {
                break;
            }
            self.host.relax()?;
        }
        Err(DriverError::TimedOut(what))
    }
}

impl<H: DriverHost> Compute for Edu<H> {
    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        self.request(|edu| edu.compute(n, until))
    }

    fn round_trip(
        &mut self,
        out: &[u8],
        back: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        self.request(|edu| {
            let len = out.len();
            if len == 0 || len > spec::BUFFER_LEN {
                return Err(DriverError::BadRequest("a round trip is 1 to 4096 bytes"));
            }
            if back.len() != len {
                return Err(DriverError::BadRequest("the two buffers differ in length"));
            }
            edu.region.write_at(OUT.start, out);
            // A DMA that is refused leaves no trace: it must not return an older request's bytes.
            edu.region
                .write_at(BACK.start, &[0; spec::BUFFER_LEN][..len]);
            edu.transfer(OUT.start..OUT.start + len, Direction::ToDevice, until)?;
            edu.transfer(BACK.start..BACK.start + len, Direction::FromDevice, until)?;
            edu.region.read_at(BACK.start, back);
            Ok(())
        })
    }

    fn round_trip_limit(&self) -> usize {
        spec::BUFFER_LEN
    }
}

impl<H: DriverHost> Drop for Edu<H> {
    fn drop(&mut self) {
        // The device may be copying. It must not reach the region once that is someone else's;
        // a host that cannot do this has stopped, and its device with it.
        let _ = self.host.set_bus_master(false);
    }
}

/// Waits until both engines are idle, then clears what they raised.
fn come_to_rest<H: DriverHost>(host: &mut H, regs: &H::Mmio) -> Result<(), DriverError> {
    let until = Deadline::after(host.now(), IDLE_LIMIT);
    regs.write32(spec::STATUS, 0);
    while regs.read32(spec::STATUS) & spec::COMPUTING != 0
        || regs.read32(spec::DMA_COMMAND) & spec::DMA_START != 0
    {
        if until.passed(host.now()) {
            return Err(DriverError::TimedOut("the device to come to rest"));
        }
        host.relax()?;
    }
    regs.write32(
        spec::INTERRUPT_ACKNOWLEDGE,
        regs.read32(spec::INTERRUPT_STATUS),
    );
    Ok(())
}
