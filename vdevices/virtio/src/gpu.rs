//! The GPU (virtio 1.2, 5.7): one display, resources of two dimensions, and a cursor.

use crate::chain::{Chain, Segment};
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::gpu::{
    CURSOR, EDID, EDID_BYTES, FLAG_FENCE, FORMATS, Header, MAX_SCANOUTS, MemoryEntry, Rect,
    SCANOUTS, command,
};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, Iova, PciIdentity, Purpose};
use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeMap;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Resources at most.
const RESOURCES: usize = 16;
/// Bytes in all of them at most.
const MEMORY: u64 = 1 << 20;
/// Stretches of backing memory a resource has at most.
const ENTRIES: u32 = 256;
/// Bytes a pixel, in every format.
const PIXEL: u64 = 4;

/// Bytes of a header.
const HEADER: usize = size_of::<Header>();
/// Bytes of the longest command without backing memory.
const LONGEST: usize = 56;

/// What GPU to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Pixels in a line of the display: at most 4095.
    pub width: u16,
    /// Lines: at most 4095.
    pub height: u16,
    /// How long one command takes.
    pub latency: Duration,
}

impl Default for GpuConfig {
    /// 64 by 48, 20 us a command.
    fn default() -> Self {
        Self {
            width: 64,
            height: 48,
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio GPU.
pub type VirtioGpu = Virtio<Adapter>;

impl VirtioGpu {
    /// A GPU with a dark display.
    pub fn new(config: GpuConfig) -> Self {
        let kind = Adapter {
            config,
            resources: BTreeMap::new(),
            scanout: None,
            cursor: 0,
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// An image on the device.
struct Resource {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    /// The driver's memory behind it.
    backing: Vec<Segment>,
}

impl Resource {
    /// A rectangle's edges, if it lies inside: left, upper, width, height.
    fn inside(&self, rect: &Rect) -> Result<[u64; 4], u32> {
        let [x, y, width, height] =
            [rect.x, rect.y, rect.width, rect.height].map(|edge| u64::from(edge.get()));
        if x + width > self.width.into() || y + height > self.height.into() {
            return Err(command::ERR_INVALID_PARAMETER);
        }
        Ok([x, y, width, height])
    }
}

/// The graphics adapter.
pub struct Adapter {
    config: GpuConfig,
    resources: BTreeMap<u32, Resource>,
    /// The resource on the display.
    scanout: Option<u32>,
    /// The resource that is the cursor's shape; zero is none.
    cursor: u32,
}

/// Reads a command's field behind its header.
fn field<T: FromBytes>(body: &[u8], at: usize) -> Result<T, u32> {
    let bytes = body.get(at..).ok_or(command::ERR_INVALID_PARAMETER)?;
    let (value, _) = T::read_from_prefix(bytes).map_err(|_| command::ERR_INVALID_PARAMETER)?;
    Ok(value)
}

fn word(body: &[u8], at: usize) -> Result<u32, u32> {
    field::<U32>(body, at).map(U32::get)
}

impl Adapter {
    /// Carries out a command whose fields are `body`: the kind of the response and what follows its
    /// header, or the kind of an error.
    fn carry_out(
        &mut self,
        kind: u32,
        body: &[u8],
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<(u32, Vec<u8>), u32> {
        match kind {
            command::GET_DISPLAY_INFO => return Ok((command::OK_DISPLAY_INFO, self.displays())),
            command::GET_EDID => {
                check_scanout(word(body, 0)?)?;
                return Ok((command::OK_EDID, self.edid()));
            }
            command::RESOURCE_CREATE_2D => self.create(body)?,
            command::RESOURCE_UNREF => {
                let id = word(body, 0)?;
                let gone = self.resources.remove(&id);
                gone.ok_or(command::ERR_INVALID_RESOURCE_ID)?;
                self.scanout.take_if(|shown| *shown == id);
            }
            command::SET_SCANOUT => {
                let rect: Rect = field(body, 0)?;
                check_scanout(word(body, 16)?)?;
                let id = word(body, 20)?;
                if id != 0 {
                    self.resource(id)?.inside(&rect)?;
                }
                self.scanout = (id != 0).then_some(id);
            }
            command::RESOURCE_FLUSH => {
                let rect: Rect = field(body, 0)?;
                self.resource(word(body, 16)?)?.inside(&rect)?;
            }
            command::TRANSFER_TO_HOST_2D => self.transfer(body, bus)?,
            command::RESOURCE_ATTACH_BACKING => self.attach(body, chain, bus)?,
            command::RESOURCE_DETACH_BACKING => self.resource(word(body, 0)?)?.backing.clear(),
            _ => return Err(command::ERR_UNSPEC),
        }
        Ok((command::OK_NODATA, Vec::new()))
    }

    fn resource(&mut self, id: u32) -> Result<&mut Resource, u32> {
        let resource = self.resources.get_mut(&id);
        resource.ok_or(command::ERR_INVALID_RESOURCE_ID)
    }

    /// One display that is there; the response has room for more.
    fn displays(&self) -> Vec<u8> {
        let rect = Rect {
            width: u32::from(self.config.width).into(),
            height: u32::from(self.config.height).into(),
            ..Rect::new_zeroed()
        };
        let mut body = rect.as_bytes().to_vec();
        // Enabled.
        body.push(1);
        body.resize(24 * MAX_SCANOUTS, 0);
        body
    }

    /// One block of EDID 1.4 with one detailed timing, in its response.
    fn edid(&self) -> Vec<u8> {
        let [low_width, high_width] = (self.config.width & 0xfff).to_le_bytes();
        let [low_height, high_height] = (self.config.height & 0xfff).to_le_bytes();
        let mut block = [0; 128];
        block[1..7].fill(0xff);
        // Made by CFD; version 1.4; a digital display.
        block[8..10].copy_from_slice(&[0x0c, 0xc4]);
        block[18..21].copy_from_slice(&[1, 4, 0x80]);
        // No standard timings.
        block[38..54].fill(1);
        // A detailed timing: the pixel clock, then the visible pixels and lines.
        block[54..56].copy_from_slice(&[0x10, 0x27]);
        block[56] = low_width;
        block[58] = high_width << 4;
        block[59] = low_height;
        block[61] = high_height << 4;
        let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        block[127] = sum.wrapping_neg();
        let mut body = 128u32.to_le_bytes().to_vec();
        body.extend([0; 4]);
        body.extend(block);
        body.resize(8 + EDID_BYTES, 0);
        body
    }

    fn create(&mut self, body: &[u8]) -> Result<(), u32> {
        let (id, format) = (word(body, 0)?, word(body, 4)?);
        let (width, height) = (word(body, 8)?, word(body, 12)?);
        if id == 0 || self.resources.contains_key(&id) {
            return Err(command::ERR_INVALID_RESOURCE_ID);
        }
        if !FORMATS.contains(&format) || width == 0 || height == 0 {
            return Err(command::ERR_INVALID_PARAMETER);
        }
        let pixels = u64::from(width) * u64::from(height);
        let used: u64 = self
            .resources
            .values()
            .map(|resource| resource.pixels.len() as u64)
            .sum();
        if pixels > (MEMORY - used) / PIXEL || self.resources.len() >= RESOURCES {
            return Err(command::ERR_OUT_OF_MEMORY);
        }
        let bytes = usize::try_from(pixels * PIXEL).map_err(|_| command::ERR_OUT_OF_MEMORY)?;
        let resource = Resource {
            width,
            height,
            pixels: vec![0; bytes],
            backing: Vec::new(),
        };
        self.resources.insert(id, resource);
        Ok(())
    }

    fn attach(&mut self, body: &[u8], chain: &Chain, bus: &mut BusPort<'_>) -> Result<(), u32> {
        let (id, entries) = (word(body, 0)?, word(body, 4)?);
        let resource = self.resource(id)?;
        if entries > ENTRIES {
            return Err(command::ERR_OUT_OF_MEMORY);
        }
        if !resource.backing.is_empty() || entries == 0 {
            return Err(command::ERR_UNSPEC);
        }
        let mut skip = HEADER as u64 + 8;
        let mut backing = Vec::new();
        for _ in 0..entries {
            let mut entry = MemoryEntry::new_zeroed();
            let bytes = entry.as_mut_bytes();
            if skip + bytes.len() as u64 > chain.readable_len() {
                return Err(command::ERR_INVALID_PARAMETER);
            }
            let read = chain.read(skip, bytes, Purpose::Descriptor, bus);
            read.map_err(|_| command::ERR_UNSPEC)?;
            backing.push(Segment {
                at: Iova(entry.address.get()),
                length: entry.length.get(),
            });
            skip += size_of::<MemoryEntry>() as u64;
        }
        resource.backing = backing;
        Ok(())
    }

    /// Copies a rectangle: whole lines at once where they follow one another (5.7.6.8).
    fn transfer(&mut self, body: &[u8], bus: &mut BusPort<'_>) -> Result<(), u32> {
        let rect: Rect = field(body, 0)?;
        let offset = field::<U64>(body, 16)?.get();
        let resource = self.resource(word(body, 24)?)?;
        let [x, y, width, height] = resource.inside(&rect)?;
        let stride = u64::from(resource.width) * PIXEL;
        let (lines, length) = if width * PIXEL == stride {
            (1, height * stride)
        } else {
            (height, width * PIXEL)
        };
        let backing = Chain {
            readable: std::mem::take(&mut resource.backing),
            writable: Vec::new(),
        };
        let mut result = Ok(());
        for line in 0..lines {
            let from = offset.saturating_add(line * stride);
            let to = (y + line) * stride + x * PIXEL;
            let enough = from
                .checked_add(length)
                .is_some_and(|end| end <= backing.readable_len());
            let pixels = span(to, length).and_then(|span| resource.pixels.get_mut(span));
            result = match pixels.filter(|_| enough) {
                Some(pixels) => backing
                    .read(from, pixels, Purpose::Payload, bus)
                    .map_err(|_| command::ERR_UNSPEC),
                None => Err(command::ERR_INVALID_PARAMETER),
            };
            if result.is_err() {
                break;
            }
        }
        resource.backing = backing.readable;
        result
    }

    /// The cursor's commands have no response: what cannot be is ignored (5.7.6.9).
    fn point(&mut self, kind: u32, body: &[u8]) {
        if kind == command::UPDATE_CURSOR
            && let (Ok(0), Ok(id)) = (word(body, 0), word(body, 16))
            && (id == 0 || self.resources.contains_key(&id))
        {
            self.cursor = id;
        }
    }
}

fn check_scanout(id: u32) -> Result<(), u32> {
    match id {
        0 => Ok(()),
        _ => Err(command::ERR_INVALID_SCANOUT_ID),
    }
}

fn span(start: u64, length: u64) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    Some(start..start.checked_add(usize::try_from(length).ok()?)?)
}

impl Kind for Adapter {
    const IDENTITY: &'static PciIdentity = &identity::<3>(device::GPU, [0x03, 0x80, 0x00]);
    const QUEUES: u16 = 2;

    fn features(&self) -> u64 {
        EDID
    }

    /// No event ever happens; one scanout, no capability sets (5.7.4).
    fn config(&self, at: u32) -> u8 {
        u8::from(at == SCANOUTS)
    }

    fn takes(&self, _queue: u16) -> Option<Duration> {
        Some(self.config.latency)
    }

    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        if chain.readable_len() < HEADER as u64 {
            return Err(Broken::TooShort);
        }
        let mut request = [0; LONGEST];
        let length = chain.readable_len().min(LONGEST as u64);
        let request = &mut request[..usize::try_from(length).unwrap_or(HEADER)];
        chain.read(0, request, Purpose::Descriptor, bus)?;
        let (header, body) = Header::read_from_prefix(request).map_err(|_| Broken::TooShort)?;
        if queue == CURSOR {
            self.point(header.kind.get(), body);
            return Ok(Served::written(0));
        }
        if chain.writable_len() < HEADER as u64 {
            return Err(Broken::TooShort);
        }
        let outcome = self.carry_out(header.kind.get(), body, chain, bus);
        let (kind, body) = outcome.unwrap_or_else(|error| (error, Vec::new()));
        let mut response = Header::new_zeroed();
        response.kind = kind.into();
        if header.flags.get() & FLAG_FENCE != 0 {
            response.flags = FLAG_FENCE.into();
            response.fence = header.fence;
            response.context = header.context;
        }
        chain.write(0, response.as_bytes(), Purpose::Status, bus)?;
        chain.write(HEADER as u64, &body, Purpose::Payload, bus)?;
        let written = (HEADER + body.len()) as u64;
        Ok(Served::written(written.min(chain.writable_len())))
    }

    /// All resources are gone.
    fn reset(&mut self) {
        self.resources.clear();
        self.scanout = None;
        self.cursor = 0;
    }
}
