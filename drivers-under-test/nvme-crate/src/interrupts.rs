//! Which interrupt wakes which handler of the crate.

use cofferdam_seam::{InterruptKind, Interrupts, Vector, VectorSet};
use nvme_driver::{Config, NvmeIntxSource};
use rdif_block::{HardIrqHandler, IrqAck, IrqEndpoint};

use crate::spec::PAGE;

/// Vectors worth asking for: the admin queue's and the I/O queue's.
pub const WANTED: u16 = 2;

/// The crate's configuration for these interrupts. Without MSI-X it masks and unmasks at the
/// controller, which suits MSI and INTx alike.
pub fn config(given: Interrupts) -> Config {
    let vectors = match (given.kind, given.count) {
        (InterruptKind::Msix, 2..) => [0, 1],
        (InterruptKind::Msix, _) => [0, 0],
        (InterruptKind::Msi | InterruptKind::Intx, _) => return Config::intx(PAGE),
    };
    Config::msix(PAGE, vectors).unwrap_or_else(|_| Config::intx(PAGE))
}

/// Whether our function asserts the line: nobody shares it, and the handlers are asked when the host
/// says it was raised.
pub struct OwnLine;

impl NvmeIntxSource for OwnLine {
    fn is_asserted(&self) -> bool {
        true
    }
}

/// The handlers the crate gave us. They hold pointers to the registers.
#[derive(Default)]
pub struct Handlers(Vec<(usize, Box<dyn HardIrqHandler>)>);

impl Handlers {
    /// Installs a handler, in the place of an older one of the same source. Returns the source.
    pub fn install(&mut self, endpoint: IrqEndpoint) -> usize {
        let source = endpoint.source_id();
        self.0.retain(|(known, _)| *known != source);
        self.0.push((source, endpoint.into_handler()));
        source
    }

    /// The vectors that have a handler.
    pub fn vectors(&self) -> Vec<Vector> {
        let sources = self.0.iter().map(|(source, _)| *source);
        sources
            .filter_map(|source| u16::try_from(source).ok().map(Vector))
            .collect()
    }

    /// Lets the handlers of what was raised acknowledge it.
    pub fn acknowledge(&mut self, raised: VectorSet) -> Vec<(usize, IrqAck)> {
        let woken = self.0.iter_mut().filter(|(source, _)| {
            u16::try_from(*source).is_ok_and(|source| raised.contains(Vector(source)))
        });
        woken
            .map(|(source, handler)| (*source, handler.ack()))
            .collect()
    }
}
