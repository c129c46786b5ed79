//! One driver of the crate in service: its start, the calls into it, the waiting, its end.

use crate::abandon::catch;
use crate::hal::Entered;
use crate::session::{Session, Shared};
use crate::spec::{self, common};
use crate::structure::{Structure, Structures};
use crate::transport::{SeamTransport, Vectors};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma, Vector, Wake, Width};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use virtio_drivers::Error;
use virtio_drivers::transport::DeviceType;

/// How long a device may take from its reset to DRIVER_OK.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// What the adapter has to know of a kind of driver.
#[derive(Clone, Copy)]
pub struct Class {
    /// The device it drives.
    pub kind: DeviceType,
    /// What to say of another device.
    pub other: &'static str,
    /// Bytes for the buffers it shares at one time.
    pub arena: usize,
    /// How many they are at most.
    pub buffers: usize,
    /// The queues whose requests the crate waits for by reading memory without end: our transport
    /// waits first, at the doorbell.
    pub waits: &'static [u16],
}

/// A driver of the crate, `D`, with what it stands on.
///
/// After any error that is not [request only](DriverError::is_request_only), and after a panic of
/// the crate, it refuses further work; drop it and probe again.
pub struct Instance<H: RawDma + 'static, D> {
    /// Taken by drop only.
    driver: Option<D>,
    /// The transport's too; for the device status, which the crate never reads.
    common: Structure<H::Mmio>,
    /// The transport's too; for a pin that is to be released.
    isr: Structure<H::Mmio>,
    pub vectors: Vectors,
    session: Shared<H>,
    broken: bool,
}

impl<H: RawDma + 'static, D> Instance<H, D> {
    /// Takes the device into service with the crate's `start`.
    pub fn probe(
        mut host: H,
        class: Class,
        start: impl FnOnce(SeamTransport<H>) -> Result<D, DriverError>,
    ) -> Result<Self, DriverError> {
        if host.config_read(0, Width::Four)? != spec::pci_id(class.kind as u8) {
            return Err(DriverError::Unsupported(class.other));
        }
        let structures = Structures::find(&mut host)?;
        let (common, isr) = (structures.common.clone(), structures.isr.clone());
        let vectors = Vectors::new(host.enable_interrupts(Vectors::WANTED)?);
        let until = Deadline::after(host.now(), PROBE_LIMIT);
        let session = Rc::new(RefCell::new(Session::new(
            host,
            class.arena,
            class.buffers,
            until,
        )?));
        let transport = SeamTransport::new(structures, vectors, session.clone(), class);

        let entered = Entered::new(session.clone());
        let driver = catch(|| start(transport))??;
        drop(entered);
        Ok(Self {
            driver: Some(driver),
            common,
            isr,
            vectors,
            session,
            broken: false,
        })
    }

    /// The driver; none only while it is dropped.
    pub fn driver(&self) -> Option<&D> {
        self.driver.as_ref()
    }

    /// Calls into the crate.
    pub fn call<R>(&mut self, call: impl FnOnce(&mut D) -> R) -> Result<R, DriverError> {
        let Some(driver) = &mut self.driver else {
            return Err(DriverError::Protocol("the driver is being dropped"));
        };
        let _entered = Entered::new(self.session.clone());
        catch(|| call(driver))
    }

    /// Begins a request on a driver that is well. It stays broken if the crate panics.
    pub fn begin(&mut self, until: Deadline) -> Result<(), DriverError> {
        if self.broken {
            return Err(DriverError::Protocol(
                "an earlier request failed; drop the driver and probe again",
            ));
        }
        self.session.borrow_mut().begin(until);
        self.broken = true;
        Ok(())
    }

    /// Ends a request.
    pub fn end<R>(&mut self, result: Result<R, DriverError>) -> Result<R, DriverError> {
        self.broken = matches!(&result, Err(error) if !error.is_request_only());
        result
    }

    /// One call into the crate that ends by itself, with its errors made ours.
    pub fn ask<R>(
        &mut self,
        until: Deadline,
        call: impl FnOnce(&mut D) -> Result<R, Error>,
    ) -> Result<R, DriverError> {
        self.begin(until)?;
        let result = match self.call(call) {
            Ok(result) => result.map_err(from_request),
            Err(abandoned) => Err(abandoned),
        };
        self.end(result)
    }

    /// Calls into the crate until it has something, or until the deadline: then `None`.
    pub fn await_some<R>(
        &mut self,
        until: Deadline,
        look: impl FnMut(&mut D) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, DriverError> {
        self.begin(until)?;
        let result = self.look_until(until, look);
        self.end(result)
    }

    fn look_until<R>(
        &mut self,
        until: Deadline,
        mut look: impl FnMut(&mut D) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, DriverError> {
        loop {
            if let Some(found) = self.call(&mut look)?.map_err(from_request)? {
                return Ok(Some(found));
            }
            let wake = self.wait(until)?;
            if !self.vectors.is_msix() {
                // Releases the line.
                self.isr.read8(0);
            }
            if let Some(found) = self.call(&mut look)?.map_err(from_request)? {
                return Ok(Some(found));
            }
            self.check_status()?;
            // A storm wakes us for ever.
            let mut session = self.session.borrow_mut();
            if wake == Wake::TimedOut || until.passed(session.host.now()) {
                return Ok(None);
            }
            session.host.relax()?;
        }
    }

    /// Waits for an interrupt.
    pub fn wait(&self, until: Deadline) -> Result<Wake, DriverError> {
        let vectors: [Vector; 2] = self.vectors.all();
        Ok(self.session.borrow_mut().host.wait_any(&vectors, until)?)
    }

    /// One turn of a poll loop.
    pub fn poll(&self, what: &'static str) -> Result<(), DriverError> {
        self.session.borrow_mut().poll(what)
    }

    /// Whether the device gave up.
    pub fn check_status(&self) -> Result<(), DriverError> {
        spec::check_status(self.common.read8(common::DEVICE_STATUS))
    }
}

impl<H: RawDma + 'static, D> Drop for Instance<H, D> {
    /// The transport resets the device before the crate frees the rings, and the slots go with
    /// the session.
    fn drop(&mut self) {
        let _entered = Entered::new(self.session.clone());
        drop(self.driver.take());
    }
}

/// The crate's error from its start.
pub fn from_probe(error: Error) -> DriverError {
    match error {
        Error::InvalidParam => DriverError::Unsupported("a queue or a length is too short"),
        Error::AlreadyUsed => DriverError::Protocol("a queue is enabled after a reset"),
        Error::ConfigSpaceMissing | Error::ConfigSpaceTooSmall => {
            DriverError::Unsupported("the device configuration is too short")
        }
        _ => DriverError::Protocol("the start failed in virtio-drivers"),
    }
}

/// The crate's error from a request.
pub fn from_request(error: Error) -> DriverError {
    match error {
        Error::IoError | Error::Unsupported => DriverError::Io,
        Error::InvalidParam => DriverError::BadRequest("virtio-drivers refuses the parameters"),
        Error::NotReady => DriverError::Protocol("a request is used but was not done"),
        Error::WrongToken => DriverError::Protocol("the used element changed under our eyes"),
        _ => DriverError::Protocol("the request failed in virtio-drivers"),
    }
}
