//! The entropy device (virtio 1.2, 5.4).

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose, SplitMix64};
use core::time::Duration;

/// Bytes given at most at one time; the device may use less than the buffer (5.4.6.2).
const MOST: u64 = 4096;

/// What entropy device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngConfig {
    /// Decides the bytes: the same seed gives the same stream.
    pub seed: u64,
    /// How long one request takes.
    pub latency: Duration,
}

impl Default for RngConfig {
    /// Seed 0, 20 us a request.
    fn default() -> Self {
        Self {
            seed: 0,
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio entropy device. Its bytes are anything but secret.
pub type VirtioRng = Virtio<Entropy>;

impl VirtioRng {
    /// A device at the beginning of its stream.
    pub fn new(config: RngConfig) -> Self {
        let kind = Entropy {
            source: SplitMix64::new(config.seed),
            latency: config.latency,
            bytes: Vec::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// The source. A reset does not start it over.
pub struct Entropy {
    source: SplitMix64,
    latency: Duration,
    /// Reused from request to request.
    bytes: Vec<u8>,
}

impl Kind for Entropy {
    const IDENTITY: &'static PciIdentity = &identity::<2>(device::RNG, [0x10, 0x80, 0x00]);
    const QUEUES: u16 = 1;

    /// There is none (5.4.4).
    fn config(&self, _at: u32) -> u8 {
        0
    }

    fn takes(&self, _queue: u16) -> Option<Duration> {
        Some(self.latency)
    }

    /// At least one byte (5.4.6.2), so a chain without room for one breaks the protocol.
    fn serve(
        &mut self,
        _queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        let length = chain.writable_len().min(MOST);
        if length == 0 {
            return Err(Broken::TooShort);
        }
        self.bytes.clear();
        while (self.bytes.len() as u64) < length {
            self.bytes.extend(self.source.number().to_le_bytes());
        }
        self.bytes
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        chain.write(0, &self.bytes, Purpose::Payload, bus)?;
        Ok(Served::written(length))
    }

    fn reset(&mut self) {
        // What was given out is not given out again.
    }
}
