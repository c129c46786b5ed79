//! The network driver: the crate behind its runtime, entered and left.

use crate::runtime::Runtime;
use crate::spec;
use cofferdam_instrument::platform::{Entered, Session};
use cofferdam_instrument::trap::Way;
use cofferdam_seam::service::{DriverError, Net};
use cofferdam_seam::{Bar, Deadline, RawDma, Width};
use eth_intel::E1000;
use std::rc::Rc;

/// The driver of one controller.
///
/// After any error that is not [request only](DriverError::is_request_only) or a timeout, and after a
/// panic of the crate, it refuses further work; drop it and probe again.
pub struct EthIntel<H: RawDma + 'static> {
    /// Taken by drop only.
    runtime: Option<Runtime<H>>,
    session: Rc<Session<H>>,
    broken: bool,
}

impl<H: RawDma + 'static> EthIntel<H> {
    /// Takes the controller into service, with its registers trapped in the best way there is. The
    /// link need not be up yet.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](DriverError::Unsupported) if it is another device,
    /// [`Protocol`](DriverError::Protocol) if the crate gives it up, and what the host says.
    pub fn probe(host: H) -> Result<Self, DriverError> {
        // The crate's generic code is compiled here.
        let ways = ["eth_intel", "driver_eth_intel"].map(Way::of);
        let all = ways.iter().all(|way| *way == Way::Callbacks);
        Self::probe_trapped(host, if all { Way::Callbacks } else { Way::Faults })
    }

    /// As [`probe`](Self::probe), with its registers trapped in that way. Callbacks need a build of
    /// `cofferdam instrument` with the crates `eth_intel` and `driver_eth_intel`.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn probe_trapped(mut host: H, way: Way) -> Result<Self, DriverError> {
        let [a, b, c, d] = host
            .config_read(spec::IDENTIFIERS, Width::Four)?
            .to_le_bytes();
        let (vendor, device) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if !E1000::check_vid_did(vendor, device) {
            return Err(DriverError::Unsupported(
                "it is neither an 82540EM nor an 82545EM (8086:100e, 8086:100f)",
            ));
        }
        let registers = host.map_bar(Bar::ZERO)?;
        host.enable_interrupts(1)?;
        let session = Rc::new(Session::new(host, way));
        let _entered = Entered::new(&session);
        let runtime = Runtime::new(session.clone(), registers)?;
        // From here on a failure stops the controller, by drop.
        let mut driver = Self {
            runtime: Some(runtime),
            session: session.clone(),
            broken: false,
        };
        driver.request(Runtime::start)?;
        Ok(driver)
    }

    /// Runs a request on a driver that is well. It stays broken if the crate panics.
    fn request<R>(
        &mut self,
        run: impl FnOnce(&mut Runtime<H>) -> Result<R, DriverError>,
    ) -> Result<R, DriverError> {
        let runtime = self.runtime.as_mut().filter(|_| !self.broken);
        let runtime = runtime.ok_or(DriverError::Protocol(
            "an earlier request failed; drop the driver and probe again",
        ))?;
        let _entered = Entered::new(&self.session);
        self.broken = true;
        let result = run(runtime);
        self.broken = matches!(
            &result,
            Err(error) if !error.is_request_only() && !matches!(error, DriverError::TimedOut(_))
        );
        result
    }
}

impl<H: RawDma + 'static> Net for EthIntel<H> {
    fn address(&self) -> [u8; 6] {
        self.runtime.as_ref().map_or([0; 6], Runtime::address)
    }

    fn is_link_up(&mut self) -> Result<bool, DriverError> {
        self.request(|runtime| Ok(runtime.is_link_up()))
    }

    fn send(&mut self, frame: &[u8], until: Deadline) -> Result<(), DriverError> {
        if !(spec::HEADER..=spec::MAX_FRAME).contains(&frame.len()) {
            return Err(DriverError::BadRequest(
                "a frame has 14 to 1514 bytes, without its check sequence",
            ));
        }
        self.request(|runtime| runtime.send(frame, until))
    }

    fn receive(&mut self, into: &mut [u8], until: Deadline) -> Result<usize, DriverError> {
        self.request(|runtime| runtime.receive(into, until))
    }
}

impl<H: RawDma + 'static> Drop for EthIntel<H> {
    /// Stops the device before its memory goes, and takes the bus away from one that does not
    /// comply.
    fn drop(&mut self) {
        let Some(mut runtime) = self.runtime.take() else {
            return;
        };
        let _entered = Entered::new(&self.session);
        let _ = runtime.stop();
        let _ = self.session.host().set_bus_master(false);
        drop(runtime);
    }
}
