//! The model's side: the same accesses on our machine, register by register.

use crate::{Cell, Seen, Stray, Try};
use cofferdam_machine::config::Config;
use cofferdam_machine::frames::{FRAME, Owner, Use, run_of};
use cofferdam_machine::{Machine, Memory, PhysAddr, Write};
use cofferdam_seam::{Bar, Direction, RequesterId, Vector, Width};
use std::time::Duration;
use vdevice_edu::{Edu, EduTiming};

/// What victims hold.
const FILL: u8 = 0x5a;
/// QEMU's edu moves its data so long after the command.
const LATENCY: Duration = Duration::from_millis(100);
/// How long before the second transfer the page is taken away: the guest's leads, and the edges of
/// the model's window.
const LEADS: [Duration; 8] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(8),
    Duration::from_micros(9_990),
    Duration::from_micros(10_010),
    Duration::from_millis(12),
    Duration::from_millis(16),
    Duration::from_millis(30),
];
/// edu's buffer, as the device addresses it.
const BUFFER: u64 = 0x4_0000;

/// Commits a cell's access on a fresh machine.
///
/// # Panics
///
/// If the model refuses what the privileged layer asks of it, which is a defect.
pub fn commit(cell: Cell) -> Seen {
    match cell.fault {
        Stray::D1 => Rig::new(cell).unmapped(),
        Stray::D4InPage => Rig::new(cell).overrun(0),
        Stray::D4Cross => Rig::new(cell).overrun(FRAME - 64),
        Stray::D6 => after_unmap(cell),
        Stray::D8 => Rig::new(cell).read_only(),
        Stray::I4 => Rig::new(cell).forged_interrupt(),
    }
}

fn after_unmap(cell: Cell) -> Seen {
    let tries: Vec<Try> = LEADS
        .iter()
        .map(|lead| Try {
            after_ns: u64::try_from(lead.as_nanos()).unwrap_or(u64::MAX),
            landed: Rig::new(cell).after_unmap(*lead),
        })
        .collect();
    Seen {
        landed: tries.iter().map(|one| one.landed).sum(),
        tries,
    }
}

fn landed(landed: u64) -> Seen {
    Seen {
        landed,
        tries: Vec::new(),
    }
}

/// A machine with edu, and a buffer of two pages in the driver's memory.
struct Rig {
    machine: Machine,
    edu: RequesterId,
    buffer: u64,
}

impl Rig {
    fn new(cell: Cell) -> Self {
        let config = Config {
            iommu: cell.iommu,
            interrupt_remapping: cell.intremap,
            ..Config::default()
        };
        let memory = Memory::private().expect("two megabytes of memory");
        let mut machine = Machine::new(config, memory);
        let timing = EduTiming {
            dma: LATENCY,
            ..EduTiming::default()
        };
        let edu = machine.plug(Box::new(Edu::new(timing)));
        // Bus mastering on (PCI 3.0, 6.2.2).
        let command = machine.config_read(edu, 4, Width::Two);
        machine.config_write(edu, 4, Width::Two, command | 0b100);
        let pool = run_of(Owner::Driver, Use::DmaPool).expect("the driver has DMA memory");
        let buffer = pool.bytes().start;
        let rig = Self {
            machine,
            edu,
            buffer,
        };
        rig.fill();
        rig
    }

    fn fill(&self) {
        let page = PhysAddr(self.buffer);
        self.machine
            .memory()
            .write(page, &[FILL; 8192])
            .expect("in memory");
    }

    fn changed(&self, from: u64) -> u64 {
        let mut now = [0; 8192];
        self.machine
            .memory()
            .read(PhysAddr(self.buffer), &mut now)
            .expect("in memory");
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(now.len());
        now[from..].iter().filter(|byte| **byte != FILL).count() as u64
    }

    fn map(&mut self, offset: u64, len: usize, way: Direction) -> (u64, u64) {
        let at = PhysAddr(self.buffer + offset);
        let mapping = self.machine.map(self.edu, at, len, way).expect("mapped");
        (mapping.iova.0, mapping.id)
    }

    fn start(&mut self, address: u64, count: u64, to_memory: bool) {
        let (source, destination) = if to_memory {
            (BUFFER, address)
        } else {
            (address, BUFFER)
        };
        let command = 1 | u64::from(to_memory) << 1;
        for (at, value) in [
            (0x80, source),
            (0x88, destination),
            (0x90, count),
            (0x98, command),
        ] {
            let done = self
                .machine
                .mmio_write(self.edu, Bar::ZERO, at, Width::Eight, value);
            debug_assert_eq!(done, Write::Done, "an honest fabric takes every write");
        }
    }

    fn pass(&mut self, time: Duration) {
        let to = self.machine.now() + time;
        self.machine.advance(to);
    }

    fn transfer(&mut self, address: u64, count: u64, to_memory: bool) {
        self.start(address, count, to_memory);
        self.pass(LATENCY + Duration::from_millis(1));
    }

    fn unmapped(mut self) -> Seen {
        self.transfer(self.buffer, 64, true);
        landed(self.changed(0))
    }

    fn overrun(mut self, offset: u64) -> Seen {
        let (at, _) = self.map(offset, 64, Direction::FromDevice);
        self.transfer(at, 64 + 63, true);
        landed(self.changed(offset + 64))
    }

    fn after_unmap(mut self, lead: Duration) -> u64 {
        let (at, id) = self.map(0, 4096, Direction::FromDevice);
        self.transfer(at, 64, true);
        self.fill();
        self.start(at, 64, true);
        self.pass(LATENCY - lead);
        self.machine.unmap(self.edu, id).expect("it was mapped");
        self.pass(lead + Duration::from_millis(1));
        self.changed(0)
    }

    fn read_only(mut self) -> Seen {
        let (at, _) = self.map(0, 64, Direction::ToDevice);
        self.transfer(at, 32, true);
        landed(self.changed(0))
    }

    fn forged_interrupt(mut self) -> Seen {
        let other = self.machine.plug(Box::new(Edu::new(EduTiming::default())));
        self.machine
            .enable_interrupts(other, 1)
            .expect("edu has interrupts");
        let (message, data) = self.machine.message(other, Vector(0));
        let page = PhysAddr(self.buffer);
        self.machine
            .memory()
            .write(page, &data.to_le_bytes())
            .expect("in memory");
        let (at, _) = self.map(0, 64, Direction::ToDevice);
        self.transfer(at, 4, false);
        self.transfer(message.0, 4, true);
        landed(self.machine.counts().forged_interrupts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Way;
    use cofferdam_machine::config::IommuMode;

    fn committed(fault: Stray, iommu: IommuMode) -> Seen {
        commit(Cell {
            fault,
            iommu,
            intremap: false,
            way: Way::Kernel,
        })
    }

    #[test]
    fn lazy_window_of_the_model_is_ten_milliseconds() {
        let window = committed(Stray::D6, IommuMode::Lazy).window_ns();
        assert_eq!(window, Some(9_990_000));
    }

    #[test]
    fn without_translation_everything_lands() {
        for iommu in [IommuMode::Off, IommuMode::Passthrough] {
            for fault in Stray::ALL {
                assert!(committed(fault, iommu).landed > 0, "{fault:?} {iommu:?}");
            }
        }
    }

    #[test]
    fn strict_lets_pass_what_shares_the_page_and_unremapped_messages() {
        for fault in Stray::ALL {
            let passes = matches!(fault, Stray::D4InPage | Stray::I4);
            let seen = committed(fault, IommuMode::Strict);
            assert_eq!(seen.landed > 0, passes, "{fault:?}");
        }
    }
}
