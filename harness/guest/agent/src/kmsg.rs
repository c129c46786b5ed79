//! The kernel's log, read from `/dev/kmsg`, one record a read
//! (Linux, Documentation/ABI/testing/dev-kmsg).

use cofferdam_guest::message::Record;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// Records taken in one go; a kernel that logs faster than it is read is not waited for.
const AT_ONCE: usize = 4096;

/// A reader with a place of its own in the log.
#[derive(Debug)]
pub struct KernelLog {
    device: File,
}

impl KernelLog {
    /// From the oldest record that is still there.
    pub fn open() -> io::Result<Self> {
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/kmsg")?;
        Ok(Self { device })
    }

    /// What was logged since the last call.
    pub fn take(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut buffer = [0; 8192];
        while records.len() < AT_ONCE {
            match self.device.read(&mut buffer) {
                Ok(len) => records.extend(parse(&String::from_utf8_lossy(&buffer[..len]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Records were overwritten before they were read: the next read goes on behind.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }
}

/// `priority,sequence,microseconds,flags[,...];text`, then lines of properties that begin with a
/// space.
fn parse(record: &str) -> Option<Record> {
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let microseconds = fields.nth(1)?.parse().ok()?;
    Some(Record {
        at: Duration::from_micros(microseconds),
        severity: (priority & 7) as u8,
        text: rest.lines().next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_with_properties_keeps_its_text_only() {
        let record = parse("3,160,424069,-;pci_root PNP0A03:00: host bridge\n SUBSYSTEM=acpi\n");

        assert_eq!(
            record,
            Some(Record {
                at: Duration::from_micros(424_069),
                severity: 3,
                text: "pci_root PNP0A03:00: host bridge".to_owned(),
            })
        );
    }

    #[test]
    fn facility_is_no_part_of_the_severity() {
        let record = parse("12,1,5,-;from user space").expect("record");

        assert_eq!(record.severity, 4);
    }

    #[test]
    fn line_without_a_prefix_is_no_record() {
        assert_eq!(parse("no prefix"), None);
        assert_eq!(parse("x,1,2,-;text"), None);
        assert_eq!(parse("6,1;text"), None);
    }
}
