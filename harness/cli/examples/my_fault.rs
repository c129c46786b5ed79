//! The command with a fault more: a register read that comes back with one bit flipped.
//!
//! ```text
//! cargo run --release --example my_fault -- compare --quick --fault flipped-read
//! ```

use cofferdam_cli::seam::{
    Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset, Time, Width,
};
use cofferdam_cli::{
    Cell, Cofferdam, Expect, FabricKind, Fault, IommuMode, Label, OwnFault, Prediction, Strike,
    Tally,
};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    Cofferdam::new().fault(FLIPPED_READ).main()
}

const FLIPPED_READ: OwnFault = OwnFault {
    entry: Fault {
        id: "flipped-read",
        line: "a register read comes back with one bit flipped",
        by: "device (a layer of this program)",
        parameters: "the lowest bit, the highest of 32",
        trigger: "the nth register read",
        oracle: "the driver",
        // No DMA goes astray and no read stays open, so neither axis can matter.
        iommu: &[IommuMode::Strict],
        fabrics: &[FabricKind::Pcie],
        crossing: "no DMA goes astray and no request stays open: strict on pcie only",
        except: &[],
    },
    cases: &["lowest", "highest"],
    deed: |honest, strike, tally| {
        Box::new(Flipping {
            honest,
            strike,
            tally,
            reads: 0,
        })
    },
    predict: |_: &Cell| Prediction {
        expect: Expect::Open,
        label: Label::Measured,
        because: "depends on what the driver reads there, and on what it makes of it",
    },
};

/// A device that is honest but for one read.
struct Flipping {
    honest: Box<dyn Device>,
    strike: Strike,
    tally: Arc<Tally>,
    reads: u32,
}

impl Device for Flipping {
    fn describe(&self) -> &PciIdentity {
        self.honest.describe()
    }

    fn answer_config(&mut self, at: u16, width: Width, space: &[u8], now: Time) -> Option<u32> {
        self.honest.answer_config(at, width, space, now)
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        let answer = self.honest.read(at, bus);
        // A driver's start is not counted: the tally is armed when it serves.
        if !self.tally.armed() {
            return answer;
        }
        self.reads = self.reads.saturating_add(1);
        match answer {
            Completion::Data(value) if self.reads == self.strike.nth => {
                self.tally.act(bus.now());
                let bit = if self.strike.case == "highest" { 31 } else { 0 };
                Completion::Data(value ^ (1 << bit))
            }
            answer => answer,
        }
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        self.honest.write(at, value, bus);
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.honest.step(budget, bus)
    }

    fn reset(&mut self, kind: Reset) {
        self.honest.reset(kind);
    }
}
