//! The initial file system: a cpio archive in the "newc" format.
//!
//! Written only, never read: the reader is the guest's kernel (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst). Everything belongs to root.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making.
#[derive(Debug)]
pub struct Archive<W: Write> {
    to: W,
    /// Directories written so far: each comes once, before what is in it.
    directories: BTreeSet<String>,
    inode: u32,
}

/// One entry's header fields that differ between entries.
#[derive(Debug, Default)]
struct Header {
    mode: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(to: W) -> Self {
        Self {
            to,
            directories: BTreeSet::new(),
            inode: 0,
        }
    }

    /// Adds a directory with all that lead to it.
    ///
    /// # Errors
    /// A name that no guest path can have, or the writer's.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = checked(path)?;
        self.directories_to(path)?;
        self.one_directory(path)
    }

    /// Adds a file that everybody may read and run.
    ///
    /// # Errors
    /// A name that no guest path can have, a file of 4 GiB or more, or the writer's.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = checked(path)?;
        self.directories_to(path)?;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path} is too large for a cpio archive")))?;
        let header = Header {
            mode: PROGRAM,
            size,
            ..Header::default()
        };
        self.entry(path, &header)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// A name that no guest path can have, or the writer's.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        let path = checked(path)?;
        self.directories_to(path)?;
        let header = Header {
            mode: CHARACTER_DEVICE,
            size: 0,
            device: (major, minor),
        };
        self.entry(path, &header)
    }

    /// Ends the archive and returns the writer.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry(TRAILER, &Header::default())?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn directories_to(&mut self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            self.one_directory(&path[..at])?;
        }
        Ok(())
    }

    fn one_directory(&mut self, path: &str) -> io::Result<()> {
        if !self.directories.insert(path.to_owned()) {
            return Ok(());
        }
        let header = Header {
            mode: DIRECTORY,
            ..Header::default()
        };
        self.entry(path, &header)
    }

    /// Header and name, padded; the content follows.
    fn entry(&mut self, name: &str, header: &Header) -> io::Result<()> {
        self.inode += 1;
        let name_size = name.len() + 1;
        let links = 1;
        write!(self.to, "070701")?;
        for field in [
            self.inode,
            header.mode,
            0, // user
            0, // group
            links,
            0, // time of modification
            header.size,
            0, // device of the archive's file system, major
            0, // and minor
            header.device.0,
            header.device.1,
            u32::try_from(name_size).map_err(io::Error::other)?,
            0, // check sum: none in this format
        ] {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        // The header has 110 bytes: it is padded together with the name.
        self.pad(110 + name_size)
    }

    fn pad(&mut self, len: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..len.next_multiple_of(4) - len])
    }
}

/// The path as the archive has it: without the first slash, and no way out of the root.
fn checked(path: &str) -> io::Result<&str> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let well_formed = !inner.is_empty()
        && inner != TRAILER
        && !inner.contains('\0')
        && inner
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if well_formed {
        Ok(inner)
    } else {
        Err(io::Error::other(format!(
            "`{path}` is no path for a file in the guest: give an absolute one without `.` and `..`"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry, read back by the format's rules.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < archive.len() {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let from = at + 6 + 8 * index;
                let digits = std::str::from_utf8(&archive[from..from + 8]).expect("digits");
                u32::from_str_radix(digits, 16).expect("hexadecimal") as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = &archive[at + 110..at + 110 + name_size - 1];
            let content = (at + 110 + name_size).next_multiple_of(4);
            found.push((
                String::from_utf8(name.to_vec()).expect("name"),
                u32::try_from(mode).expect("mode"),
                archive[content..content + size].to_vec(),
            ));
            at = (content + size).next_multiple_of(4);
        }
        found
    }

    #[test]
    fn directories_come_once_and_before_their_files() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/lib/modules/a.ko", b"abc").expect("file");
        archive.file("/lib/modules/b.ko", b"").expect("file");
        archive.directory("/proc").expect("directory");

        let entries = entries(&archive.finish().expect("archive"));

        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "lib",
                "lib/modules",
                "lib/modules/a.ko",
                "lib/modules/b.ko",
                "proc",
                TRAILER
            ]
        );
        assert_eq!(entries[2].2, b"abc");
        assert_eq!(entries[0].1, DIRECTORY);
    }

    #[test]
    fn console_is_a_character_device() {
        let mut archive = Archive::new(Vec::new());
        archive.device("/dev/console", 5, 1).expect("device");

        let bytes = archive.finish().expect("archive");

        let found = entries(&bytes);
        assert_eq!(found[1].1, CHARACTER_DEVICE);
        let start = bytes
            .windows(12)
            .position(|bytes| bytes == b"dev/console\0")
            .expect("name");
        let numbers = std::str::from_utf8(&bytes[start - 32..start - 16]).expect("digits");
        assert_eq!(numbers, "0000000500000001");
    }

    #[test]
    fn path_out_of_the_root_is_refused() {
        let mut archive = Archive::new(Vec::new());

        for path in [
            "/",
            "",
            "/../etc",
            "/a//b",
            "/a/./b",
            "/a\0b",
            "/TRAILER!!!",
        ] {
            assert!(archive.file(path, b"").is_err(), "{path:?}");
        }
    }
}
