//! The kernel maps memory for a device the ordinary way, in a domain of a chosen type.

use super::NotPassed;
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The driver of the guest's kernel module (`harness/guest/module`) and the node of its buffer.
const DRIVER: &str = "cofferdam-dma";
pub(super) const BUFFER: &str = "/dev/cofferdam-dma";

/// QEMU's edu.
const EDU: (&str, &str) = ("0x1234", "0x11e8");

pub(super) const PAGE: u64 = 4096;

/// Switches edu's group to the domain type that is the argument (as in the group's `type`), reads
/// that back, binds the module, maps a page, takes it away again and unbinds.
pub fn run(arguments: &[String]) -> Result<Value, NotPassed> {
    let wanted = arguments.first().map_or("DMA", String::as_str);
    if !Path::new("/sys/bus/pci/drivers").join(DRIVER).exists() {
        return Err(NotPassed::Skipped(format!(
            "the kernel module {DRIVER} is not loaded"
        )));
    }
    let device = edu()?;
    let kind = device.join("iommu_group/type");
    write(&kind, wanted)?;
    let kind = read(&kind)?.trim_end().to_owned();
    let bound = Bound::new(&device)?;

    let physical = number(&bound.read("physical")?)?;
    bound.write("map", "3 8192 4096 from-device")?;
    let listed = bound.read("map")?;
    let at = number(listed.split(' ').nth(1).unwrap_or_default())?;
    let taken_twice = bound.write("map", "3 0 1 to-device").is_ok();
    let beyond = bound.write("map", "4 32767 2 to-device").is_ok();
    bound.write("unmap", "3")?;
    let left = bound.read("map")?;
    let unmapped_at: u64 = bound.read("unmap")?.trim_end().parse()?;
    let buffer = OpenOptions::new().read(true).write(true).open(BUFFER)?;
    buffer.write_all_at(b"a word", 2 * PAGE)?;
    let mut word = [0; 6];
    buffer.read_exact_at(&mut word, 2 * PAGE)?;
    drop(bound);

    let identity = at == physical + 2 * PAGE;
    let detail = json!({
        "type": kind, "physical": physical, "mapped": listed.trim_end(), "left": left,
        "unmapped_at": unmapped_at, "taken_twice": taken_twice, "beyond": beyond,
    });
    let holds = kind == wanted
        && identity == (wanted == "identity")
        && left.is_empty()
        && unmapped_at > 0
        && !taken_twice
        && !beyond
        && word == *b"a word";
    if holds {
        Ok(detail)
    } else {
        Err(NotPassed::Failed(detail))
    }
}

/// The first edu of the guest, by its directory.
pub(super) fn edu() -> Result<PathBuf, NotPassed> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let id = |name| read(&path.join(name));
        if (id("vendor")?.trim_end(), id("device")?.trim_end()) == EDU {
            return Ok(path);
        }
    }
    Err(NotPassed::Skipped("the guest has no edu device".to_owned()))
}

/// `0x...` as the module writes addresses.
pub(super) fn number(text: &str) -> Result<u64, NotPassed> {
    let digits = text.trim().trim_start_matches("0x");
    Ok(u64::from_str_radix(digits, 16)?)
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| with(path, &error))
}

pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| with(path, &error))
}

/// An error with the file it happened at.
fn with(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The device while the module's driver has it.
pub(super) struct Bound<'a> {
    device: &'a Path,
}

impl<'a> Bound<'a> {
    pub(super) fn new(device: &'a Path) -> io::Result<Self> {
        write(&device.join("driver_override"), DRIVER)?;
        let bound = Self { device };
        write(Path::new("/sys/bus/pci/drivers_probe"), &bound.address())?;
        // That no driver takes the device is no error of the write.
        bound.read("map")?;
        Ok(bound)
    }

    fn address(&self) -> String {
        let name = self.device.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub(super) fn read(&self, attribute: &str) -> io::Result<String> {
        read(&self.device.join("cofferdam").join(attribute))
    }

    pub(super) fn write(&self, attribute: &str, text: &str) -> io::Result<()> {
        write(&self.device.join("cofferdam").join(attribute), text)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        for (path, text) in [
            (self.device.join("driver/unbind"), self.address()),
            (self.device.join("driver_override"), "\n".to_owned()),
        ] {
            if let Err(error) = write(&path, &text) {
                eprintln!("{error}");
            }
        }
    }
}
