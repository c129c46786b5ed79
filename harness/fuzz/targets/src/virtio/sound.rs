//! The sound driver.

use super::hal::{FuzzHal, HostRegisters};
use super::{OverTransport, VIRTIO_DRIVERS, call};
use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_fuzz_targets_virtio::transport::FuzzTransport;
use cofferdam_seam::Device;
use std::time::Duration;
use vdevice_virtio::{SoundConfig, VirtioSound};
use virtio_drivers::Error;
use virtio_drivers::device::sound::{PcmFeatures, PcmFormat, PcmRate, VirtIOSound};
use virtio_drivers::transport::{DeviceType, Transport};

/// Bytes of the device's configuration (virtio 1.2, 5.14.4).
const CONFIG: usize = 12;

/// The stream. Its number is an index that the crate leaves to its user to check.
const STREAM: u32 = 0;
/// Periods in flight at most.
const IN_FLIGHT: usize = 20;

const PERIOD: Argument = Argument {
    name: "period",
    least: 1,
    most: 256,
};

const PERIODS: Argument = Argument {
    name: "periods",
    least: 1,
    most: 12,
};

const CALLS: &[CallSpec] = &[
    call("set-parameters", &[PERIOD]),
    call("prepare", &[]),
    call("start", &[]),
    call("stop", &[]),
    call("release", &[]),
    call("play", &[PERIODS]),
    call("submit", &[]),
    call("complete", &[]),
    call("streams", &[]),
    call("formats", &[]),
    call("remap-jack", &[]),
    call("notification", &[]),
    call("ack-interrupt", &[]),
];

/// The target.
pub static SOUND: Sound = Sound;

/// `VirtIOSound`, and a loudspeaker.
pub struct Sound;

impl Target for Sound {
    fn name(&self) -> &'static str {
        "virtio-sound"
    }

    fn driver(&self) -> Crate {
        VIRTIO_DRIVERS
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(VirtioSound::new(SoundConfig {
            latency: Duration::ZERO,
        }))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        self.start_over(FuzzTransport::new(
            HostRegisters(host),
            DeviceType::Sound,
            CONFIG,
        ))
    }

    /// "This is a blocking method that will not return until the audio playback is complete."
    fn blocks(&self) -> bool {
        true
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(vdevice_virtio::Decoder::default())
    }
}

impl OverTransport for Sound {
    fn start_over<T: Transport + 'static>(&self, transport: T) -> Result<Box<dyn Driver>, Refused> {
        let sound = VirtIOSound::new(transport).map_err(Refused::because)?;
        Ok(Box::new(Running {
            sound,
            period: 0,
            tokens: Vec::new(),
        }))
    }
}

struct Running<T: Transport> {
    sound: VirtIOSound<FuzzHal, T>,
    /// Bytes of a period, once the crate took them.
    period: u32,
    /// Periods in flight, in order.
    tokens: Vec<u16>,
}

impl<T: Transport> Driver for Running<T> {
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        self.carry_out(call).map_err(Refused::because)
    }
}

impl<T: Transport> Running<T> {
    fn carry_out(&mut self, call: Call<'_>) -> virtio_drivers::Result {
        let sound = &mut self.sound;
        if sound.streams() == STREAM {
            return Err(Error::NotReady);
        }
        let period = self.period as usize;
        match call.name() {
            "set-parameters" => {
                let period = u32::try_from(call.argument(0)).unwrap_or(1);
                let features = PcmFeatures::empty();
                let (format, rate) = (PcmFormat::S16, PcmRate::Rate48000);
                let buffer = 2 * period;
                sound.pcm_set_params(STREAM, buffer, period, features, 2, format, rate)?;
                self.period = period;
                Ok(())
            }
            "prepare" => sound.pcm_prepare(STREAM),
            "start" => sound.pcm_start(STREAM),
            "stop" => sound.pcm_stop(STREAM),
            "release" => sound.pcm_release(STREAM),
            "play" => sound.pcm_xfer(STREAM, &vec![0x5a; call.size(0) * period]),
            // The length of a period is for the user to get right, and so are tokens.
            "submit" if period > 0 && self.tokens.len() < IN_FLIGHT => {
                let token = sound.pcm_xfer_nb(STREAM, &vec![0x5a; period])?;
                self.tokens.push(token);
                Ok(())
            }
            "complete" if !self.tokens.is_empty() => {
                sound.pcm_xfer_ok(self.tokens[0])?;
                self.tokens.remove(0);
                Ok(())
            }
            "streams" => {
                sound.output_streams()?;
                sound.input_streams().map(|_| ())
            }
            "formats" => {
                sound.rates_supported(STREAM)?;
                sound.formats_supported(STREAM)?;
                sound.features_supported(STREAM)?;
                sound.channel_range_supported(STREAM).map(|_| ())
            }
            "remap-jack" => sound.jack_remap(0, 1, 1),
            "notification" => sound.latest_notification().map(|_| ()),
            "ack-interrupt" => {
                sound.ack_interrupt();
                Ok(())
            }
            _ => Err(Error::NotReady),
        }
    }
}
