//! Linux's own block drivers on a disk that somebody serves: a file system made, used and found again.

use super::NotPassed;
use super::liar::brought_up;
use rustix::fs::sync;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SECTOR: usize = 512;
/// Bytes written or read at a time.
const CHUNK: usize = 1 << 20;
/// How long a driver may take to bring a disk up.
const PROBE: Duration = Duration::from_secs(20);
const MOUNTED: &str = "/run/disk";

/// Makes a file system on a disk, writes a file, unmounts, mounts again and compares. Arguments: the
/// disk's name below `/dev` or the PCI address of its NVMe controller, the file's MiB.
pub fn keeps_a_file_system(arguments: &[String]) -> Result<Value, NotPassed> {
    let [name, mib, ..] = arguments else {
        return Err(NotPassed::Failed(
            json!({ "error": "which disk, and how many MiB?" }),
        ));
    };
    let mib: u64 = mib.parse()?;
    let disk = if name.contains(':') {
        brought_up(name)?.1
    } else {
        find(name)?
    };
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let sectors = fs::read_to_string(format!("/sys/class/block/{name}/size"))?;
    let sectors: u32 = sectors.trim().parse()?;
    make_fat16(&OpenOptions::new().write(true).open(&disk)?, sectors)?;
    fs::create_dir_all(MOUNTED)?;
    let path = Path::new(MOUNTED).join("file");

    let started = Instant::now();
    mount(
        &disk,
        MOUNTED,
        "vfat",
        MountFlags::empty(),
        None::<&std::ffi::CStr>,
    )?;
    let mut file = File::create(&path)?;
    for chunk in 0..mib {
        file.write_all(&noise(chunk))?;
    }
    file.sync_all()?;
    drop(file);
    sync();
    unmount(MOUNTED, UnmountFlags::empty())?;
    let written = started.elapsed();

    // The disk is read again, not what the kernel remembers of it.
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let started = Instant::now();
    mount(
        &disk,
        MOUNTED,
        "vfat",
        MountFlags::RDONLY,
        None::<&std::ffi::CStr>,
    )?;
    let mut file = File::open(&path)?;
    let mut differ = 0;
    let mut bytes = vec![0; CHUNK];
    for chunk in 0..mib {
        file.read_exact(&mut bytes)?;
        differ += u64::from(bytes != noise(chunk));
    }
    drop(file);
    unmount(MOUNTED, UnmountFlags::empty())?;
    let read = started.elapsed();

    let detail = json!({
        "sectors": sectors, "mib": mib, "mib_that_differ": differ,
        "written_ms": millis(written), "read_ms": millis(read),
    });
    if differ == 0 {
        Ok(detail)
    } else {
        Err(NotPassed::Failed(detail))
    }
}

/// The disk's node, once the driver has brought it up.
pub(super) fn find(name: &str) -> Result<PathBuf, NotPassed> {
    let node = Path::new("/dev").join(name);
    // The node is there a moment before its disk can be opened.
    appear(|| File::open(&node).ok().map(|_| node.clone()))
}

/// What a driver makes when it has brought its device up.
pub(super) fn appear(look: impl Fn() -> Option<PathBuf>) -> Result<PathBuf, NotPassed> {
    let until = Instant::now() + PROBE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > until {
            let error = format!("no driver brought the device up within {PROBE:?}");
            return Err(NotPassed::Failed(json!({ "error": error })));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An empty FAT16 file system with clusters of 4 KiB (Microsoft FAT Specification, 2005, section 3).
fn make_fat16(disk: &File, sectors: u32) -> io::Result<()> {
    const PER_CLUSTER: u32 = 8;
    const ROOT_ENTRIES: u16 = 512;
    let clusters = sectors / PER_CLUSTER;
    if !(4085 + 64..65_525).contains(&clusters) {
        let error = format!("a disk of {sectors} sectors: FAT16 has 4085 to 65524 clusters");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let fat = u16::try_from((clusters + 2).div_ceil(256)).unwrap_or(u16::MAX);
    let mut boot = [0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| boot[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"cofferdm");
    put(11, &[0, 2, 8]);
    put(14, &[1, 0, 2]);
    put(17, &ROOT_ENTRIES.to_le_bytes());
    put(21, &[0xf8]);
    put(22, &fat.to_le_bytes());
    put(24, &[63, 0, 255, 0]);
    put(32, &sectors.to_le_bytes());
    put(36, &[0x80, 0, 0x29]);
    put(43, b"NO NAME    FAT16   ");
    put(510, &[0x55, 0xaa]);
    let tables = 2 * usize::from(fat) + usize::from(ROOT_ENTRIES) * 32 / SECTOR;
    let mut rest = vec![0; tables * SECTOR];
    for copy in 0..2 {
        let at = copy * usize::from(fat) * SECTOR;
        rest[at..at + 4].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff]);
    }
    disk.write_all_at(&boot, 0)?;
    disk.write_all_at(&rest, SECTOR as u64)?;
    disk.sync_all()
}

/// A mebibyte that differs from place to place and from seed to seed.
pub(super) fn noise(seed: u64) -> Vec<u8> {
    noise_of(seed, CHUNK)
}

/// The beginning of it.
pub(super) fn noise_of(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes / 8).flatten().collect()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
