//! What stands in the place of a driver that runs in a guest.

use crate::guest::Held;
use cofferdam_fuzz::target::Refused;
use cofferdam_fuzz_targets::virtio::blk::Operated;
use cofferdam_fuzz_targets_virtio::blk::Operation;
use cofferdam_microvm::{Call, Driver, Planted};
use cofferdam_seam::Deadline;
use cofferdam_seam::service::{Block, Compute, DriverError};
use driver_planted::{Bug, Build, Serve};

/// A driver in the guest. Dropping this removes it.
pub struct Proxy {
    held: Held,
    /// Sectors, or the longest round trip.
    size: u64,
}

impl Proxy {
    /// Lets a driver take the device into service.
    ///
    /// # Errors
    ///
    /// It does not take it.
    pub fn probe(mut held: Held, driver: Driver) -> Result<Self, DriverError> {
        let size = held.call(Call::Probe, &[driver as u64], &[])?;
        Ok(Self { held, size })
    }

    /// The same for a planted driver.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn probe_planted(mut held: Held, bug: Bug, build: Build) -> Result<Self, DriverError> {
        let bug = Bug::ALL.iter().position(|it| *it == bug);
        let bug = bug.ok_or(DriverError::BadRequest("no such bug"))? as u64;
        held.call(
            Call::ProbePlanted,
            &[bug, (build == Build::Fixed).into()],
            &[],
        )?;
        Ok(Self { held, size: 0 })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A driver that is dropped has nobody to tell.
        let _ = self.held.call(Call::Remove, &[], &[]);
    }
}

impl Block for Proxy {
    fn capacity(&self) -> u64 {
        self.size
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        let arguments = [sector, into.len() as u64, until.0.nanos()];
        self.held.call(Call::Read, &arguments, into)?;
        self.held.data(into);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        let arguments = [sector, from.len() as u64, until.0.nanos()];
        self.held.call(Call::Write, &arguments, from)?;
        Ok(())
    }
}

impl Compute for Proxy {
    fn factorial(&mut self, n: u32, until: Deadline) -> Result<u32, DriverError> {
        let arguments = [n.into(), until.0.nanos()];
        let value = self.held.call(Call::Factorial, &arguments, &[])?;
        u32::try_from(value).map_err(|_| DriverError::Protocol("a factorial beyond 32 bits"))
    }

    fn round_trip(
        &mut self,
        out: &[u8],
        back: &mut [u8],
        until: Deadline,
    ) -> Result<(), DriverError> {
        let arguments = [out.len() as u64, until.0.nanos()];
        self.held.call(Call::RoundTrip, &arguments, out)?;
        self.held.data(back);
        Ok(())
    }

    fn round_trip_limit(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }
}

impl Operated for Proxy {
    fn operate(
        &mut self,
        operation: Operation,
        sector: usize,
        sectors: usize,
        data: &mut [u8],
    ) -> Result<Option<usize>, Refused> {
        let nth = Operation::ALL.iter().position(|it| *it == operation);
        let arguments = [nth.unwrap_or(usize::MAX), sector, sectors].map(|it| it as u64);
        let length = self.held.call(Call::Operate, &arguments, data);
        let length = length.map_err(|error| match error {
            // What the payload says of the crate's errors.
            DriverError::Protocol(said) => Refused::because(said),
            error => error.into(),
        })?;
        self.held.data(data);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok((operation == Operation::DeviceId).then_some(length))
    }
}

impl Serve for Proxy {
    fn call(
        &mut self,
        call: driver_planted::Call<'_>,
        into: &mut [u8],
        until: Deadline,
    ) -> Result<usize, DriverError> {
        use driver_planted::Call as Ask;
        let (call, number, from): (_, u64, &[u8]) = match call {
            Ask::Factorial(n) => (Planted::Factorial, n.into(), &[]),
            Ask::RoundTrip(out) => (Planted::RoundTrip, 0, out),
            Ask::Read(sector) => (Planted::Read, sector, &[]),
            Ask::Write(sector, from) => (Planted::Write, sector, from),
            Ask::Identify => (Planted::Identify, 0, &[]),
        };
        let data = [from, into].concat();
        let (bytes, room) = (from.len() as u64, into.len() as u64);
        let arguments = [call as u64, number, bytes, room, until.0.nanos()];
        let len = self.held.call(Call::AskPlanted, &arguments, &data)?;
        let mut data = data;
        self.held.data(&mut data);
        into.copy_from_slice(&data[from.len()..]);
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }
}
