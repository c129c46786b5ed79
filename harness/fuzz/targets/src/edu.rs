//! Our driver of edu.

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Decode, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::service::Compute;
use cofferdam_seam::{Deadline, Device, DriverHost};
use driver_edu::Edu;
use std::time::Duration;
use vdevice_edu::{Decoder, EduTiming};

/// How long a call may take.
const LIMIT: Duration = Duration::from_millis(10);

const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "factorial",
        arguments: &[Argument {
            name: "n",
            least: 0,
            most: 20,
        }],
    },
    CallSpec {
        name: "round-trip",
        arguments: &[Argument {
            name: "length",
            least: 1,
            most: 4096,
        }],
    },
];

/// The target.
pub static EDU: EduTarget = EduTarget;

/// Our driver, and the model of QEMU's device.
pub struct EduTarget;

/// A device that computes, in service.
pub struct Running<C> {
    /// The driver.
    pub edu: C,
    /// For the time.
    pub host: FuzzHost,
}

impl Target for EduTarget {
    fn name(&self) -> &'static str {
        "edu"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "driver-edu",
            version: "0.1.0",
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        CALLS
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(vdevice_edu::Edu::new(EduTiming::default()))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let edu = Edu::probe(host)?;
        Ok(Box::new(Running { edu, host }))
    }

    fn decoder(&self) -> Box<dyn Decode> {
        Box::new(Decoder)
    }
}

impl<C: Compute> Driver for Running<C> {
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        let until = Deadline::after(self.host.now(), LIMIT);
        match call.name() {
            "factorial" => {
                let n = u32::try_from(call.argument(0)).unwrap_or(0);
                self.edu.factorial(n, until)?;
            }
            // What a device that lies makes of the data the driver cannot know: edu has no DMA status.
            _ => {
                let out = vec![7; call.size(0)];
                let mut back = vec![0; call.size(0)];
                self.edu.round_trip(&out, &mut back, until)?;
            }
        }
        Ok(())
    }
}
