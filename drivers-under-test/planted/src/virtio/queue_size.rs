//! `virtio-queue-size`: lays out its rings by the queue size the device names, in memory for 64.

use super::disk::Disk;
use super::ring::{Layout, Ring, SIZE};
use super::spec::common;
use super::{Virtio, disk};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost, Mmio};
use core::marker::PhantomData;

/// Holds the rings of every device we saw.
const BYTES: usize = 2048;

pub(crate) struct QueueSize<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> QueueSize<H, V> {
    fn layout(virtio: &Virtio<H>) -> Result<Layout, DriverError> {
        virtio.write16(common::QUEUE_SELECT, 0);
        let size = virtio.mmio.read16(virtio.common + common::QUEUE_SIZE);
        if !size.is_power_of_two() || size < SIZE {
            return Err(DriverError::Unsupported("an odd queue size"));
        }
        let layout = Layout::packed(size, BYTES);
        if !V::PLANTED && layout.needed() > BYTES {
            return Err(DriverError::Unsupported("the queue is too long"));
        }
        Ok(layout)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for QueueSize<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut virtio = Virtio::open(host)?;
        let layout = Self::layout(&virtio)?;
        let ring = Ring::with(&mut virtio.host, layout)?;
        let region = virtio.host.alloc_dma(disk::LARGEST)?;
        virtio.enable_interrupts()?;
        virtio.start(layout.size, ring.areas())?;
        Ok(Self {
            disk: Disk {
                ring,
                region,
                virtio,
                mapping: None,
            },
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for QueueSize<H, V> {
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
