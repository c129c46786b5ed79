//! `virtio-ring-wrap`: moves on in its receive ring by the length the device names, and looks for
//! the ring's end at one place only.

use super::disk::Disk;
use super::ring::Data;
use super::spec;
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::{DriverError, SECTOR};
use cofferdam_seam::{Deadline, Direction, DmaRegion, DriverHost, Mapping};
use core::marker::PhantomData;

/// Bytes of the receive ring, which is mapped for good.
const RING: usize = 4 * SECTOR;

pub(crate) struct RingWrap<H: DriverHost, V> {
    disk: Disk<H>,
    received: H::Dma,
    mapping: Mapping,
    /// Where the next sector goes.
    cursor: usize,
    /// A read never ended: its part of the ring is the device's.
    lost: bool,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> RingWrap<H, V> {
    fn read(
        &mut self,
        sector: u64,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        if into.len() != SECTOR {
            return Err(DriverError::BadRequest("one sector at a time"));
        }
        if self.lost || self.disk.mapping.is_some() {
            return Err(DriverError::Protocol("an earlier request never ended"));
        }
        let at = self.cursor;
        self.received.write_at(at, &[0; SECTOR]);
        let data = Data {
            at: self.mapping.iova.offset(at as u64),
            len: 512,
            incoming: true,
        };
        self.lost = true;
        self.disk.ring.submit(0, spec::IN, sector, data);
        self.disk.virtio.notify();
        let used = self.disk.answer(until)?;
        self.lost = false;
        let arrived = (used.len as usize).saturating_sub(1);
        if arrived > SECTOR {
            return Err(DriverError::Protocol("more bytes than there was room for"));
        }
        self.cursor += if V::PLANTED { arrived } else { SECTOR };
        if self.cursor == RING {
            self.cursor = 0;
        }
        if self.disk.ring.status(0) != spec::OK || arrived < SECTOR {
            return Err(DriverError::Io);
        }
        self.received.read_at(at, into);
        Ok(SECTOR)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for RingWrap<H, V> {
    fn probe(host: H) -> Result<Self, DriverError> {
        let mut disk = Disk::probe(host)?;
        let host = &mut disk.virtio.host;
        let received = host.alloc_dma(RING)?;
        let mapping = host.map(&received, 0..RING, Direction::FromDevice)?;
        Ok(Self {
            disk,
            received,
            mapping,
            cursor: 0,
            lost: false,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for RingWrap<H, V> {
    fn call(
        &mut self,
        call: Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        match call {
            Call::Read(sector) => self.read(sector, into, until),
            Call::Write(sector, from) if !self.lost => self.disk.write(sector, from, until),
            _ => Err(UNKNOWN),
        }
    }
}
