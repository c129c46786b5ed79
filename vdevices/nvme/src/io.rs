//! The NVM command set (NVMe 1.4, 6): what changes and reads the medium.

use crate::controller::Nvme;
use crate::identify::NAMESPACE;
use crate::medium::{BLOCK, MAX_TRANSFER};
use crate::spec::{BROADCAST, Command, DEALLOCATE, DatasetRange, IoOpcode, Status};
use cofferdam_seam::BusPort;
use core::ops::Range;
use zerocopy::FromBytes;

/// Bytes in a range of Dataset Management.
const RANGE: usize = size_of::<DatasetRange>();

impl Nvme {
    /// Carries out a command of an I/O queue.
    pub(crate) fn io(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        if command.flags & Command::UNSUPPORTED_FLAGS != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let carry_out = match IoOpcode(command.opcode) {
            // Whatever completed is durable: nothing is left to flush.
            IoOpcode::FLUSH if command.namespace.get() == BROADCAST => return Ok(()),
            IoOpcode::FLUSH => |_: &mut Self, _: &Command, _: &mut BusPort<'_>| Ok(()),
            IoOpcode::READ => Self::read_blocks,
            IoOpcode::WRITE => Self::write_blocks,
            IoOpcode::COMPARE => Self::compare,
            IoOpcode::WRITE_ZEROES => Self::write_zeroes,
            IoOpcode::DATASET_MANAGEMENT => Self::manage_dataset,
            _ => return Err(Status::INVALID_OPCODE),
        };
        if command.namespace.get() != NAMESPACE {
            return Err(Status::INVALID_NAMESPACE);
        }
        carry_out(self, command, bus)
    }

    /// The blocks of a command that moves data, and in `self.pieces` where the data lies.
    fn transfer(
        &mut self,
        command: &Command,
        bus: &mut BusPort<'_>,
    ) -> Result<Range<usize>, Status> {
        let count = blocks(command);
        if count * BLOCK > MAX_TRANSFER as u64 {
            return Err(Status::INVALID_FIELD);
        }
        let range = self.medium.locate(command.qword(10), count)?;
        let prps = [command.prp1.get(), command.prp2.get()];
        let page = self.registers.page();
        self.pieces.find(prps, range.len(), page, bus)?;
        Ok(range)
    }

    /// Read (6.9): straight from the medium to the host.
    fn read_blocks(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let range = self.transfer(command, bus)?;
        self.logs.reads += 1;
        self.logs.blocks_read += blocks(command);
        self.pieces
            .write(self.medium.bytes(range), bus)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Brings the data of a command in.
    fn arrive(&mut self, length: usize, bus: &mut BusPort<'_>) -> Result<(), Status> {
        self.pieces
            .read(&mut self.arriving[..length], bus)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Write (6.15). The medium changes only when all of the data has arrived.
    fn write_blocks(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let range = self.transfer(command, bus)?;
        self.arrive(range.len(), bus)?;
        self.logs.writes += 1;
        self.logs.blocks_written += blocks(command);
        let arrived = &self.arriving[..range.len()];
        self.medium.bytes_mut(range).copy_from_slice(arrived);
        Ok(())
    }

    /// Compare (6.6).
    fn compare(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let range = self.transfer(command, bus)?;
        self.arrive(range.len(), bus)?;
        self.logs.reads += 1;
        self.logs.blocks_read += blocks(command);
        if self.arriving[..range.len()] == *self.medium.bytes(range) {
            Ok(())
        } else {
            Err(Status::COMPARE_FAILURE)
        }
    }

    /// Write Zeroes (6.17): no data moves, so the largest transfer is no limit.
    fn write_zeroes(&mut self, command: &Command, _: &mut BusPort<'_>) -> Result<(), Status> {
        let range = self.medium.locate(command.qword(10), blocks(command))?;
        self.medium.bytes_mut(range).fill(0);
        Ok(())
    }

    /// Dataset Management (6.7): deallocated blocks read as zeros, other hints are ignored. All
    /// ranges are checked first. As deallocating is a hint, a command deallocates no more blocks
    /// than the medium has: ranges that overlap so often ask for work, not for a result.
    fn manage_dataset(&mut self, command: &Command, bus: &mut BusPort<'_>) -> Result<(), Status> {
        let ranges = (command.dword(10) & 0xff) as usize + 1;
        let length = ranges * RANGE;
        let prps = [command.prp1.get(), command.prp2.get()];
        let page = self.registers.page();
        self.pieces.find(prps, length, page, bus)?;
        self.arrive(length, bus)?;
        if command.dword(11) & DEALLOCATE == 0 {
            return Ok(());
        }
        let asked = <[DatasetRange]>::ref_from_bytes(&self.arriving[..length]);
        let asked = asked.map_err(|_| Status::INVALID_FIELD)?;
        for range in asked {
            self.medium
                .locate(range.start.get(), range.blocks.get().into())?;
        }
        let mut left = self.medium.blocks();
        for range in asked {
            let count = left.min(range.blocks.get().into());
            left -= count;
            let bytes = self.medium.locate(range.start.get(), count)?;
            self.medium.bytes_mut(bytes).fill(0);
        }
        Ok(())
    }
}

/// NLB: logical blocks, told less one.
fn blocks(command: &Command) -> u64 {
    let [less_one, _] = command.halves(12);
    u64::from(less_one) + 1
}
