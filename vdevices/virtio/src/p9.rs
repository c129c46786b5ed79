//! The 9P transport, and a small server of 9P2000.L behind it: a directory with one file, read only.

use crate::chain::Chain;
use crate::controller::Virtio;
use crate::identity::identity;
use crate::kind::{Kind, Served};
use crate::queue::Broken;
use crate::spec::p9::{HEADER, MOUNT_TAG, NO_FID, errno, message};
use crate::spec::{INDIRECT_DESC, device};
use cofferdam_seam::{BusPort, PciIdentity, Purpose};
use core::time::Duration;
use std::collections::BTreeMap;

/// Bytes of the longest message; what a version request asks for beyond is cut down.
const MOST: u32 = 8192;
/// Files a client holds at most.
const FILES: usize = 32;
/// Names in one walk at most: the protocol's own limit.
const NAMES: u16 = 16;

/// The mount tag.
const TAG: &[u8] = b"cofferdam";
/// The file in the root.
const NAME: &[u8] = b"hello";
/// What is in it.
const CONTENT: &[u8] = b"hello from the other side\n";

/// What 9P device to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P9Config {
    /// How long one request takes.
    pub latency: Duration,
}

impl Default for P9Config {
    /// 20 us a request.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(20),
        }
    }
}

/// A virtio 9P device.
pub type Virtio9p = Virtio<Share>;

impl Virtio9p {
    /// A device whose share nobody has attached to.
    pub fn new(config: P9Config) -> Self {
        let kind = Share {
            latency: config.latency,
            most: MOST,
            files: BTreeMap::new(),
            request: Vec::new(),
        };
        Self::of(kind, INDIRECT_DESC)
    }
}

/// What the share holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Root,
    Hello,
}

impl File {
    /// Its identity: type, version, path.
    fn qid(self) -> [u8; 13] {
        let mut qid = [0; 13];
        (qid[0], qid[5]) = match self {
            Self::Root => (0x80, 1),
            Self::Hello => (0, 2),
        };
        qid
    }

    fn content(self) -> &'static [u8] {
        match self {
            Self::Root => &[],
            Self::Hello => CONTENT,
        }
    }

    /// Where a name leads.
    fn step(self, name: &[u8]) -> Result<Self, u32> {
        match (self, name) {
            (Self::Hello, _) => Err(errno::ENOTDIR),
            (Self::Root, b"..") => Ok(Self::Root),
            (Self::Root, NAME) => Ok(Self::Hello),
            (Self::Root, _) => Err(errno::ENOENT),
        }
    }
}

/// The server.
pub struct Share {
    latency: Duration,
    /// Bytes of the longest message, as agreed.
    most: u32,
    /// The client's files, by its numbers for them.
    files: BTreeMap<u32, File>,
    /// Reused from request to request.
    request: Vec<u8>,
}

/// A message's fields, in order. A field that is not there is an invalid message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], u32> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(errno::EINVAL)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, u32> {
        let bytes = self.bytes(2)?.try_into().map_err(|_| errno::EINVAL)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, u32> {
        let bytes = self.bytes(4)?.try_into().map_err(|_| errno::EINVAL)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, u32> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| errno::EINVAL)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<&'a [u8], u32> {
        let length = self.u16()?;
        self.bytes(length.into())
    }
}

impl Share {
    /// Carries out a request: the body of its reply, or an error number.
    fn carry_out(&mut self, kind: u8, mut fields: Fields<'_>) -> Result<Vec<u8>, u32> {
        match kind {
            message::TVERSION => self.version(&mut fields),
            message::TATTACH => {
                let (fid, authentication) = (fields.u32()?, fields.u32()?);
                if authentication != NO_FID {
                    return Err(errno::EOPNOTSUPP);
                }
                self.keep(fid, File::Root)?;
                Ok(File::Root.qid().to_vec())
            }
            message::TWALK => self.walk(&mut fields),
            message::TLOPEN => {
                let (file, flags) = (self.file(fields.u32()?)?, fields.u32()?);
                // The access mode: anything but reading.
                if flags & 3 != 0 {
                    return Err(errno::EROFS);
                }
                let mut reply = file.qid().to_vec();
                reply.extend(0u32.to_le_bytes());
                Ok(reply)
            }
            message::TGETATTR => Ok(attributes(self.file(fields.u32()?)?)),
            message::TREAD => {
                let content = self.file(fields.u32()?)?.content();
                let (offset, count) = (fields.u64()?, fields.u32()?);
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = content.get(start..).unwrap_or(&[]);
                let room = self.most.saturating_sub(11).min(count);
                let read = &rest[..rest.len().min(room as usize)];
                let mut reply = bytes_in(read).to_le_bytes().to_vec();
                reply.extend(read);
                Ok(reply)
            }
            message::TCLUNK => {
                let known = self.files.remove(&fields.u32()?);
                known.map(|_| Vec::new()).ok_or(errno::EBADF)
            }
            _ => Err(errno::EOPNOTSUPP),
        }
    }

    /// Begins a session: all files are forgotten.
    fn version(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, u32> {
        let (most, version) = (fields.u32()?, fields.text()?);
        self.files.clear();
        self.most = most.min(MOST);
        let version: &[u8] = if version == b"9P2000.L" {
            version
        } else {
            b"unknown"
        };
        let mut reply = self.most.to_le_bytes().to_vec();
        reply.extend(&bytes_in(version).to_le_bytes()[..2]);
        reply.extend(version);
        Ok(reply)
    }

    fn walk(&mut self, fields: &mut Fields<'_>) -> Result<Vec<u8>, u32> {
        let mut file = self.file(fields.u32()?)?;
        let (to, names) = (fields.u32()?, fields.u16()?);
        if names > NAMES {
            return Err(errno::EINVAL);
        }
        let mut qids = Vec::new();
        let mut walked = 0;
        for index in 0..names {
            match file.step(fields.text()?) {
                Ok(next) => file = next,
                // A walk that gets some way says how far, and keeps nothing.
                Err(error) if index == 0 => return Err(error),
                Err(_) => break,
            }
            qids.extend(file.qid());
            walked += 1;
        }
        if walked == names {
            self.keep(to, file)?;
        }
        let mut reply = u16::to_le_bytes(walked).to_vec();
        reply.extend(qids);
        Ok(reply)
    }

    fn file(&self, fid: u32) -> Result<File, u32> {
        self.files.get(&fid).copied().ok_or(errno::EBADF)
    }

    fn keep(&mut self, fid: u32, file: File) -> Result<(), u32> {
        if self.files.len() >= FILES && !self.files.contains_key(&fid) {
            return Err(errno::EMFILE);
        }
        self.files.insert(fid, file);
        Ok(())
    }
}

/// Bytes in a part of a message, none of which is longer than [`MOST`].
fn bytes_in(part: &[u8]) -> u32 {
    u32::try_from(part.len()).unwrap_or(u32::MAX)
}

/// The body of a reply about attributes: which are there (mode, links and size, as part of the basic
/// ones), the file's identity, and the rest.
fn attributes(file: File) -> Vec<u8> {
    let mode: u32 = match file {
        File::Root => 0o040_555,
        File::Hello => 0o100_444,
    };
    let mut reply = 0x7ff_u64.to_le_bytes().to_vec();
    reply.extend(file.qid());
    reply.extend(mode.to_le_bytes());
    // Owner and group.
    reply.extend([0; 8]);
    // Links, device, size, size of a block, blocks.
    for value in [1, 0, file.content().len() as u64, 4096, 1] {
        reply.extend(value.to_le_bytes());
    }
    // Times of access, change, status and birth, generation, version of the data.
    reply.extend([0; 80]);
    reply
}

impl Kind for Share {
    const IDENTITY: &'static PciIdentity = &identity::<2>(device::P9, [0x01, 0x80, 0x00]);
    const QUEUES: u16 = 1;

    fn features(&self) -> u64 {
        MOUNT_TAG
    }

    /// The tag's length, 16 bits, and the tag.
    fn config(&self, at: u32) -> u8 {
        let prefix = bytes_in(TAG).to_le_bytes();
        let mut bytes = prefix[..2].iter().chain(TAG);
        bytes.nth(at as usize).copied().unwrap_or(0)
    }

    fn takes(&self, _queue: u16) -> Option<Duration> {
        Some(self.latency)
    }

    /// A message, and room for its reply behind it. One without a header, or without room for an
    /// error, cannot be answered.
    fn serve(
        &mut self,
        _queue: u16,
        chain: &Chain,
        bus: &mut BusPort<'_>,
    ) -> Result<Served, Broken> {
        let length = chain.readable_len();
        if length < HEADER as u64 || chain.writable_len() < (HEADER + 4) as u64 {
            return Err(Broken::TooShort);
        }
        if length > u64::from(MOST) {
            return Err(Broken::TooLong);
        }
        let mut request = core::mem::take(&mut self.request);
        request.clear();
        request.resize(usize::try_from(length).unwrap_or(0), 0);
        chain.read(0, &mut request, Purpose::Payload, bus)?;
        let (header, rest) = request.split_at(HEADER);
        let claimed = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let body = (claimed as usize).checked_sub(HEADER);
        let body = body.and_then(|length| rest.get(..length));
        let outcome = match body {
            Some(body) => self.carry_out(header[4], Fields(body)),
            None => Err(errno::EINVAL),
        };
        // A reply that does not fit is an error that does.
        let outcome = outcome.and_then(|reply| {
            let fits = (HEADER + reply.len()) as u64 <= chain.writable_len();
            if fits { Ok(reply) } else { Err(errno::EINVAL) }
        });
        let (kind, body) = match outcome {
            Ok(body) => (header[4].wrapping_add(1), body),
            Err(error) => (message::RLERROR, error.to_le_bytes().to_vec()),
        };
        let size = bytes_in(&body) + bytes_in(header);
        let mut reply = size.to_le_bytes().to_vec();
        reply.push(kind);
        reply.extend(&header[5..7]);
        reply.extend(body);
        chain.write(0, &reply, Purpose::Payload, bus)?;
        self.request = request;
        Ok(Served::written(size.into()))
    }

    /// The session is over.
    fn reset(&mut self) {
        self.files.clear();
        self.most = MOST;
    }
}
