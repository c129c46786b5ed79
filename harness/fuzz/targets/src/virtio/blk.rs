//! The block driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, WRITTEN, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::blk::{Disk, ID, Lending, Operation, Refusal};
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::ops::Range;
use std::time::Duration;
use vdevice_virtio::{BlkConfig, VirtioBlk};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.2.4).
pub const CONFIG: usize = 0x3c;

const SECTOR: Argument = Argument {
    name: "sector",
    least: 0,
    most: 7,
};
const COUNT: Argument = Argument {
    name: "count",
    least: 1,
    most: 3,
};

/// In the order of [`Operation::ALL`].
const CALLS: &[CallSpec] = &[
    call("read", &[SECTOR, COUNT]),
    call("write", &[SECTOR, COUNT]),
    call("flush", &[]),
    call("device-id", &[]),
    call("submit-read", &[SECTOR, COUNT]),
    call("submit-write", &[SECTOR, COUNT]),
    call("complete", &[]),
    call("ack-interrupt", &[]),
    call("enable-interrupts", &[]),
    call("disable-interrupts", &[]),
    call("capacity", &[]),
];

/// The target.
pub static BLK: Blk = Blk;

/// `VirtIOBlk`, and the model of a small disk.
pub struct Blk;

impl Target for Blk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioBlk::new(BlkConfig {
            sectors: 8,
            latency: Duration::ZERO,
            seed: 0,
            indirect: true,
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Block,
            CONFIG,
        ))
    }

    /// "Blocks until the read completes or there is an error."
    fn blocks(&self) -> bool {
        true
    }

    fn written(&self) -> Option<Range<usize>> {
        Some(WRITTEN)
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Blk {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let disk = Disk::<FuzzHal, T>::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running(disk)))
    }
}

/// A disk, wherever its driver runs.
pub trait Operated {
    /// See [`Disk::operate`].
    ///
    /// # Errors
    ///
    /// It is not done.
    fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refused>;
}

impl<H: Lending, T: Transport> Operated for Disk<H, T> {
    fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refused> {
        let done = Self::operate(self, operation, sector, sectors, data);
        done.map_err(|refusal: Refusal| Refused::because(refusal))
    }
}

/// A disk in service, and what is asked of it.
pub struct Running<D>(pub D);

impl<D: Operated> Driver for Running<D> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let Some(operation) = Operation::ALL.get(call.index()) else {
            return Ok(());
        };
        let (sector, sectors) = (call.size(0), call.size(1));
        let mut data = vec![0x5a; operation.data(sectors)];
        if *operation == Operation::Read {
            witness.mark(&mut data);
        }
        let length = self.0.operate(*operation, sector, sectors, &mut data)?;
        match (operation, length) {
            (Operation::Read, _) => witness.received("read_blocks", &data),
            (Operation::DeviceId, Some(length)) => witness.length("device_id", length, ID),
            _ => {}
        }
        Ok(())
    }
}
