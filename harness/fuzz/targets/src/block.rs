//! Drivers that offer the seam's block service.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Driver, Refused};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::service::{Block, SECTOR};
use cofferdam_seam::{Deadline, DriverHost};
use std::time::Duration;

/// How long a call may take.
const LIMIT: Duration = Duration::from_millis(50);

/// Sectors of the disks.
pub const SECTORS: u64 = 16;

const REQUEST: &[Argument] = &[
    Argument {
        name: "sector",
        least: 0,
        most: SECTORS,
    },
    Argument {
        name: "count",
        least: 1,
        most: 12,
    },
];

/// The calls of the service.
pub const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "read",
        arguments: REQUEST,
    },
    CallSpec {
        name: "write",
        arguments: REQUEST,
    },
    CallSpec {
        name: "capacity",
        arguments: &[],
    },
];

/// A block driver in service.
pub struct Running<B> {
    /// The driver.
    pub driver: B,
    /// For the time.
    pub host: FuzzHost,
}

impl<B: Block> Driver for Running<B> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let until = Deadline::after(self.host.now(), LIMIT);
        let (sector, bytes) = (call.argument(0), call.size(1) * SECTOR);
        match call.name() {
            "read" => {
                let mut data = vec![0; bytes];
                witness.mark(&mut data);
                self.driver.read(sector, &mut data, until)?;
                witness.received("read", &data);
            }
            "write" => self.driver.write(sector, &vec![0x5a; bytes], until)?,
            _ => {
                self.driver.capacity();
            }
        }
        Ok(())
    }
}
