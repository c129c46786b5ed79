//! The medium, and the block requests that touch it (virtio 1.2, 5.2.6).

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::{INDIRECT_DESC, RequestHeader, RequestStatus, SECTOR, device, request};
use cofferdam_seam::{BusPort, DmaFault, PciIdentity, Purpose};
use core::ops::Range;
use core::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

/// Sectors of the largest disk: 256 MiB.
pub const MAX_SECTORS: u64 = (256 << 20) / SECTOR;

/// Bytes of a request's header.
const HEADER: u64 = size_of::<RequestHeader>() as u64;

/// What disk to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkConfig {
    /// Sectors of 512 bytes; more than [`MAX_SECTORS`] are cut off.
    pub sectors: u64,
    /// How long one request takes. Requests are served one after the other.
    pub latency: Duration,
    /// Goes into the disk's identifier, so that two disks can be told apart.
    pub seed: u64,
    /// Whether indirect descriptors are offered.
    pub indirect: bool,
}

impl Default for BlkConfig {
    /// 256 KiB, 20 us a request, indirect descriptors offered.
    fn default() -> Self {
        Self {
            sectors: 512,
            latency: Duration::from_micros(20),
            seed: 0,
            indirect: true,
        }
    }
}

/// A virtio block device.
pub type VirtioBlk = Virtio<Disk>;

impl VirtioBlk {
    /// A device with a zeroed disk.
    pub fn new(config: BlkConfig) -> Self {
        Self::of(
            Disk::new(config.sectors, config.seed, config.latency),
            u64::from(config.indirect) * INDIRECT_DESC,
        )
    }
}

/// A disk. It survives every reset: only a request that completed has changed it.
pub struct Disk {
    latency: Duration,
    bytes: Vec<u8>,
    name: [u8; request::ID_BYTES],
    /// Where the data of a write waits until all of it has arrived.
    arriving: Vec<u8>,
}

/// Why a request failed without harm to anything else.
enum Failure {
    /// The request asks for what cannot be.
    Refused,
    /// A payload address cannot be reached.
    Payload,
    /// Nobody knows this kind of request.
    Unsupported,
}

impl From<DmaFault> for Failure {
    fn from(_: DmaFault) -> Self {
        Self::Payload
    }
}

impl Disk {
    /// A zeroed disk of at most [`MAX_SECTORS`], named after `seed`.
    fn new(sectors: u64, seed: u64, latency: Duration) -> Self {
        let bytes = usize::try_from(sectors.min(MAX_SECTORS) * SECTOR).unwrap_or(0);
        let mut name = [0; request::ID_BYTES];
        let text = format!("cfd{seed:016x}");
        name[..text.len()].copy_from_slice(text.as_bytes());
        Self {
            latency,
            bytes: vec![0; bytes],
            name,
            arriving: Vec::new(),
        }
    }

    /// Sectors on it.
    fn sectors(&self) -> u64 {
        self.bytes.len() as u64 / SECTOR
    }

    /// Carries out the request in `chain` and writes its status byte. Returns how many bytes from
    /// the start of the writable part were written (2.7.8.2). A request whose status cannot be
    /// told breaks the protocol: nobody would learn of its end.
    fn request(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<u64, Broken> {
        let room = chain
            .writable_len()
            .checked_sub(1)
            .ok_or(Broken::TooShort)?;
        let header = read_header(chain, bus)?;
        let sector = header.sector.get();
        let (written, status) = match self.transfer(header.kind.get(), sector, room, chain, bus) {
            Ok(written) => (written, RequestStatus::OK),
            Err(Failure::Unsupported) => (0, RequestStatus::UNSUPPORTED),
            Err(Failure::Refused | Failure::Payload) => (0, RequestStatus::IO_ERROR),
        };
        chain.write(room, &[status.0], Purpose::Status, bus)?;
        // The status byte continues what was written only if nothing is missing before it.
        Ok(if written == room {
            written + 1
        } else {
            written
        })
    }

    /// Moves the data of a request. Returns how many bytes of the writable part it filled.
    fn transfer(
        &mut self,
        kind: u32,
        sector: u64,
        room: u64,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<u64, Failure> {
        match kind {
            request::IN => {
                let range = self.range(sector, room)?;
                chain.write(0, &self.bytes[range], Purpose::Payload, bus)?;
                Ok(room)
            }
            request::OUT => {
                let length = chain.readable_len() - HEADER;
                let range = self.range(sector, length)?;
                // The medium changes only when all of the data has arrived.
                self.arriving.resize(range.len(), 0);
                chain.read(HEADER, &mut self.arriving, Purpose::Payload, bus)?;
                self.bytes[range].copy_from_slice(&self.arriving);
                Ok(0)
            }
            request::GET_ID => {
                let length = room.min(request::ID_BYTES as u64);
                let bytes = usize::try_from(length).map_err(|_| Failure::Refused)?;
                chain.write(0, &self.name[..bytes], Purpose::Payload, bus)?;
                Ok(length)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// The bytes of whole sectors on the disk.
    fn range(&self, sector: u64, length: u64) -> Result<Range<usize>, Failure> {
        let start = sector.checked_mul(SECTOR).ok_or(Failure::Refused)?;
        let end = start.checked_add(length).ok_or(Failure::Refused)?;
        if !length.is_multiple_of(SECTOR) || end > self.bytes.len() as u64 {
            return Err(Failure::Refused);
        }
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(start..end),
            _ => Err(Failure::Refused),
        }
    }
}

impl Kind for Disk {
    const IDENTITY: &'static PciIdentity = &identity::<2>(device::BLK, [0x01, 0x00, 0x00]);
    const QUEUES: u16 = 1;

    /// The capacity, then fields of features that are not offered (5.2.4).
    fn config(&self, at: u32) -> u8 {
        let capacity = self.sectors().to_le_bytes();
        let byte = usize::try_from(at).ok().and_then(|at| capacity.get(at));
        byte.copied().unwrap_or(0)
    }

    /// Requests are served one after the other.
    fn takes(&self, _queue: u16) -> Option<Duration> {
        Some(self.latency)
    }

    fn serve(
        &mut self,
        _queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        Ok(Served::written(self.request(chain, bus)?))
    }

    fn reset(&mut self) {
        // A request in flight has not touched the disk.
    }
}

fn read_header(chain: &Chain, bus: &mut BusPort<'_>) -> Result<RequestHeader, Broken> {
    if chain.readable_len() < HEADER {
        return Err(Broken::TooShort);
    }
    let mut header = RequestHeader::new_zeroed();
    chain.read(0, header.as_mut_bytes(), Purpose::Descriptor, bus)?;
    Ok(header)
}
