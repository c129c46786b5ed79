//! The medium, and the block requests that touch it (virtio 1.2, 5.2.6).

use crate::queue::{Broken, Chain, Segment, pieces, total};
use crate::spec::{RequestHeader, RequestStatus, SECTOR, request};
use cofferdam_seam::{BusPort, DmaFault, Purpose};
use core::ops::Range;
use zerocopy::{FromZeros, IntoBytes};

/// Sectors of the largest disk: 1 MiB.
pub const MAX_SECTORS: u64 = 2048;

/// Bytes of a request's header.
const HEADER: u64 = size_of::<RequestHeader>() as u64;

/// A disk. It survives every reset: only a request that completed has changed it.
pub(crate) struct Disk {
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
    pub fn new(sectors: u64, seed: u64) -> Self {
        let bytes = usize::try_from(sectors.min(MAX_SECTORS) * SECTOR).unwrap_or(0);
        let mut name = [0; request::ID_BYTES];
        let text = format!("cfd{seed:016x}");
        name[..text.len()].copy_from_slice(text.as_bytes());
        Self {
            bytes: vec![0; bytes],
            name,
            arriving: Vec::new(),
        }
    }

    /// Sectors on it.
    pub fn sectors(&self) -> u64 {
        self.bytes.len() as u64 / SECTOR
    }

    /// Carries out the request in `chain` and writes its status byte. Returns how many bytes from
    /// the start of the writable part were written (2.7.8.2). A request whose status cannot be
    /// told breaks the protocol: nobody would learn of its end.
    pub fn serve(&mut self, chain: &Chain, bus: &mut BusPort<'_>) -> Result<u32, Broken> {
        let room = total(&chain.writable)
            .checked_sub(1)
            .ok_or(Broken::TooShort)?;
        let header = read_header(&chain.readable, bus)?;
        let sector = header.sector.get();
        let (written, status) = match self.transfer(header.kind.get(), sector, room, chain, bus) {
            Ok(written) => (written, RequestStatus::OK),
            Err(Failure::Unsupported) => (0, RequestStatus::UNSUPPORTED),
            Err(Failure::Refused | Failure::Payload) => (0, RequestStatus::IO_ERROR),
        };
        for (at, _) in pieces(&chain.writable, room, 1) {
            bus.dma_write(at, &[status.0], Purpose::Status)?;
        }
        // The status byte continues what was written only if nothing is missing before it.
        let prefix = if written == room {
            written + 1
        } else {
            written
        };
        Ok(u32::try_from(prefix).unwrap_or(u32::MAX))
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
                write_payload(&chain.writable, &self.bytes[range], bus)?;
                Ok(room)
            }
            request::OUT => {
                let length = total(&chain.readable) - HEADER;
                let range = self.range(sector, length)?;
                // The medium changes only when all of the data has arrived.
                self.arriving.resize(range.len(), 0);
                read_payload(&chain.readable, &mut self.arriving, bus)?;
                self.bytes[range].copy_from_slice(&self.arriving);
                Ok(0)
            }
            request::GET_ID => {
                let length = room.min(request::ID_BYTES as u64);
                let bytes = usize::try_from(length).map_err(|_| Failure::Refused)?;
                write_payload(&chain.writable, &self.name[..bytes], bus)?;
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

fn read_header(readable: &[Segment], bus: &mut BusPort<'_>) -> Result<RequestHeader, Broken> {
    if total(readable) < HEADER {
        return Err(Broken::TooShort);
    }
    let mut header = RequestHeader::new_zeroed();
    let mut rest = header.as_mut_bytes();
    for (at, length) in pieces(readable, 0, HEADER) {
        let (part, after) = rest.split_at_mut(length);
        bus.dma_read(at, part, Purpose::Descriptor)?;
        rest = after;
    }
    Ok(header)
}

/// Fills `into` with what follows the header.
fn read_payload(
    readable: &[Segment],
    into: &mut [u8],
    bus: &mut BusPort<'_>,
) -> Result<(), DmaFault> {
    let mut rest = into;
    for (at, length) in pieces(readable, HEADER, rest.len() as u64) {
        let (part, after) = rest.split_at_mut(length);
        bus.dma_read(at, part, Purpose::Payload)?;
        rest = after;
    }
    Ok(())
}

/// Puts `from` at the start of the writable part.
fn write_payload(writable: &[Segment], from: &[u8], bus: &mut BusPort<'_>) -> Result<(), DmaFault> {
    let mut rest = from;
    for (at, length) in pieces(writable, 0, rest.len() as u64) {
        let (part, after) = rest.split_at(length);
        bus.dma_write(at, part, Purpose::Payload)?;
        rest = after;
    }
    Ok(())
}
