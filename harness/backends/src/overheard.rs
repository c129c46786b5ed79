//! A device whose every register access is printed: for examples that show two ways of trapping a
//! driver to see the same.

use cofferdam_seam::{Access, Budget, BusPort, Completion, Device, PciIdentity, Progress, Reset};

/// The device, overheard.
pub struct Overheard<D>(pub D);

impl<D: Device> Device for Overheard<D> {
    fn describe(&self) -> &PciIdentity {
        self.0.describe()
    }

    fn read(&mut self, at: Access, bus: &mut BusPort<'_>) -> Completion {
        let completion = self.0.read(at, bus);
        println!("read {:#x} {:?}: {completion:x?}", at.offset(), at.width());
        completion
    }

    fn write(&mut self, at: Access, value: u64, bus: &mut BusPort<'_>) {
        println!("write {:#x} {:?}: {value:#x}", at.offset(), at.width());
        self.0.write(at, value, bus);
    }

    fn step(&mut self, budget: Budget, bus: &mut BusPort<'_>) -> Progress {
        self.0.step(budget, bus)
    }

    fn reset(&mut self, kind: Reset) {
        self.0.reset(kind);
    }
}
