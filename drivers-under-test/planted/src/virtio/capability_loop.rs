//! `virtio-capability-loop`: follows the capability list to its end, which it need not have.

use super::Virtio;
use super::disk::Disk;
use super::spec::PCI_MAX_CAPABILITIES;
use super::structure::{Location, capability, first_capability};
use crate::call::{Call, Driver, Serve, UNKNOWN};
use crate::variant::Variant;
use alloc::vec::Vec;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, DriverHost};
use core::marker::PhantomData;

pub(crate) struct CapabilityLoop<H: DriverHost, V> {
    disk: Disk<H>,
    variant: PhantomData<V>,
}

impl<H: DriverHost, V: Variant> CapabilityLoop<H, V> {
    fn walk(host: &mut H) -> Result<Vec<Location>, DriverError> {
        let mut found: Vec<Location> = Vec::new();
        let mut seen = 0;
        let mut at = first_capability(host)?;
        while at != 0 {
            let (next, location) = capability(host, at)?;
            // The first of a kind counts.
            found.extend(location.filter(|new| found.iter().all(|old| old.kind != new.kind)));
            at = next;
            seen += 1;
            if !V::PLANTED && seen == PCI_MAX_CAPABILITIES {
                return Err(DriverError::Protocol("the capability list is a circle"));
            }
        }
        Ok(found)
    }
}

impl<H: DriverHost, V: Variant> Driver<H> for CapabilityLoop<H, V> {
    fn probe(mut host: H) -> Result<Self, DriverError> {
        let found = Self::walk(&mut host)?;
        Ok(Self {
            disk: Disk::over(Virtio::at(host, &found)?)?,
            variant: PhantomData,
        })
    }
}

impl<H: DriverHost, V: Variant> Serve for CapabilityLoop<H, V> {
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
