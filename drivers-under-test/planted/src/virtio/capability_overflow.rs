//! `virtio-capability-overflow`: adds offset and length of a structure before it checks them.

use super::Virtio;
use super::disk::Disk;
use super::structure::{Location, locations};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

/// Bytes of the largest BAR a virtio device has.
const LARGEST_BAR: u32 = 1 << 24;

pub(crate) struct CapabilityOverflow<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> CapabilityOverflow<H, V> {
    fn check(location: &Location) -> Result<(), DriverError> {
        let end = if V::PLANTED {
            location.offset + location.len
        } else {
            location.offset.saturating_add(location.len)
        };
        if end > LARGEST_BAR {
            return Err(DriverError::Unsupported("a structure lies outside its BAR"));
        }
        Ok(())
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for CapabilityOverflow<H, V> {
    fn probe(mut host: H) -> Result<Self, DriverError> {
        let found = locations(&mut host)?;
        found.iter().try_for_each(Self::check)?;
        Ok(Self {
            disk: Disk::over(Virtio::at(host, &found)?)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for CapabilityOverflow<H, V> {
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
