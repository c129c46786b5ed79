//! The runner of drivers that end their process, do not come back, or have much to find, for the tests of
//! campaigns beside it. They are no examples.

mod driver;

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::Device;
use driver::{Manner, Rough};
use vdevice_edu::{Edu, EduTiming};

struct Case {
    name: &'static str,
    manner: Manner,
}

const CASES: [Case; 3] = [
    Case {
        name: "spins",
        manner: Manner::Spins,
    },
    Case {
        name: "panics-twice",
        manner: Manner::PanicsTwice,
    },
    Case {
        name: "wanders",
        manner: Manner::Wanders,
    },
];

impl Target for Case {
    fn name(&self) -> &'static str {
        self.name
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "rough-drivers",
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        &[CallSpec {
            name: "ask",
            arguments: &[Argument {
                name: "challenge",
                least: 0,
                most: u32::MAX as u64,
            }],
        }]
    }

    fn device(&self) -> Box<dyn Device> {
        Box::new(Edu::new(EduTiming::default()))
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        Ok(Box::new(Running(Rough::probe(host, self.manner)?)))
    }
}

struct Running(Rough<FuzzHost>);

impl Driver for Running {
    fn call(&mut self, call: Call<'_>, _: &mut Witness) -> Result<(), Refused> {
        self.0.ask(u32::try_from(call.argument(0)).unwrap_or(0));
        Ok(())
    }
}

cofferdam_fuzz_engine::main!(&[&CASES[0], &CASES[1], &CASES[2]]);
