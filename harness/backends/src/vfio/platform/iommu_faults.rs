//! What the IOMMU refused, as the kernel's log tells it.
//!
//! The kernel limits how often it reports, and an IOMMU may refuse without reporting: a record is
//! evidence, its absence is none.

use crate::vfio::platform::{Address, Platform};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// Records of the log read in one go.
const BATCH: usize = 10_000;

/// The longest record (linux/printk.h, `PRINTK_MESSAGE_MAX`).
const RECORD: usize = 2048;

/// A refused DMA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IommuFault {
    /// Who asked; the domain is 0 where the kernel does not say it.
    pub requester: Address,
    /// Whether it wanted to write.
    pub write: bool,
    /// Where, as far as the IOMMU reports it: Intel's gives the page.
    pub address: u64,
    /// The record, word for word.
    pub text: String,
}

impl IommuFault {
    /// The fault in a line of the kernel's log, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        intel(text).or_else(|| amd(text))
    }

    /// Whether a write or read of these bytes by that function may have caused it.
    pub fn is_of(&self, requester: Address, write: bool, bytes: &Range<u64>) -> bool {
        let page = self.address & !0xfff;
        let pages = page..page.saturating_add(0x1000);
        self.requester.same_function(requester)
            && self.write == write
            && pages.start < bytes.end
            && bytes.start < pages.end
    }
}

/// `DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x200000 [fault reason 0x05] ...`
/// (drivers/iommu/intel/dmar.c).
fn intel(text: &str) -> Option<IommuFault> {
    let rest = text.split_once("DMAR: [DMA ")?.1;
    let (kind, rest) = rest.split_once(']')?;
    let write = match kind.split(' ').next()? {
        "Write" => true,
        "Read" => false,
        _ => return None,
    };
    let (_, rest) = rest.split_once("device [")?;
    let (requester, rest) = rest.split_once(']')?;
    let (_, rest) = rest.split_once("fault addr ")?;
    Some(IommuFault {
        requester: requester.parse().ok()?,
        write,
        address: super::hexadecimal(rest.split(' ').next()?)?,
        text: text.to_owned(),
    })
}

/// `vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0x1000
/// flags=0x0020]`, or `device=01:00.0` inside (drivers/iommu/amd/iommu.c). Flag 5 is a write (AMD
/// I/O Virtualization Technology 3.08, 2.5.3).
fn amd(text: &str) -> Option<IommuFault> {
    let (before, rest) = text.split_once("AMD-Vi: Event logged [IO_PAGE_FAULT ")?;
    let field = |name: &str| {
        let (_, value) = rest.split_once(name)?;
        value.split([' ', ']']).next()
    };
    let requester = match field("device=") {
        Some(requester) => requester,
        None => before.split_whitespace().last()?.strip_suffix(':')?,
    };
    Some(IommuFault {
        requester: requester.parse().ok()?,
        write: super::hexadecimal(field("flags=")?)? & 0x20 != 0,
        address: super::hexadecimal(field("address=")?)?,
        text: text.to_owned(),
    })
}

/// The kernel's log from now on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Starts to follow the log.
    ///
    /// # Errors
    ///
    /// If this process may not read it.
    pub fn follow(platform: &Platform) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(platform.path("dev/kmsg"))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file })
    }

    /// The faults reported since it was last asked.
    pub fn faults(&mut self) -> Vec<IommuFault> {
        let mut found = Vec::new();
        let mut record = [0; RECORD];
        for _ in 0..BATCH {
            match self.file.read(&mut record) {
                Ok(0) => break,
                Ok(len) => found.extend(message(&record[..len]).and_then(IommuFault::parse)),
                // Overwritten before it was read: the next one is there.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        found
    }

    /// The faults reported until one is `wanted` or that long has passed.
    pub fn faults_until(
        &mut self,
        wanted: impl Fn(&IommuFault) -> bool,
        patience: Duration,
    ) -> Vec<IommuFault> {
        let started = Instant::now();
        let mut found = Vec::new();
        loop {
            found.extend(self.faults());
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() || found.iter().any(&wanted) {
                return found;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut news = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            // Whatever woke us, the log is read again and the time is looked at.
            if poll(&mut news, timeout).is_err() {
                std::thread::yield_now();
            }
        }
    }
}

/// The text of a record: `priority,number,time,flags;text`, then lines of properties
/// (Documentation/ABI/testing/dev-kmsg).
fn message(record: &[u8]) -> Option<&str> {
    let record = std::str::from_utf8(record).ok()?;
    record.split_once(';')?.1.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x200000 \
                         [fault reason 0x05] PTE Write access is not set";

    #[test]
    fn intel_record_names_requester_direction_and_page() {
        let fault = IommuFault::parse(INTEL).unwrap();
        assert_eq!(fault.requester.to_string(), "0000:00:01.0");
        assert!(fault.write);
        assert_eq!(fault.address, 0x20_0000);
        assert_eq!(fault.text, INTEL);
    }

    #[test]
    fn amd_record_names_requester_direction_and_address() {
        let inside = "AMD-Vi: Event logged [IO_PAGE_FAULT device=01:00.1 domain=0x0000 \
                      address=0xdf1a2040 flags=0x0000]";
        let fault = IommuFault::parse(inside).unwrap();
        assert_eq!(fault.requester.to_string(), "0000:01:00.1");
        assert!(!fault.write);
        let before = "vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e \
                      address=0x1000 flags=0x0020]";
        let fault = IommuFault::parse(before).unwrap();
        assert_eq!(fault.requester.to_string(), "0000:01:00.0");
        assert!(fault.write);
        assert_eq!(fault.address, 0x1000);
    }

    #[test]
    fn a_record_belongs_to_the_access_that_caused_it() {
        let fault = IommuFault::parse(INTEL).unwrap();
        let device = "0000:00:01.0".parse().unwrap();
        let other = "0000:00:02.0".parse().unwrap();
        assert!(fault.is_of(device, true, &(0x20_0f00..0x20_1100)));
        assert!(!fault.is_of(other, true, &(0x20_0f00..0x20_1100)));
        assert!(!fault.is_of(device, false, &(0x20_0f00..0x20_1100)));
        assert!(!fault.is_of(device, true, &(0x20_1000..0x20_1100)));
    }

    #[test]
    fn other_lines_are_no_faults() {
        for text in [
            "",
            "DMAR: DRHD: handling fault status reg 2",
            "DMAR: [DMA Write",
            "DMAR: [DMA Write NO_PASID] Request device [zz] fault addr 0x1 x",
            "DMAR: [INTR-REMAP] Request device [00:01.0] fault index 0x1",
            "AMD-Vi: Event logged [IO_PAGE_FAULT ",
        ] {
            assert_eq!(IommuFault::parse(text), None, "{text}");
        }
    }

    #[test]
    fn text_of_a_record_ends_at_its_line() {
        let record = b"6,339,5140900,-;DMAR: something\n SUBSYSTEM=pci\n";
        assert_eq!(message(record), Some("DMAR: something"));
        assert_eq!(message(b"\xff"), None);
    }
}
