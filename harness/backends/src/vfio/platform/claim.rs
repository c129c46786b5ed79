//! Taking a device from its driver, and giving it back.
//!
//! What is about to change is written to a file first, so that the device can be given back by
//! anybody, after any crash: each step of giving back looks at how things stand.

use crate::vfio::platform::{Address, Obstacle, Override, Platform, PlatformError, text};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// The driver that gives devices to processes.
const VFIO_PCI: &str = "vfio-pci";

/// Where taken devices are written down. The kernel forgets drivers at a restart, and so does this
/// directory.
const STATE: &str = "run/cofferdam/vfio";

/// How long the kernel may take to unbind or bind a driver. It waits for whoever has the device
/// open.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a device was not taken or not given back.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// What sysfs says of it, or does not.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// It is in use, and nobody said to take it all the same.
    #[error("{address} is left alone:{}", listed(.obstacles))]
    Refused {
        /// The device.
        address: Address,
        /// All that speaks against it.
        obstacles: Vec<Obstacle>,
    },
    /// The driver is not there.
    #[error("the kernel has no driver vfio-pci; load it with `modprobe vfio-pci`")]
    NoVfio,
    /// Another process is at it.
    #[error("another process is taking or giving back a device; try again")]
    Busy,
    /// There is no record of it.
    #[error("{0} was not taken, so there is nothing to give back")]
    NotTaken(Address),
    /// Somebody still uses it.
    #[error("{address} cannot be given back yet:{}", listed(.obstacles))]
    StillOpen {
        /// The device.
        address: Address,
        /// Who.
        obstacles: Vec<Obstacle>,
    },
    /// A driver did not take it.
    #[error("{address} is held by {found} instead of {wanted}")]
    NotBound {
        /// The device.
        address: Address,
        /// Who should hold it.
        wanted: String,
        /// Who does.
        found: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {error}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn listed(obstacles: &[Obstacle]) -> String {
    let mut text = String::new();
    for obstacle in obstacles {
        let _ = match obstacle.overridden_by() {
            Some(needed) => write!(text, "\n  {obstacle} (--force {})", needed.name()),
            None => write!(text, "\n  {obstacle}"),
        };
    }
    text
}

/// The record of a taken device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The device.
    pub address: Address,
    /// The driver it was taken from.
    pub driver: Option<String>,
    /// What it had been reserved for.
    pub driver_override: Option<String>,
    /// What was overridden to take it.
    pub forced: Vec<Override>,
    /// Who took it.
    pub pid: u32,
    /// When the machine was started: a record of an earlier start is void.
    boot: String,
}

/// What became of a device that was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Released {
    /// The device.
    pub address: Address,
    /// The driver that holds it now.
    pub driver: Option<String>,
}

/// A device that this process took. It is given back when this is dropped, if not before.
#[derive(Debug)]
pub struct Claim {
    platform: Platform,
    taken: Taken,
    kept: bool,
}

impl Claim {
    /// The record.
    pub fn taken(&self) -> &Taken {
        &self.taken
    }

    /// Gives it back.
    ///
    /// # Errors
    ///
    /// If it is still open or its driver does not want it; [`Platform::release`] can try again.
    pub fn give_back(mut self) -> Result<Released, ClaimError> {
        self.kept = false;
        self.platform.release(self.taken.address)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept {
            // There is nobody to tell; the record stays for a later attempt.
            let _ = self.platform.release(self.taken.address);
        }
    }
}

impl Platform {
    /// Takes a device from its driver for VFIO, unless something speaks against it that is not in
    /// `force`. A device that was taken and never given back is taken over with its record.
    ///
    /// # Errors
    ///
    /// Says everything that speaks against it. The device is then where it was.
    pub fn take(&self, address: Address, force: &[Override]) -> Result<Claim, ClaimError> {
        self.device(address)?;
        let lock = self.lock()?;
        // It may have changed hands meanwhile.
        let function = self.device(address)?;
        let mut obstacles = self.obstacles(&function);
        obstacles.retain(
            |obstacle| !matches!(obstacle.overridden_by(), Some(needed) if force.contains(&needed)),
        );
        if !obstacles.is_empty() {
            return Err(ClaimError::Refused { address, obstacles });
        }
        if !self.driver_path(VFIO_PCI).exists() {
            return Err(ClaimError::NoVfio);
        }
        let taken = match self.record(address) {
            Some(earlier) => earlier,
            None => Taken {
                address,
                driver: function.driver.clone(),
                driver_override: function.driver_override,
                forced: force.to_vec(),
                pid: std::process::id(),
                boot: self.boot(),
            },
        };
        self.write_record(&taken)?;
        let claim = Claim {
            platform: self.clone(),
            taken,
            kept: true,
        };
        if function.driver.as_deref() != Some(VFIO_PCI) {
            let device = self.device_path(address);
            let name = address.to_string();
            let moved = (|| {
                self.tell(&device.join("driver_override"), VFIO_PCI)?;
                if function.driver.is_some() {
                    self.tell(&device.join("driver/unbind"), &name)?;
                }
                self.tell(&self.path("sys/bus/pci/drivers_probe"), &name)?;
                self.expect_driver(address, VFIO_PCI)
            })();
            if let Err(error) = moved {
                drop(lock);
                drop(claim);
                return Err(error);
            }
        }
        Ok(claim)
    }

    /// Gives a device back to the driver it was taken from.
    ///
    /// # Errors
    ///
    /// If it was not taken, somebody still has it open, or its driver does not take it. The record
    /// stays then.
    pub fn release(&self, address: Address) -> Result<Released, ClaimError> {
        let _lock = self.lock()?;
        let taken = self.record(address);
        let taken = taken.ok_or(ClaimError::NotTaken(address))?;
        let function = match self.device(address) {
            Ok(function) => function,
            // It was unplugged: nothing is left to give back.
            Err(PlatformError::NoDevice(_)) => {
                self.forget(address)?;
                return Ok(Released {
                    address,
                    driver: None,
                });
            }
            Err(error) => return Err(error.into()),
        };
        // Whoever had bound it to VFIO keeps it there.
        if taken.driver.as_deref() != Some(VFIO_PCI) {
            let device = self.device_path(address);
            let name = address.to_string();
            if function.driver.as_deref() == Some(VFIO_PCI) {
                let obstacles = self.openers(&function.nodes());
                if !obstacles.is_empty() {
                    return Err(ClaimError::StillOpen { address, obstacles });
                }
                self.tell(&device.join("driver/unbind"), &name)?;
            }
            // An empty line lifts it.
            let reserved = taken.driver_override.as_deref().unwrap_or("\n");
            self.tell(&device.join("driver_override"), reserved)?;
            if let Some(driver) = &taken.driver
                && function.driver.as_ref() != Some(driver)
            {
                self.tell(&self.driver_path(driver).join("bind"), &name)?;
                self.expect_driver(address, driver)?;
            }
        }
        self.forget(address)?;
        Ok(Released {
            address,
            driver: self.device(address)?.driver,
        })
    }

    /// Devices that were taken and not given back.
    pub fn taken(&self) -> Vec<Taken> {
        let mut taken: Vec<_> = fs::read_dir(self.path(STATE))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let address = name.to_str()?.strip_suffix(".json")?.parse().ok()?;
                self.record(address)
            })
            .collect();
        taken.sort_by_key(|taken| taken.address);
        taken
    }

    fn record(&self, address: Address) -> Option<Taken> {
        let text = text(&self.record_path(address)).ok()?;
        let taken: Taken = serde_json::from_str(&text).ok()?;
        (taken.boot == self.boot() && taken.address == address).then_some(taken)
    }

    /// Writes the record whole or not at all.
    fn write_record(&self, taken: &Taken) -> Result<(), ClaimError> {
        let path = self.record_path(taken.address);
        let draft = path.with_extension("draft");
        let written = (|| {
            let mut file = File::create(&draft)?;
            serde_json::to_writer(&mut file, taken)?;
            file.flush()?;
            fs::rename(&draft, &path)
        })();
        written.map_err(|error| ClaimError::File {
            what: "write",
            path,
            error,
        })
    }

    fn forget(&self, address: Address) -> Result<(), ClaimError> {
        let path = self.record_path(address);
        fs::remove_file(&path).map_err(|error| ClaimError::File {
            what: "remove",
            path,
            error,
        })
    }

    fn record_path(&self, address: Address) -> PathBuf {
        self.path(STATE).join(format!("{address}.json"))
    }

    fn driver_path(&self, driver: &str) -> PathBuf {
        self.path("sys/bus/pci/drivers").join(driver)
    }

    fn boot(&self) -> String {
        text(&self.path("proc/sys/kernel/random/boot_id")).unwrap_or_default()
    }

    /// One process at a time; the lock goes with it.
    pub(super) fn lock(&self) -> Result<File, ClaimError> {
        let path = self.path(STATE);
        let failed = |error| ClaimError::File {
            what: "use",
            path: path.clone(),
            error,
        };
        fs::create_dir_all(&path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => Err(ClaimError::Busy),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn expect_driver(&self, address: Address, wanted: &str) -> Result<(), ClaimError> {
        let found = self.device(address)?.driver;
        if found.as_deref() == Some(wanted) {
            return Ok(());
        }
        Err(ClaimError::NotBound {
            address,
            wanted: wanted.to_owned(),
            found: found.unwrap_or_else(|| "no driver".to_owned()),
        })
    }

    /// Writes to a file of the kernel's.
    fn tell(&self, path: &Path, what: &str) -> Result<(), ClaimError> {
        (self.write)(path, what).map_err(|error| ClaimError::File {
            what: "write to",
            path: path.to_owned(),
            error,
        })
    }
}

/// Writes to a file of the kernel's, which must answer in time. A write that does not end goes on
/// in its own thread: the kernel does not let it be called off.
pub(super) fn write_in_time(path: &Path, what: &str) -> io::Result<()> {
    let (done, answer) = mpsc::channel();
    let (path, what) = (path.to_owned(), what.to_owned());
    thread::spawn(move || {
        let written = OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(what.as_bytes()));
        let _ = done.send(written);
    });
    answer
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
