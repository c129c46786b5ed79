//! The memory a client lent, by DMA address.

use crate::spec::{DmaMap, DmaUnmap, Errno, MAX_DMA_MAPS, dma};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs};
use rustix::io::{pread, pwrite};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Files a client may have lent memory of at a time, however many ranges of them.
const MAX_FILES: usize = 64;

/// File systems whose pages are memory: reading one never waits for a device or a peer (Linux,
/// `linux/magic.h`).
const TMPFS: u64 = 0x0102_1994;

/// One file, however often it was sent.
#[derive(Debug)]
struct Backing {
    device: u64,
    inode: u64,
    mode: OFlags,
    fd: OwnedFd,
}

#[derive(Debug)]
struct Region {
    size: u64,
    flags: u32,
    /// Where the region starts in which file, if the client sent one that can be used.
    file: Option<(Arc<Backing>, u64)>,
}

/// Where a piece of a DMA request lies.
pub(crate) enum Place<'a> {
    /// In a file, at that byte.
    File(&'a OwnedFd, u64),
    /// In memory that only the client reaches.
    Client,
    /// Nowhere that was lent for this.
    Nowhere,
}

/// All that is lent.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    regions: BTreeMap<u64, Region>,
    files: Vec<Arc<Backing>>,
}

impl Memory {
    /// Takes a range over. A descriptor that is no memory is dropped; the range is then reached by
    /// messages.
    pub fn map(&mut self, request: &DmaMap, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let end = request.address.checked_add(request.size);
        let file_end = request.offset.checked_add(request.size);
        let in_file = file_end.is_some_and(|end| i64::try_from(end).is_ok());
        let known = request.flags & !(dma::READ | dma::WRITE) == 0;
        let (Some(end), true, true) = (end, in_file, known && fds.len() <= 1) else {
            return Err(Errno::INVALID);
        };
        if request.size == 0 {
            return Err(Errno::INVALID);
        }
        // The region before is the only one that can reach into the range from below.
        let before = self.regions.range(..end).next_back();
        if before.is_some_and(|(start, region)| start + region.size > request.address) {
            return Err(Errno::EXIST);
        }
        if self.regions.len() >= MAX_DMA_MAPS {
            return Err(Errno::NO_SPACE);
        }
        let file = match fds.into_iter().next() {
            Some(fd) => self.backing(fd)?.map(|file| (file, request.offset)),
            None => None,
        };
        let region = Region {
            size: request.size,
            flags: request.flags,
            file,
        };
        self.regions.insert(request.address, region);
        Ok(())
    }

    /// Gives up what lies in the range. That nothing does is no error: clients unmap all they might
    /// have mapped. A range that cuts a region in two is one.
    pub fn unmap(&mut self, request: &DmaUnmap) -> Result<(), Errno> {
        match request.flags {
            0 => {}
            dma::ALL => {
                *self = Self::default();
                return Ok(());
            }
            _ => return Err(Errno::NOT_SUPPORTED),
        }
        let start = request.address;
        // A range may end with the address space.
        let Some(last) = request.size.checked_sub(1) else {
            return Err(Errno::INVALID);
        };
        let Some(last) = start.checked_add(last) else {
            return Err(Errno::INVALID);
        };
        let cut = |at: u64| {
            let below = at.checked_sub(1).and_then(|below| {
                let found = self.regions.range(..=below).next_back()?;
                Some(found)
            });
            below.is_some_and(|(start, region)| start + region.size > at)
        };
        if cut(start) || last.checked_add(1).is_some_and(cut) {
            return Err(Errno::INVALID);
        }
        let mut gone = self.regions.split_off(&start);
        if let Some(after) = last.checked_add(1) {
            self.regions.append(&mut gone.split_off(&after));
        }
        drop(gone);
        self.files.retain(|file| Arc::strong_count(file) > 1);
        Ok(())
    }

    /// Where the first of `len` bytes at `address` lie, and how many of them.
    pub fn find(&self, address: u64, len: usize, write: bool) -> (Place<'_>, usize) {
        let Some((start, region)) = self.regions.range(..=address).next_back() else {
            return (Place::Nowhere, len);
        };
        let inside = address - start;
        let left = region.size.saturating_sub(inside);
        if left == 0 {
            return (Place::Nowhere, len);
        }
        let len = usize::try_from(left).map_or(len, |left| left.min(len));
        let needed = if write { dma::WRITE } else { dma::READ };
        let place = match &region.file {
            _ if region.flags & needed == 0 => Place::Nowhere,
            Some((file, offset)) => Place::File(&file.fd, offset + inside),
            None => Place::Client,
        };
        (place, len)
    }

    /// The file behind a descriptor: one that is held already is closed.
    fn backing(&mut self, fd: OwnedFd) -> Result<Option<Arc<Backing>>, Errno> {
        let stat = fstat(&fd).map_err(|_| Errno::INVALID)?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let kind = fstatfs(&fd).map_err(|_| Errno::INVALID)?.f_type;
        if !regular || u64::try_from(kind) != Ok(TMPFS) {
            return Ok(None);
        }
        let mode = fcntl_getfl(&fd).map_err(|_| Errno::INVALID)? & OFlags::RWMODE;
        let (device, inode) = (stat.st_dev, stat.st_ino);
        let same =
            |file: &&Arc<Backing>| (file.device, file.inode, file.mode) == (device, inode, mode);
        if let Some(file) = self.files.iter().find(same) {
            return Ok(Some(Arc::clone(file)));
        }
        if self.files.len() >= MAX_FILES {
            return Err(Errno::NO_SPACE);
        }
        let file = Arc::new(Backing {
            device,
            inode,
            mode,
            fd,
        });
        self.files.push(Arc::clone(&file));
        Ok(Some(file))
    }
}

/// Reads all of `into` at that byte of a file; whether the file has it.
pub(crate) fn read(fd: &OwnedFd, at: u64, mut into: &mut [u8]) -> bool {
    let mut at = at;
    while !into.is_empty() {
        match pread(fd, &mut *into, at) {
            Ok(0) => return false,
            Ok(count) => {
                into = &mut into[count..];
                at += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Writes all of `from` at that byte of a file that is that long already.
pub(crate) fn write(fd: &OwnedFd, at: u64, mut from: &[u8]) -> bool {
    // Writing behind the end would make the client's file longer.
    let end = at + from.len() as u64;
    let long = fstat(fd).is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|len| end <= len));
    if !long {
        return false;
    }
    let mut at = at;
    while !from.is_empty() {
        match pwrite(fd, from, at) {
            Ok(0) => return false,
            Ok(count) => {
                from = &from[count..];
                at += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
