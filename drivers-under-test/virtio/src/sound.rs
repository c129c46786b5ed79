//! The sound driver: the crate's `VirtIOSound`.

use crate::hal::SeamHal;
use crate::instance::{Class, Instance, from_probe, from_request};
use crate::transport::SeamTransport;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, RawDma};
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::device::sound::{PcmFeatures, PcmFormat, PcmRate, VirtIOSound};
use virtio_drivers::transport::DeviceType;

/// Bytes of the longest period.
pub const LONGEST_PERIOD: u32 = 4096;

/// The crate's 32 buffers for events, a request with its response, and a period with its status.
const CLASS: Class = Class {
    kind: DeviceType::Sound,
    other: "PCI ID is not 1af4:1059",
    arena: 4 * PAGE_SIZE,
    buffers: 38,
    waits: &[0],
};

type Crate<H> = VirtIOSound<SeamHal, SeamTransport<H>>;

/// The driver of one virtio sound device. It plays: the crate cannot record.
pub struct VirtioSound<H: RawDma + 'static> {
    sound: Instance<H, Crate<H>>,
    /// Bytes of a period of the stream that is open, and its number.
    open: Option<(u32, usize)>,
}

/// All errors but those of the probe: [`Io`](DriverError::Io) for a request that the device refuses,
/// [`TimedOut`](DriverError::TimedOut) at the deadline, and what breaks the protocol.
impl<H: RawDma + 'static> VirtioSound<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// As [`VirtioBlk::probe`](crate::VirtioBlk::probe).
    pub fn probe(host: H) -> Result<Self, DriverError> {
        let start = |transport| Crate::new(transport).map_err(from_probe);
        Ok(Self {
            sound: Instance::probe(host, CLASS, start)?,
            open: None,
        })
    }

    /// The streams that play.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn outputs(&mut self, until: Deadline) -> Result<Vec<u32>, DriverError> {
        self.sound.ask(until, VirtIOSound::output_streams)
    }

    /// Starts a stream of 16-bit samples at 48 kHz on two channels, two periods long.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn open(&mut self, stream: u32, period: u32, until: Deadline) -> Result<(), DriverError> {
        if period == 0 || period > LONGEST_PERIOD {
            return Err(DriverError::BadRequest("no period of 1 to 4096 bytes"));
        }
        self.check(stream, until)?;
        self.sound.ask(until, |sound| {
            let features = PcmFeatures::empty();
            let (format, rate) = (PcmFormat::S16, PcmRate::Rate48000);
            sound.pcm_set_params(stream, 2 * period, period, features, 2, format, rate)?;
            sound.pcm_prepare(stream)?;
            sound.pcm_start(stream)
        })?;
        self.open = usize::try_from(period).ok().map(|bytes| (stream, bytes));
        Ok(())
    }

    /// Plays one period, and waits until it has been heard.
    ///
    /// # Errors
    ///
    /// See above; [`BadRequest`](DriverError::BadRequest) unless a stream is open and the samples are
    /// one period of it.
    pub fn play(&mut self, samples: &[u8], until: Deadline) -> Result<(), DriverError> {
        let stream = match self.open {
            Some((stream, period)) if period == samples.len() => stream,
            _ => return Err(DriverError::BadRequest("not one period of an open stream")),
        };
        self.sound.begin(until)?;
        let token = self.sound.call(|sound| sound.pcm_xfer_nb(stream, samples));
        let token = token.and_then(|token| token.map_err(from_request));
        let token = self.sound.end(token)?;
        // The crate tells only by an error that it is not done yet.
        let played = self.sound.await_some(until, |sound| {
            use virtio_drivers::Error::NotReady;
            match sound.pcm_xfer_ok(token) {
                Ok(()) => Ok(Some(())),
                Err(NotReady) => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        let timed_out = DriverError::TimedOut("the sound to be played");
        // A period that is still out would answer for the next one.
        self.sound.end(played.ok_or(timed_out))
    }

    /// Stops the stream and releases it.
    ///
    /// # Errors
    ///
    /// See above; [`BadRequest`](DriverError::BadRequest) unless a stream is open.
    pub fn close(&mut self, until: Deadline) -> Result<(), DriverError> {
        let open = self.open.take();
        let (stream, _) = open.ok_or(DriverError::BadRequest("no stream is open"))?;
        self.sound.ask(until, |sound| {
            sound.pcm_stop(stream)?;
            sound.pcm_release(stream)
        })
    }

    /// The crate takes a stream's number as an index unchecked.
    fn check(&mut self, stream: u32, until: Deadline) -> Result<(), DriverError> {
        if self.outputs(until)?.contains(&stream) {
            Ok(())
        } else {
            Err(DriverError::BadRequest("no such stream plays"))
        }
    }
}
