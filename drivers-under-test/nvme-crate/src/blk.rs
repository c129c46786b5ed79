//! The block driver: the crate behind its runtime, entered and left.

use crate::interrupts;
use crate::runtime::Runtime;
use crate::spec;
use cofferdam_instrument::platform::{Entered, Session};
use cofferdam_instrument::trap::Way;
use cofferdam_seam::service::{Block, DriverError, SECTOR, check_sectors};
use cofferdam_seam::{Bar, Deadline, RawDma, Width};
use std::rc::Rc;
use std::time::Duration;

/// How long a controller may take until it is ready for requests.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long a controller may take to stop.
const STOP_LIMIT: Duration = Duration::from_millis(100);

/// Sectors in one command; longer requests are cut.
const CHUNK: usize = 32;

/// The driver of one NVMe controller's first namespace.
///
/// After any error that is not [request only](DriverError::is_request_only), and after a panic of
/// the crate, it refuses further work; drop it and probe again.
pub struct NvmeCrate<H: RawDma + 'static> {
    /// Taken by drop only.
    runtime: Option<Runtime<H>>,
    session: Rc<Session<H>>,
    broken: bool,
}

impl<H: RawDma + 'static> NvmeCrate<H> {
    /// Takes the controller into service, with its registers trapped in the best way there is.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device or lacks something,
    /// [`Protocol`](DriverError::Protocol) if the crate gives it up,
    /// [`TimedOut`](DriverError::TimedOut) after a second, and what the host says.
    pub fn probe(host: H) -> Result<Self, DriverError> {
        Self::probe_trapped(host, Way::of("nvme_driver"))
    }

    /// As [`probe`](Self::probe), with its registers trapped in that way. Callbacks need a build of
    /// `cofferdam instrument`.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn probe_trapped(mut host: H, way: Way) -> Result<Self, DriverError> {
        if host.config_read(spec::CLASS, Width::Four)? >> 8 != spec::CLASS_NVME {
            return Err(DriverError::Unsupported("its class is not NVMe (01 08 02)"));
        }
        let registers = host.map_bar(Bar::ZERO)?;
        let config = interrupts::config(host.enable_interrupts(interrupts::WANTED)?);
        let until = Deadline::after(host.now(), PROBE_LIMIT);
        let session = Rc::new(Session::new(host, way));
        let _entered = Entered::new(&session);
        let runtime = Runtime::new(session.clone(), registers, config)?;
        // From here on a failure stops the controller, by drop.
        let mut driver = Self {
            runtime: Some(runtime),
            session: session.clone(),
            broken: false,
        };
        driver.request(|runtime| runtime.start(until))?;
        Ok(driver)
    }

    /// Runs a request on a driver that is well. It stays broken if the crate panics.
    fn request(
        &mut self,
        run: impl FnOnce(&mut Runtime<H>) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let runtime = self.runtime.as_mut().filter(|_| !self.broken);
        let runtime = runtime.ok_or(DriverError::Protocol(
            "an earlier request failed; drop the driver and probe again",
        ))?;
        let _entered = Entered::new(&self.session);
        self.broken = true;
        let result = run(runtime);
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }

    /// Sectors in one command, if the namespace has all those of the request.
    fn check(&self, sector: u64, len: usize) -> Result<usize, DriverError> {
        check_sectors(sector, len, self.capacity())?;
        let longest = self.runtime.as_ref().map_or(1, Runtime::longest);
        Ok(CHUNK.min(longest))
    }
}

impl<H: RawDma + 'static> Block for NvmeCrate<H> {
    fn capacity(&self) -> u64 {
        self.runtime.as_ref().map_or(0, Runtime::capacity)
    }

    fn read(&mut self, sector: u64, into: &mut [u8], until: Deadline) -> Result<(), DriverError> {
        let chunk = self.check(sector, into.len())?;
        self.request(|runtime| {
            let starts = (sector..).step_by(chunk);
            for (lba, bytes) in starts.zip(into.chunks_mut(chunk * SECTOR)) {
                runtime.read(lba, bytes, until)?;
            }
            Ok(())
        })
    }

    fn write(&mut self, sector: u64, from: &[u8], until: Deadline) -> Result<(), DriverError> {
        let chunk = self.check(sector, from.len())?;
        self.request(|runtime| {
            let starts = (sector..).step_by(chunk);
            for (lba, bytes) in starts.zip(from.chunks(chunk * SECTOR)) {
                runtime.write(lba, bytes, until)?;
            }
            runtime.flush(until)
        })
    }
}

impl<H: RawDma + 'static> Drop for NvmeCrate<H> {
    /// Stops the device before its memory goes, and takes the bus away from one that does not
    /// comply.
    fn drop(&mut self) {
        let Some(mut runtime) = self.runtime.take() else {
            return;
        };
        let until = Deadline::after(self.session.host().now(), STOP_LIMIT);
        let _entered = Entered::new(&self.session);
        let _ = runtime.stop(until);
        let _ = self.session.host().set_bus_master(false);
        runtime.reclaim();
    }
}
