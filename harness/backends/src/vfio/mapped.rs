//! Memory mapped into this process that a device reads and writes too: no reference to it exists.

#![expect(
    unsafe_code,
    reason = "mapping memory, and volatile access to what a device shares"
)]

use cofferdam_seam::Width;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// A mapping, unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// Zeroed memory. It is shared, so that a fork never moves it away from under a device.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// `len` bytes of a file from `offset` on.
    pub fn file(file: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as above; the bytes may change under us, so they are only reached by volatile
        // access.
        let base = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                file,
                offset,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; it always has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte, valid for the length while this lives.
    pub fn pointer(&self) -> NonNull<u8> {
        self.base
    }

    /// One access of that width, if `at` is aligned and inside.
    pub fn load(&self, at: usize, width: Width) -> Option<u64> {
        let pointer = self.at(at, width)?;
        // SAFETY: `at` checked bounds and alignment, and the mapping lives as long as `self`.
        Some(unsafe {
            match width {
                Width::One => pointer.read_volatile().into(),
                Width::Two => u16::from_le(pointer.cast::<u16>().read_volatile()).into(),
                Width::Four => u32::from_le(pointer.cast::<u32>().read_volatile()).into(),
                Width::Eight => u64::from_le(pointer.cast::<u64>().read_volatile()),
            }
        })
    }

    /// One access of that width; whether `at` is aligned and inside.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a register keeps as many bits as it is wide"
    )]
    pub fn store(&self, at: usize, width: Width, value: u64) -> bool {
        let Some(pointer) = self.at(at, width) else {
            return false;
        };
        // SAFETY: as in `load`; nobody holds a reference to the bytes.
        unsafe {
            match width {
                Width::One => pointer.write_volatile(value as u8),
                Width::Two => pointer.cast::<u16>().write_volatile((value as u16).to_le()),
                Width::Four => pointer.cast::<u32>().write_volatile((value as u32).to_le()),
                Width::Eight => pointer.cast::<u64>().write_volatile(value.to_le()),
            }
        }
        true
    }

    /// Copies bytes from `at` out of it. Bytes beyond its end read as zero.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        for (offset, byte) in into.iter_mut().enumerate() {
            let at = at.saturating_add(offset);
            let read = self.load(at, Width::One).unwrap_or(0);
            *byte = read.to_le_bytes()[0];
        }
    }

    /// Copies bytes into it at `at`. Bytes beyond its end are dropped.
    pub fn write(&self, at: usize, from: &[u8]) {
        for (offset, byte) in from.iter().enumerate() {
            self.store(at.saturating_add(offset), Width::One, (*byte).into());
        }
    }

    fn at(&self, at: usize, width: Width) -> Option<*mut u8> {
        let bytes = width.bytes() as usize;
        let inside = at.checked_add(bytes).is_some_and(|end| end <= self.len);
        if inside && at.is_multiple_of(bytes) {
            // SAFETY: inside the mapping.
            Some(unsafe { self.base.as_ptr().add(at) })
        } else {
            None
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made for `self`, and pointers to it were lent for
        // its life only.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_or_misaligned_touch_nothing() {
        let memory = Mapped::anonymous(4096).unwrap();
        assert!(memory.store(0, Width::Eight, 0x0807_0605_0403_0201));
        assert!(!memory.store(4095, Width::Two, u64::MAX));
        assert!(!memory.store(2, Width::Four, u64::MAX));
        assert!(!memory.store(usize::MAX, Width::One, u64::MAX));
        assert_eq!(memory.load(4096, Width::One), None);
        assert_eq!(memory.load(1, Width::Two), None);
        assert_eq!(memory.load(2, Width::Two), Some(0x0403));
        assert_eq!(memory.load(4, Width::Four), Some(0x0807_0605));
    }

    #[test]
    fn copies_stop_at_the_end() {
        let memory = Mapped::anonymous(4096).unwrap();
        memory.write(4094, &[1, 2, 3, 4]);
        let mut read = [9; 4];
        memory.read(4094, &mut read);
        assert_eq!(read, [1, 2, 0, 0]);
        memory.read(usize::MAX - 1, &mut read);
        assert_eq!(read, [0; 4]);
    }

    #[test]
    fn no_bytes_cannot_be_mapped() {
        assert!(Mapped::anonymous(0).is_err());
    }
}
