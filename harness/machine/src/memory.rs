//! The machine's memory: bytes at physical addresses, shared with other processes where a
//! placement wants it so.
//!
//! No Rust reference to these bytes exists: they are copied in and out, because a device, another
//! process or a driver's raw pointer may change them at any time.

use crate::frames::{FRAME, MAP, MEMORY, Owner, Run, Use, pattern};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::LazyLock;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// A physical address: what the frame map names and an IOMMU translates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// [`MEMORY`] bytes from physical address 0.
#[derive(Debug)]
pub struct Memory {
    region: MmapRegion,
}

/// A range of physical addresses that no memory answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory answers at {at} for {len} bytes; there are {MEMORY} bytes from 0")]
pub struct NoMemory {
    /// First address asked for.
    pub at: PhysAddr,
    /// Bytes asked for.
    pub len: usize,
}

impl Memory {
    /// Zeroed memory of this process alone.
    pub fn private() -> io::Result<Self> {
        let region = MmapRegion::new(byte_count()).map_err(map_failed)?;
        Ok(Self { region })
    }

    /// The first [`MEMORY`] bytes of a file, usually a memfd that other processes map too. The
    /// descriptor is duplicated and stays open as long as the memory.
    ///
    /// Whoever else holds the file must not be able to shrink it (seal a memfd): the pages would
    /// go from under this process.
    pub fn shared(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?);
        let len = file.metadata()?.len();
        if len < MEMORY {
            let short = format!("a file of {len} bytes is too short for {MEMORY} bytes of memory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, short));
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // All of it is touched at once, by its pattern: half of a trial's page faults were that.
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_POPULATE;
        let region = MmapRegion::build(Some(FileOffset::new(file, 0)), byte_count(), access, flags)
            .map_err(map_failed)?;
        Ok(Self { region })
    }

    /// Copies bytes out.
    pub fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), NoMemory> {
        let start = offset_of(at, into.len())?;
        self.region
            .as_volatile_slice()
            .read_slice(into, start)
            .map_err(|_| NoMemory {
                at,
                len: into.len(),
            })
    }

    /// Copies bytes in.
    pub fn write(&self, at: PhysAddr, from: &[u8]) -> Result<(), NoMemory> {
        let start = offset_of(at, from.len())?;
        self.region
            .as_volatile_slice()
            .write_slice(from, start)
            .map_err(|_| NoMemory {
                at,
                len: from.len(),
            })
    }

    /// Where the byte at `at` is in this process. The pointer is valid up to the end of memory,
    /// and as long as this `Memory` lives.
    ///
    /// # Panics
    ///
    /// If no memory answers at `at`. Only allocators of this memory may ask.
    pub fn pointer(&self, at: PhysAddr) -> NonNull<u8> {
        let offset = offset_of(at, 1).unwrap_or_else(|error| panic!("{error}"));
        let byte = self.region.as_ptr().wrapping_add(offset);
        NonNull::new(byte).expect("a mapping is never at address 0")
    }

    /// Writes every pattern frame's pattern. Other frames are left as they are.
    pub fn fill_pattern(&self) {
        for run in pattern_runs() {
            self.write(PhysAddr(run.bytes().start), &PATTERN[place(run.bytes())])
                .expect("the frame map lies in memory");
        }
    }

    /// Makes the pattern, which [`Memory::fill_pattern`] and [`Memory::corruption`] otherwise make when
    /// they need it first. For a process that forks others, so that they need not.
    pub fn prepare_pattern() {
        LazyLock::force(&PATTERN);
    }

    /// How many bytes of the frame at `frame` differ from that owner's pattern.
    pub fn differs(&self, frame: PhysAddr, owner: Owner) -> Result<u64, NoMemory> {
        let mut seen = [0; FRAME_BYTES];
        self.read(frame, &mut seen)?;
        let expected = pattern_frame(owner, frame.0);
        let differing = seen.iter().zip(&expected).filter(|(a, b)| a != b);
        Ok(differing.count() as u64)
    }

    /// How many bytes of each owner's pattern frames differ from the pattern. Owners without such
    /// bytes are left out; the rest come in address order.
    pub fn corruption(&self) -> Vec<(Owner, u64)> {
        let mut found: Vec<(Owner, u64)> = Vec::new();
        let mut seen = [0; FRAME_BYTES];
        for run in pattern_runs() {
            let mut bytes = 0;
            for frame in run.bytes().step_by(FRAME_BYTES) {
                self.read(PhysAddr(frame), &mut seen)
                    .expect("the frame map lies in memory");
                let expected = &PATTERN[place(frame..frame + FRAME)];
                if seen != *expected {
                    let differing = seen.iter().zip(expected).filter(|(a, b)| a != b);
                    bytes += differing.count() as u64;
                }
            }
            if bytes == 0 {
                continue;
            }
            match found.iter_mut().find(|(owner, _)| *owner == run.owner) {
                Some((_, total)) => *total += bytes,
                None => found.push((run.owner, bytes)),
            }
        }
        found
    }
}

#[expect(clippy::cast_possible_truncation, reason = "4096")]
const FRAME_BYTES: usize = FRAME as usize;

fn byte_count() -> usize {
    usize::try_from(MEMORY).expect("2 MiB fit an address space")
}

fn map_failed(error: MmapRegionError) -> io::Error {
    match error {
        MmapRegionError::Mmap(error) => error,
        other => io::Error::other(other),
    }
}

/// The offset into the region of `len` bytes at `at`, if all of them are in memory.
fn offset_of(at: PhysAddr, len: usize) -> Result<usize, NoMemory> {
    let end = at.0.checked_add(len as u64);
    match end {
        Some(end) if end <= MEMORY => usize::try_from(at.0).map_err(|_| NoMemory { at, len }),
        _ => Err(NoMemory { at, len }),
    }
}

fn pattern_runs() -> impl Iterator<Item = &'static Run> {
    MAP.iter().filter(|run| run.purpose == Use::Pattern)
}

/// All of memory as it is when each owner's pattern frames hold their pattern.
static PATTERN: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut memory = vec![0; byte_count()].into_boxed_slice();
    for run in pattern_runs() {
        for frame in run.bytes().step_by(FRAME_BYTES) {
            memory[place(frame..frame + FRAME)].copy_from_slice(&pattern_frame(run.owner, frame));
        }
    }
    memory
});

/// Where addresses of memory are in an array of its bytes.
fn place(bytes: Range<u64>) -> Range<usize> {
    let at = |address| usize::try_from(address).expect("2 MiB fit an address space");
    at(bytes.start)..at(bytes.end)
}

/// The pattern of the frame at `frame`.
fn pattern_frame(owner: Owner, frame: u64) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    for (word, at) in bytes.chunks_exact_mut(8).zip((frame..).step_by(8)) {
        word.copy_from_slice(&pattern(owner, at).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::run_of;
    use std::os::fd::AsFd;

    fn first_byte(owner: Owner) -> PhysAddr {
        PhysAddr(run_of(owner, Use::Pattern).unwrap().bytes().start)
    }

    #[test]
    fn bytes_written_are_read_back() {
        let memory = Memory::private().unwrap();
        memory.write(PhysAddr(MEMORY - 3), b"abc").unwrap();
        let mut seen = [0; 3];
        memory.read(PhysAddr(MEMORY - 3), &mut seen).unwrap();
        assert_eq!(&seen, b"abc");
    }

    #[test]
    fn frame_is_compared_with_the_pattern_of_whoever_has_it_now() {
        let memory = Memory::private().unwrap();
        memory.fill_pattern();
        let frame = first_byte(Owner::Tenant1);
        assert_eq!(memory.differs(frame, Owner::Tenant1), Ok(0));
        assert!(memory.differs(frame, Owner::Newcomer).unwrap() > 4000);

        memory
            .write(frame, &pattern_frame(Owner::Newcomer, frame.0))
            .unwrap();
        assert_eq!(memory.differs(frame, Owner::Newcomer), Ok(0));
    }

    #[test]
    fn range_past_the_end_is_refused_and_moves_nothing() {
        let memory = Memory::private().unwrap();
        for at in [MEMORY - 1, MEMORY, u64::MAX - 1, u64::MAX] {
            assert!(memory.write(PhysAddr(at), b"ab").is_err(), "{at:#x}");
            assert!(memory.read(PhysAddr(at), &mut [0; 2]).is_err(), "{at:#x}");
        }
        let mut last = [7];
        memory.read(PhysAddr(MEMORY - 1), &mut last).unwrap();
        assert_eq!(last, [0]);
    }

    #[test]
    fn fresh_pattern_shows_no_corruption() {
        let memory = Memory::private().unwrap();
        memory.fill_pattern();
        assert_eq!(memory.corruption(), []);
    }

    #[test]
    fn corruption_is_attributed_byte_by_byte() {
        let memory = Memory::private().unwrap();
        memory.fill_pattern();
        for (owner, bytes) in [(Owner::Kernel, 5), (Owner::Tenant2, 1)] {
            let mut flipped = vec![0; bytes];
            memory.read(first_byte(owner), &mut flipped).unwrap();
            flipped.iter_mut().for_each(|byte| *byte ^= 0x40);
            memory.write(first_byte(owner), &flipped).unwrap();
        }
        assert_eq!(
            memory.corruption(),
            [(Owner::Kernel, 5), (Owner::Tenant2, 1)]
        );
    }

    #[test]
    fn writes_outside_pattern_frames_are_no_corruption() {
        let memory = Memory::private().unwrap();
        memory.fill_pattern();
        let pool = run_of(Owner::Driver, Use::DmaPool).unwrap();
        memory.write(PhysAddr(pool.bytes().start), b"data").unwrap();
        assert_eq!(memory.corruption(), []);
    }

    #[test]
    fn two_memories_of_one_file_see_the_same_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY).unwrap();
        let one = Memory::shared(file.as_fd()).unwrap();
        let other = Memory::shared(file.as_fd()).unwrap();
        one.write(PhysAddr(4096), b"shared").unwrap();
        let mut seen = [0; 6];
        other.read(PhysAddr(4096), &mut seen).unwrap();
        assert_eq!(&seen, b"shared");
    }

    #[test]
    fn file_that_is_too_short_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY - 1).unwrap();
        assert!(Memory::shared(file.as_fd()).is_err());
    }

    #[test]
    fn pointer_names_the_same_byte() {
        let memory = Memory::private().unwrap();
        let base = memory.pointer(PhysAddr(0)).as_ptr();
        let later = memory.pointer(PhysAddr(MEMORY - 1)).as_ptr();
        assert_eq!(later.addr() - base.addr(), byte_count() - 1);
    }
}
