//! The sound device (virtio 1.2, 5.14): a loudspeaker behind one jack, one stream that plays 16-bit
//! samples at 48 kHz, and its channel map.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::sound::{
    CONTROL, ChmapInfo, JackInfo, OUTPUT, PcmInfo, PcmStatus, QueryInfo, RATE_48000, S16,
    SetParams, TRANSMIT, request, status,
};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose};
use core::time::Duration;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Frames the loudspeaker plays in a second.
const RATE: u64 = 48_000;
/// Bytes of a sample.
const SAMPLE: u64 = 2;
/// Bytes of the longest buffer of a stream.
const BUFFER: u32 = 1 << 16;
/// Bytes before the samples: the stream's number.
const XFER: u64 = 4;
/// Bytes of the status behind them.
const STATUS: u64 = size_of::<PcmStatus>() as u64;
/// Bytes of the status of a control request.
const CODE: u64 = 4;
/// Bytes of the longest request.
const LONGEST: usize = size_of::<SetParams>();

/// What sound device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundConfig {
    /// How long one control request takes.
    pub latency: Duration,
}

impl Default for SoundConfig {
    /// 20 us a request.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio sound device.
pub type VirtioSound = Virtio<Loudspeaker>;

impl VirtioSound {
    /// A device whose stream has no parameters yet.
    pub fn new(config: SoundConfig) -> Self {
        let kind = Loudspeaker {
            latency: config.latency,
            state: State::Idle,
            channels: 1,
            period: 0,
            samples: Vec::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// Where the stream is in its life (5.14.6.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Without parameters.
    Idle,
    Parameters,
    Prepared,
    Started,
    Stopped,
    Released,
}

impl State {
    /// The state after a command, if it is one for this state.
    fn after(self, code: u32) -> Option<Self> {
        use State::{Idle, Parameters, Prepared, Released, Started, Stopped};
        Some(match (code, self) {
            (request::PCM_SET_PARAMS, Idle | Parameters | Prepared | Released) => Parameters,
            (request::PCM_PREPARE, Parameters | Prepared | Released) => Prepared,
            (request::PCM_START, Prepared | Stopped) => Started,
            (request::PCM_STOP, Started) => Stopped,
            (request::PCM_RELEASE, Prepared | Stopped) => Released,
            _ => return None,
        })
    }
}

/// The loudspeaker and its stream.
pub struct Loudspeaker {
    latency: Duration,
    state: State,
    channels: u8,
    /// Bytes of a period.
    period: u32,
    /// Where the samples arrive; reused, and heard by nobody.
    samples: Vec<u8>,
}

impl Loudspeaker {
    /// How long that many bytes are heard.
    fn duration(&self, bytes: u32) -> Duration {
        let second = RATE * SAMPLE * u64::from(self.channels);
        Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / second)
    }

    /// Carries out a control request: its status, what follows it, and whether what is queued is to
    /// be given back first.
    fn control(&mut self, message: &[u8], room: u64) -> (u32, Vec<u8>, Option<u16>) {
        let word = |at: usize| {
            let bytes = message.get(at..)?;
            let (word, _) = zerocopy::little_endian::U32::read_from_prefix(bytes).ok()?;
            Some(word.get())
        };
        let code = word(0).unwrap_or(0);
        let info = match code {
            request::JACK_INFO => query(message, room, jack().as_bytes()),
            request::PCM_INFO => query(message, room, stream().as_bytes()),
            request::CHMAP_INFO => query(message, room, map().as_bytes()),
            request::PCM_SET_PARAMS..=request::PCM_STOP => {
                let known = word(4) == Some(0);
                let status = if known {
                    self.command(code, message)
                } else {
                    status::BAD_MSG
                };
                let done = code == request::PCM_RELEASE && status == status::OK;
                return (status, Vec::new(), done.then_some(TRANSMIT));
            }
            _ => Err(status::NOT_SUPP),
        };
        match info {
            Ok(body) => (status::OK, body, None),
            Err(error) => (error, Vec::new(), None),
        }
    }

    /// A command to the stream.
    fn command(&mut self, code: u32, message: &[u8]) -> u32 {
        let Some(next) = self.state.after(code) else {
            return status::BAD_MSG;
        };
        if code == request::PCM_SET_PARAMS {
            let Ok((asked, _)) = SetParams::read_from_prefix(message) else {
                return status::BAD_MSG;
            };
            let (buffer, period) = (asked.buffer_bytes.get(), asked.period_bytes.get());
            if asked.padding != 0 || period == 0 || !buffer.is_multiple_of(period) || buffer == 0 {
                return status::BAD_MSG;
            }
            let supported = asked.format == S16
                && asked.rate == RATE_48000
                && (1..=2).contains(&asked.channels)
                && asked.features.get() == 0
                && buffer <= BUFFER;
            if !supported {
                return status::NOT_SUPP;
            }
            self.channels = asked.channels;
            self.period = period;
        }
        self.state = next;
        status::OK
    }

    /// Sound has been played, or is given back because the stream was released. Samples come in
    /// buffers no longer than a period.
    fn play(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<Served, Broken> {
        let length = chain
            .readable_len()
            .checked_sub(XFER)
            .ok_or(Broken::TooShort)?;
        if chain.writable_len() < STATUS {
            return Err(Broken::TooShort);
        }
        let mut stream = [0; 4];
        chain.read(0, &mut stream, Purpose::Descriptor, bus)?;
        let status = if stream != [0; 4] || length > self.period.into() {
            status::BAD_MSG
        } else if self.state != State::Started {
            status::IO_ERR
        } else {
            self.samples.resize(usize::try_from(length).unwrap_or(0), 0);
            chain.read(XFER, &mut self.samples, Purpose::Payload, bus)?;
            status::OK
        };
        let answer = PcmStatus {
            status: status.into(),
            latency: 0.into(),
        };
        chain.write(0, answer.as_bytes(), Purpose::Status, bus)?;
        Ok(Served::written(STATUS))
    }
}

/// The items a query asks about, of which there is one.
fn query(message: &[u8], room: u64, item: &[u8]) -> Result<Vec<u8>, u32> {
    let (asked, _) = QueryInfo::read_from_prefix(message).map_err(|_| status::BAD_MSG)?;
    let (start, count, size) = (asked.start.get(), asked.count.get(), asked.size.get());
    let end = start.checked_add(count).ok_or(status::BAD_MSG)?;
    if end > 1 || (size as usize) < item.len() || room < u64::from(count) * u64::from(size) {
        return Err(status::BAD_MSG);
    }
    let mut body = Vec::new();
    if count == 1 {
        body.extend(item);
        // The driver knows of more fields: they are zero. No reply is longer than a page.
        let size = usize::try_from(size).unwrap_or(0).min(4096);
        body.resize(size.max(item.len()), 0);
    }
    Ok(body)
}

/// The jack: something is plugged in, nothing can be remapped.
fn jack() -> JackInfo {
    JackInfo {
        connected: 1,
        ..JackInfo::new_zeroed()
    }
}

fn stream() -> PcmInfo {
    PcmInfo {
        formats: (1 << S16).into(),
        rates: (1 << RATE_48000).into(),
        direction: OUTPUT,
        channels_min: 1,
        channels_max: 2,
        ..PcmInfo::new_zeroed()
    }
}

/// Front left and front right.
fn map() -> ChmapInfo {
    let mut map = ChmapInfo {
        direction: OUTPUT,
        channels: 2,
        ..ChmapInfo::new_zeroed()
    };
    map.positions[..2].copy_from_slice(&[3, 4]);
    map
}

impl Kind for Loudspeaker {
    const IDENTITY: &'static PciIdentity = &identity::<5>(device::SOUND, [0x04, 0x01, 0x00]);
    const QUEUES: u16 = 4;

    /// One jack, one stream, one channel map (5.14.4).
    fn config(&self, at: u32) -> u8 {
        u8::from(matches!(at, 0 | 4 | 8))
    }

    /// Sound that was queued before the start is played after it.
    fn watches(&self, queue: u16) -> bool {
        queue == TRANSMIT
    }

    /// Sound takes as long as it is heard; before the start it waits. There are no events, and
    /// nothing is recorded.
    fn takes(&self, queue: u16) -> Option<Duration> {
        match queue {
            CONTROL => Some(self.latency),
            TRANSMIT => match self.state {
                State::Started => Some(self.duration(self.period)),
                State::Prepared | State::Stopped => None,
                _ => Some(self.latency),
            },
            _ => None,
        }
    }

    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        if queue == TRANSMIT {
            return self.play(chain, bus);
        }
        let room = chain.writable_len().checked_sub(CODE);
        let room = room.ok_or(Broken::TooShort)?;
        let mut message = [0; LONGEST];
        let length = chain.readable_len().min(LONGEST as u64);
        let message = &mut message[..usize::try_from(length).unwrap_or(0)];
        chain.read(0, message, Purpose::Descriptor, bus)?;
        let (status, body, after) = self.control(message, room);
        chain.write(0, &status.to_le_bytes(), Purpose::Status, bus)?;
        chain.write(CODE, &body, Purpose::Payload, bus)?;
        Ok(Served {
            after,
            ..Served::written(CODE + body.len() as u64)
        })
    }

    /// The stream has no parameters again.
    fn reset(&mut self) {
        self.state = State::Idle;
        self.channels = 1;
        self.period = 0;
    }
}
