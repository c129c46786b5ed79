//! The driver: a thermometer, which edu's liveness register plays. It believes what the device says.

use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, DriverHost, Mmio};

const LIVENESS: u32 = 0x04;

/// Degrees, by what the sensor says.
const SCALE: [i32; 4] = [-40, 0, 40, 80];

/// A thermometer.
pub struct Thermometer<H: DriverHost> {
    registers: H::Mmio,
}

impl<H: DriverHost> Thermometer<H> {
    /// Takes the device into service.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn probe(mut host: H) -> Result<Self, DriverError> {
        let registers = host.map_bar(Bar::ZERO)?;
        Ok(Self { registers })
    }

    /// The temperature, in degrees.
    pub fn read(&self) -> i32 {
        self.registers.write32(LIVENESS, !2);
        // The defect: the device's number is an index.
        SCALE[self.registers.read32(LIVENESS) as usize]
    }
}
