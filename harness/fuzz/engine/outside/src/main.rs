//! The runner of a driver that is not in this repository: `cofferdam fuzz --manifest-path .../Cargo.toml
//! thermometer`. Your driver would be a crate of its own, named with `--instrument`.

mod driver;

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::Device;
use driver::Thermometer;
use vdevice_edu::{Edu, EduTiming};

struct Outside;

impl Target for Outside {
    fn name(&self) -> &'static str {
        "thermometer"
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "outside-driver",
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        &[CallSpec {
            name: "read",
            arguments: &[],
        }]
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(Edu::new(EduTiming::default()))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        Ok(Box::new(Running(Thermometer::probe(host)?)))
    }
}

struct Running(Thermometer<FuzzHost>);

impl Driver for Running {
    fn call(&mut self, _: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        let degrees = self.0.read();
        witness.promise("the temperature is in range", (-40..=80).contains(&degrees));
        Ok(())
    }
}

cofferdam_fuzz_engine::main!(&[&Outside]);
