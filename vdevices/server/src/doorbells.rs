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

    /// A ring that came as a message after all, as QEMU sends them while it has the page unmapped: the page
    /// says so too, or the next ring of the value it still holds would be none.
    pub fn rung_by_message(&mut self, at: Access, value: u64) {
        let inside = at
            .offset()
            .checked_sub(self.start)
            .filter(|_| at.bar() == self.bar);
        let number = inside.map(|inside| (inside / self.stride) as usize);
        let (Some(inside), Ok(value)) = (inside, u32::try_from(value)) else {
            return;
        };
        if let Some(heard) = number.and_then(|number| self.heard.get_mut(number))
            && inside.is_multiple_of(self.stride)
            && at.width() == Width::Four
        {
            *heard = value;
            self.put(inside.into(), &value.to_le_bytes());
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // A page in memory is written as a whole; if the kernel has no room for it, it rings nothing.
        let _ = pwrite(&self.file, bytes, u64::from(self.start) + at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_seam::{
        Budget, BusPort, Completion, Device, Doorbells, PciIdentity, Progress, RequesterId, Reset,
    };
    use std::sync::{Arc, Mutex};
    use vdevice_nvme::{Nvme, NvmeConfig};
    use vdevice_pci::testbed::TestBus;

    /// Two doorbells of which the first is live, and what was rung.
    struct Bells {
        like: Nvme,
        live: u64,
        rung: Arc<Mutex<Vec<(u32, u64)>>>,
    }

    impl Device for Bells {
        fn describe(&self) -> &PciIdentity {
            self.like.describe()
        }

        fn read(&mut self, _: Access, _: &mut BusPort<'_>) -> Completion {
            Completion::Data(0)
        }

        fn write(&mut self, at: Access, value: u64, _: &mut BusPort<'_>) {
            self.rung
                .lock()
                .expect("no panic")
                .push((at.offset(), value));
        }

        fn step(&mut self, _: Budget, _: &mut BusPort<'_>) -> Progress {
            Progress::Idle
        }

        fn reset(&mut self, _: Reset) {}

        fn doorbells(&self) -> Option<Doorbells> {
            Some(Doorbells {
                bar: Bar::ZERO,
                page: 0x1000,
                stride: 4,
                live: self.live,
            })
        }
    }

    #[test]
    fn ring_counts_once_only_while_it_means_something_and_after_one_by_message() {
        let rung = Arc::<Mutex<Vec<_>>>::default();
        let bells = Bells {
            like: Nvme::new(NvmeConfig::default()),
            live: 1,
            rung: Arc::clone(&rung),
        };
        let mut function = PciFunction::new(Box::new(bells), RequesterId::new(0, 1, 0));
        let mut bus = TestBus::new();
        // The command register's memory enable bit.
        function.config_write(0x04, Width::Two, 2, &mut bus);
        let mut page = Page::of(&function).expect("memory").expect("doorbells");
        let client = |page: &Page, number: u64, value: u32| {
            page.put(number * 4, &value.to_le_bytes());
        };

        client(&page, 0, 5);
        client(&page, 1, 9);
        let first = page.ring(&mut function, &mut bus);
        let again = page.ring(&mut function, &mut bus);
        let bar = Access::new(Bar::ZERO, 0x1000, Width::Four, 1 << 20).expect("in the BAR");
        page.rung_by_message(bar, 6);
        let by_message = page.ring(&mut function, &mut bus);
        client(&page, 0, 5);
        page.ring(&mut function, &mut bus);

        assert_eq!((first, again, by_message), (true, false, false));
        assert_eq!(*rung.lock().expect("no panic"), [(0x1000, 5), (0x1000, 5)]);
    }
}
