//! What devices did on the bus, with what they carried, for whoever wants to read a trial afterwards.
//!
//! Nothing is kept unless it is asked for, and what is kept changes nothing.

use crate::interrupts::Delivery;
use crate::iommu::{Path, Refusal};
use crate::root_complex::DmaEvent;
use cofferdam_seam::{Purpose, RequesterId, Time};

/// Bytes of a request that are kept: the longest descriptor there is, an NVMe command.
pub const KEPT: usize = 64;

/// Events held between two looks.
const LIMIT: usize = 65_536;

/// Something a device did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A memory request.
    Dma {
        /// As the log has it.
        event: DmaEvent,
        /// The first [`KEPT`] bytes of a descriptor or a completion that arrived; none of a payload.
        bytes: Vec<u8>,
        /// How its last page was reached.
        path: Option<Path>,
        /// Why the IOMMU refused the rest.
        refusal: Option<Refusal>,
    },
    /// An interrupt message.
    Message {
        /// When.
        at: Time,
        /// Who sent it.
        by: RequesterId,
        /// What it said.
        data: u32,
        /// What became of it.
        became: Delivery,
    },
}

/// The events since the last look.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) events: Vec<BusEvent>,
    pub(crate) dropped: u64,
}

impl Recording {
    pub(crate) fn push(&mut self, event: BusEvent) {
        if self.events.len() < LIMIT {
            self.events.push(event);
        } else {
            self.dropped += 1;
        }
    }
}

/// Whether a request for that is kept with its bytes.
pub(crate) const fn tells(why: Purpose) -> bool {
    !matches!(why, Purpose::Payload)
}
