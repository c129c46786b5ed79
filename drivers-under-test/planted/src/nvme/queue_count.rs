//! `nvme-queue-count`: adds one to a number of queues that counts from zero.

use super::disk::Disk;
use super::queue::Command;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

pub(crate) struct QueueCount<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> QueueCount<H, V> {
    /// Asks for one queue pair; how many the controller granted.
    fn ask(disk: &mut Disk<H>) -> Result<u16, DriverError> {
        let granted = disk.nvme.administer(Command {
            opcode: spec::SET_FEATURES,
            dwords: [spec::NUMBER_OF_QUEUES, 0, 0],
            ..Command::default()
        })?;
        let [low, high, ..] = granted.to_le_bytes();
        let last = u16::from_le_bytes([low, high]);
        Ok(if V::PLANTED {
            last + 1
        } else {
            last.saturating_add(1)
        })
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for QueueCount<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::enable(host)?;
        if Self::ask(&mut disk)? == 0 {
            return Err(DriverError::Unsupported("no I/O queue to be had"));
        }
        disk.nvme.create_queues()?;
        Ok(Self {
            disk,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for QueueCount<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.disk.read(sector, into, until),
            Call::Write(sector, from) => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
