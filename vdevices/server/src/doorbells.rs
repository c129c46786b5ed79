//! A page of doorbells that the client writes as memory.
//!
//! The page is a file in memory that the client maps; this side looks at it, by reads of the file, and
//! rings what has changed. While a doorbell means nothing to the device its place is filled with
//! [`SILENT`], so that what a queue's predecessor left there is not taken for its first ring. Nobody who
//! keeps to the standard rings a doorbell before the device has told that its queue exists, and before
//! it tells that, this side has looked.

use cofferdam_seam::{Access, Bar, Bus, Width};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vdevice_pci::PciFunction;

/// Bytes of the page.
pub(crate) const BYTES: usize = 4096;
/// Doorbells in it that are looked at.
const MOST: usize = 64;
/// No value of a doorbell: an index has 16 bits.
const SILENT: u32 = u32::MAX;

/// The page, as one client has it.
#[derive(Debug)]
pub(crate) struct Page {
    file: OwnedFd,
    bar: Bar,
    start: u32,
    stride: u32,
    heard: [u32; MOST],
}

impl Page {
    /// For the page of a function that has one.
    pub fn of(function: &PciFunction) -> io::Result<Option<Self>> {
        let Some(doorbells) = function.doorbells() else {
            return Ok(None);
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("doorbells", flags)?;
        // As the region is laid out, with a hole before the page.
        let start = u64::from(doorbells.page);
        ftruncate(&file, start + BYTES as u64)?;
        // The client need not fear that its mapping loses its page.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let page = Self {
            file,
            bar: doorbells.bar,
            start: doorbells.page,
            stride: doorbells.stride.max(4),
            heard: [SILENT; MOST],
        };
        page.put(0, &[0xff; BYTES]);
        Ok(Some(page))
    }

    /// The BAR, and where in it the page begins.
    pub fn place(&self) -> (Bar, u32) {
        (self.bar, self.start)
    }

    /// The file to map.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Rings what changed. Whether anything did.
    pub fn ring(&mut self, function: &mut PciFunction, bus: &mut dyn Bus) -> bool {
        let live = function.doorbells().map_or(0, |doorbells| doorbells.live);
        let mut bytes = [0; BYTES];
        // The file is sealed at this size, so all of it is there.
        if pread(&self.file, &mut bytes, self.start.into()) != Ok(BYTES) {
            return false;
        }
        let mut rung = false;
        for number in 0..MOST {
            let Some(at) = u32::try_from(number)
                .ok()
                .and_then(|it| it.checked_mul(self.stride))
            else {
                break;
            };
            let place = at as usize;
            let Some(Some(&value)) = bytes.get(place..).map(<[u8]>::first_chunk) else {
                break;
            };
            let value = u32::from_le_bytes(value);
            if live >> number & 1 == 0 {
                if value != SILENT {
                    self.put(at.into(), &SILENT.to_le_bytes());
                }
                self.heard[number] = SILENT;
            } else if value != self.heard[number] && value != SILENT {
                self.heard[number] = value;
                rung = true;
                let size = function.bar_size(self.bar).unwrap_or(0);
                let access = Access::new(self.bar, self.start + at, Width::Four, size);
                if let Some(access) = access {
                    function.write(access, value.into(), bus);
                }
            }
        }
        rung
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // A page in memory is written as a whole; if the kernel has no room for it, it rings nothing.
        let _ = pwrite(&self.file, bytes, u64::from(self.start) + at);
    }
}
