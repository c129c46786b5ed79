//! The planted bugs and their twins as targets of the fuzzer.
//!
//! Every [`Planted`] is a target of its own, named as in `planted.toml`; a twin's name ends in
//! `-fixed`. The adapter marks the buffers of reads, so that bytes that came from nowhere show, and
//! tells the witness each length a driver returns. What edu brings back is not looked at: the device
//! has no way to say that a copy failed, so no driver can know.

#![forbid(unsafe_code)]

use cofferdam_fuzz::host::FuzzHost;
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_fuzz::target::{Argument, Call, CallSpec, Crate, Driver, Refused, Target};
use cofferdam_fuzz::witness::Witness;
use cofferdam_seam::service::SECTOR;
use cofferdam_seam::{Deadline, Device, DriverHost};
use driver_planted::{Bug, Build, Family, Serve};
use serde::Deserialize;
use std::ops::Range;
use std::time::Duration;
use vdevice_edu::EduTiming;
use vdevice_nvme::NvmeConfig;
use vdevice_virtio::BlkConfig;

/// How long a call may take, in device time.
const PATIENCE: Duration = Duration::from_millis(5);
/// Sectors of a disk.
const SECTORS: u64 = 64;
/// Sectors of the longest request.
const LONGEST: u64 = 4;

/// One build of a planted bug's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planted {
    /// Which bug.
    pub bug: Bug,
    /// With or without it.
    pub build: Build,
}

const COUNT: usize = Bug::ALL.len();

const fn targets(build: Build) -> [Planted; COUNT] {
    let first = Planted {
        bug: Bug::ALL[0],
        build,
    };
    let mut targets = [first; COUNT];
    let mut nth = 0;
    while nth < COUNT {
        targets[nth].bug = Bug::ALL[nth];
        nth += 1;
    }
    targets
}

/// The drivers with their bugs, in the order of [`Bug::ALL`].
pub static PLANTED: [Planted; COUNT] = targets(Build::Planted);

/// Their twins, in the same order.
pub static FIXED: [Planted; COUNT] = targets(Build::Fixed);

/// What `planted.toml` says of a bug's detection.
#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    id: String,
    /// What should notice it.
    pub oracle: Oracle,
    /// What may notice it besides, or sooner.
    #[serde(default)]
    pub also: Vec<Oracle>,
}

/// What should notice a bug.
///
/// # Panics
///
/// The list of this repository does not tell.
pub fn expected(bug: Bug) -> Expected {
    #[derive(Deserialize)]
    struct List {
        bug: Vec<Expected>,
    }
    let text = include_str!("../../../../drivers-under-test/planted/planted.toml");
    let list: List = toml::from_str(text).expect("the list is well formed");
    let mut bugs = list.bug.into_iter();
    bugs.find(|it| it.id == bug.id())
        .expect("the list has each bug")
}

const N: Argument = Argument {
    name: "n",
    least: 0,
    most: 12,
};
const LENGTH: Argument = Argument {
    name: "length",
    least: 1,
    most: 4096,
};
const FIRST: Argument = Argument {
    name: "sector",
    least: 0,
    most: SECTORS - 1,
};
const MANY: Argument = Argument {
    name: "sectors",
    least: 1,
    most: LONGEST,
};

/// The calls of an edu.
const COMPUTE: &[CallSpec] = &[
    CallSpec {
        name: "factorial",
        arguments: &[N],
    },
    CallSpec {
        name: "round-trip",
        arguments: &[LENGTH],
    },
];

/// The calls of a disk.
const DISK: &[CallSpec] = &[
    CallSpec {
        name: "read",
        arguments: &[FIRST, MANY],
    },
    CallSpec {
        name: "write",
        arguments: &[FIRST, MANY],
    },
    CallSpec {
        name: "identify",
        arguments: &[],
    },
];

impl Target for Planted {
    fn name(&self) -> &'static str {
        self.bug.name(self.build)
    }

    fn driver(&self) -> Crate {
        Crate {
            name: "driver-planted",
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    fn calls(&self) -> &'static [CallSpec] {
        match self.bug.family() {
            Family::Edu => COMPUTE,
            Family::Virtio | Family::Nvme => DISK,
        }
    }

    /// Where an entry of a used ring has its length (virtio 1.2, 2.7.8). NVMe's completions have none.
    fn written(&self) -> Option<Range<usize>> {
        (self.bug.family() == Family::Virtio).then_some(4..8)
    }

    fn device(&self) -> Box<dyn Device> {
        match self.bug.family() {
            Family::Edu => Box::new(vdevice_edu::Edu::new(EduTiming::default())),
            Family::Virtio => Box::new(vdevice_virtio::VirtioBlk::new(BlkConfig {
                sectors: SECTORS,
                ..BlkConfig::default()
            })),
            Family::Nvme => Box::new(vdevice_nvme::Nvme::new(NvmeConfig {
                blocks: SECTORS,
                ..NvmeConfig::default()
            })),
        }
    }

    fn start(&self, host: FuzzHost, _: &mut Witness) -> Result<Box<dyn Driver>, Refused> {
        let driver = self.bug.probe(self.build, host)?;
        Ok(Box::new(Running { driver, host }))
    }
}

/// A planted driver in service.
pub struct Running<'a> {
    /// The driver.
    pub driver: Box<dyn Serve + 'a>,
    /// For the time.
    pub host: FuzzHost,
}

impl Running<'_> {
    /// Makes one call and returns what came of it.
    fn ask(
        &mut self,
        call: driver_planted::Call<'_>,
        what: &'static str,
        room: usize,
        witness: &mut Witness,
    ) -> Result<(Vec<u8>, usize), Refused> {
        let until = Deadline::after(self.host.now(), PATIENCE);
        let mut into = vec![0; room];
        witness.mark(&mut into);
        let len = self.driver.call(call, &mut into, until)?;
        witness.length(what, len, room);
        Ok((into, len.min(room)))
    }
}

impl Driver for Running<'_> {
    fn call(&mut self, call: Call<'_>, witness: &mut Witness) -> Result<(), Refused> {
        use driver_planted::Call as Ask;
        match call.name() {
            "factorial" => {
                let n = u32::try_from(call.argument(0)).unwrap_or(0);
                self.ask(Ask::Factorial(n), "factorial", 4, witness)?;
            }
            "round-trip" => {
                let mut out = vec![0; call.size(0)];
                witness.secret(&mut out);
                self.ask(Ask::RoundTrip(&out), "round trip", out.len(), witness)?;
                witness.sent();
            }
            "read" => {
                let room = SECTOR * call.size(1);
                let read = Ask::Read(call.argument(0));
                let (into, len) = self.ask(read, "read", room, witness)?;
                witness.received("read", &into[..len]);
            }
            "write" => {
                let mut from = vec![0; SECTOR * call.size(1)];
                witness.secret(&mut from);
                self.ask(Ask::Write(call.argument(0), &from), "write", 0, witness)?;
                witness.sent();
            }
            _ => {
                let (into, len) = self.ask(Ask::Identify, "identify", 20, witness)?;
                witness.received("identify", &into[..len]);
            }
        }
        Ok(())
    }
}
