//! A queue pair. What a completion says comes out of here as the controller wrote it.

use super::spec::{COMMAND, COMPLETION, DOORBELLS};
use cofferdam_seam::{Direction, DmaRegion, DriverHost, HostError, Iova, Mapping, Mmio};

/// Entries of each queue.
pub const ENTRIES: u16 = 16;

/// A command to be.
#[derive(Clone, Copy, Default)]
pub struct Command {
    pub opcode: u8,
    pub namespace: u32,
    /// Where the data is: one page at most.
    pub data: Option<Iova>,
    /// Command dwords 10 to 12.
    pub dwords: [u32; 3],
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub result: u32,
    pub cid: u16,
    /// The status field, without the phase tag.
    pub status: u16,
}

/// A submission queue and its completion queue, mapped for their whole life.
pub struct Queue<D> {
    id: u16,
    commands: D,
    completions: D,
    commands_at: Mapping,
    completions_at: Mapping,
    tail: u16,
    head: u16,
    phase: bool,
}

impl<D: DmaRegion> Queue<D> {
    pub fn new<H: DriverHost<Dma = D>>(host: &mut H, id: u16) -> Result<Self, HostError> {
        let commands = host.alloc_dma(COMMAND * usize::from(ENTRIES))?;
        let completions = host.alloc_dma(COMPLETION * usize::from(ENTRIES))?;
        let commands_at = host.map(&commands, 0..commands.len(), Direction::ToDevice)?;
        let completions_at = host.map(&completions, 0..completions.len(), Direction::FromDevice)?;
        Ok(Self {
            id,
            commands,
            completions,
            commands_at,
            completions_at,
            tail: 0,
            head: 0,
            phase: true,
        })
    }

    /// Addresses of submission and completion queue.
    pub fn areas(&self) -> [Iova; 2] {
        [self.commands_at.iova, self.completions_at.iova]
    }

    /// Hands a command to the controller. The caller keeps fewer in flight than there are entries.
    pub fn submit(&mut self, regs: &impl Mmio, cid: u16, command: Command) {
        let mut bytes = [0; COMMAND];
        bytes[0] = command.opcode;
        bytes[2..4].copy_from_slice(&cid.to_le_bytes());
        bytes[4..8].copy_from_slice(&command.namespace.to_le_bytes());
        let data = command.data.unwrap_or(Iova(0));
        bytes[24..32].copy_from_slice(&data.0.to_le_bytes());
        for (place, dword) in bytes[40..52].chunks_exact_mut(4).zip(command.dwords) {
            place.copy_from_slice(&dword.to_le_bytes());
        }
        let place = COMMAND * usize::from(self.tail);
        self.commands.write_at(place, &bytes);
        self.tail = (self.tail + 1) % ENTRIES;
        let doorbell = DOORBELLS + 8 * u32::from(self.id);
        regs.write32(doorbell, self.tail.into());
    }

    /// Takes the next completion, if it is there.
    pub fn take(&mut self, regs: &impl Mmio) -> Option<Completion> {
        let mut bytes = [0; COMPLETION];
        let place = COMPLETION * usize::from(self.head);
        self.completions.read_at(place, &mut bytes);
        let status = u16::from_le_bytes([bytes[14], bytes[15]]);
        if (status & 1 == 1) != self.phase {
            return None;
        }
        self.head = (self.head + 1) % ENTRIES;
        self.phase ^= self.head == 0;
        let doorbell = DOORBELLS + 8 * u32::from(self.id) + 4;
        regs.write32(doorbell, self.head.into());
        Some(Completion {
            result: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            cid: u16::from_le_bytes([bytes[12], bytes[13]]),
            status: status >> 1,
        })
    }
}
