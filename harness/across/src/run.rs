//! A program on one backend.

use crate::heard::{Heard, Listening, Record};
use cofferdam_backends::mock::MockMachine;
use cofferdam_backends::vfio::platform::{Address, Platform};
use cofferdam_backends::vfio::{Options as VfioOptions, VfioDevice};
use cofferdam_backends::vfio_user::VfioUserDevice;
use cofferdam_fuzz::program::text::{self, ParseError};
use cofferdam_fuzz::program::{Action, Program};
use cofferdam_fuzz::served::Served;
use cofferdam_fuzz::target::{Call, Target};
use cofferdam_fuzz_targets::{edu, nvme, virtio};
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{Block, Compute, DriverError, SECTOR};
use cofferdam_seam::{Deadline, Device, DriverHost, RawDma, Time};
use driver_edu::Edu;
use driver_nvme::Nvme;
use driver_virtio::VirtioBlk;
use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use vdevice_server::{Options, Server};

/// How long a call may take: a program may well make a device that never answers.
const LIMIT: Duration = Duration::from_secs(2);

/// Where the machine of this process ends.
const HORIZON: Time = Time(600_000_000_000);

/// Where a program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The model on the machine of this process, by a virtual clock.
    Mock,
    /// The model, served by a thread.
    VfioUser,
    /// A real device, through the kernel.
    Vfio(Option<Address>),
}

/// What a program came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What the driver did and heard, and how its calls ended.
    pub heard: Vec<Heard>,
    /// Deeds of the program's device that took place.
    pub acted: u32,
}

/// Why a program did not run.
#[derive(Debug, Error)]
pub enum NotRun {
    /// It cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// No driver of it runs on every host.
    #[error(
        "a driver of '{0}' runs under the fuzzer alone; on backends run: edu, nvme, virtio-blk"
    )]
    Target(String),
    /// The backend is not there, or cannot do it. Not passed, and no finding.
    #[error("{0}")]
    Unavailable(String),
}

/// The driver that a program is for.
#[derive(Clone, Copy)]
enum Which {
    Edu,
    Nvme,
    VirtioBlk,
}

impl Which {
    fn named(target: &str) -> Result<Self, NotRun> {
        Ok(match target {
            "edu" => Self::Edu,
            "nvme" => Self::Nvme,
            "virtio-blk" => Self::VirtioBlk,
            other => return Err(NotRun::Target(other.to_owned())),
        })
    }

    fn target(self) -> &'static dyn Target {
        match self {
            Self::Edu => &edu::EDU,
            Self::Nvme => &nvme::OURS,
            Self::VirtioBlk => &virtio::blk::BLK,
        }
    }

    /// Probes the device, makes the program's calls and removes the driver.
    fn work<H: RawDma + 'static>(
        self,
        host: H,
        now: &dyn Fn() -> Time,
        program: &Program,
        record: &Rc<RefCell<Record>>,
    ) {
        let host = Listening::to(host, record);
        let calls = Calls {
            of: self.target(),
            program,
            now,
            record,
        };
        match self {
            Self::Edu => calls.make(host, Edu::probe, compute),
            Self::Nvme => calls.make(host, Nvme::probe, block),
            Self::VirtioBlk => calls.make(host, VirtioBlk::probe, block),
        }
    }
}

/// A program's calls.
struct Calls<'a> {
    of: &'static dyn Target,
    program: &'a Program,
    now: &'a dyn Fn() -> Time,
    record: &'a Rc<RefCell<Record>>,
}

impl Calls<'_> {
    fn make<H: DriverHost, D>(
        &self,
        host: Listening<H>,
        probe: impl FnOnce(Listening<H>) -> Result<D, DriverError>,
        call: impl Fn(&mut D, Call<'_>, Deadline) -> Result<String, DriverError>,
    ) {
        let ended = |name: &str, how: Result<String, String>| {
            let how = match how {
                Ok(how) => format!("{name}: {how}"),
                Err(error) => format!("{name} failed: {error}"),
            };
            self.record.borrow_mut().call(how);
        };
        let mut driver = match probe(host) {
            Ok(driver) => driver,
            Err(error) => return ended("probe", Err(error.to_string())),
        };
        ended("probe", Ok("in service".to_owned()));
        for action in &self.program.actions {
            let Action::Call {
                call: index,
                arguments,
            } = action
            else {
                continue;
            };
            if let Some(asked) = Call::new(self.of.calls(), usize::from(*index), arguments) {
                let until = Deadline::after((self.now)(), LIMIT);
                let how = call(&mut driver, asked, until);
                ended(asked.name(), how.map_err(|error| error.to_string()));
            }
        }
        drop(driver);
        ended("removal", Ok("done".to_owned()));
    }
}

/// What the fuzzer's adapter of edu does, on any host.
fn compute(
    driver: &mut impl Compute,
    call: Call<'_>,
    until: Deadline,
) -> Result<String, DriverError> {
    if call.name() == "factorial" {
        let n = u32::try_from(call.argument(0)).unwrap_or(0);
        return driver.factorial(n, until).map(|value| value.to_string());
    }
    let out = vec![7; call.size(0)];
    let mut back = vec![0; call.size(0)];
    driver.round_trip(&out, &mut back, until)?;
    Ok(digest(&back))
}

/// What the fuzzer's adapter of a disk does, on any host.
fn block(driver: &mut impl Block, call: Call<'_>, until: Deadline) -> Result<String, DriverError> {
    let (sector, bytes) = (call.argument(0), call.size(1) * SECTOR);
    match call.name() {
        "read" => {
            let mut data = vec![0; bytes];
            driver.read(sector, &mut data, until)?;
            Ok(digest(&data))
        }
        "write" => {
            driver.write(sector, &vec![0x5a; bytes], until)?;
            Ok(format!("{bytes} bytes"))
        }
        _ => Ok(driver.capacity().to_string()),
    }
}

/// Data, short enough for a line (FNV-1a).
fn digest(data: &[u8]) -> String {
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{} bytes, {hash:016x}", data.len())
}

/// Runs a program on a backend.
///
/// # Errors
/// [`NotRun`]: nothing is known of this backend then.
pub fn run(program: &str, on: Backend) -> Result<Trace, NotRun> {
    let which = Which::named(&text::target_of(program)?)?;
    let target = which.target();
    let program = text::parse(program, target.calls())?.program;
    let record = Rc::<RefCell<Record>>::default();
    let acted = match on {
        Backend::Mock => {
            let (device, acted) = Served::new(target.device(), &program);
            on_mock(which, Box::new(device), &program, &record)?;
            acted.load(Ordering::Relaxed)
        }
        Backend::VfioUser => {
            let (device, acted) = Served::new(target.device(), &program);
            over_socket(which, Box::new(device), &program, &record)?;
            acted.load(Ordering::Relaxed)
        }
        Backend::Vfio(address) => {
            on_hardware(which, address, &program, &record)?;
            0
        }
    };
    let heard = record.borrow_mut().take();
    Ok(Trace { heard, acted })
}

fn on_mock(
    which: Which,
    device: Box<dyn Device>,
    program: &Program,
    record: &Rc<RefCell<Record>>,
) -> Result<(), NotRun> {
    let memory = Memory::private().map_err(|error| NotRun::Unavailable(error.to_string()))?;
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(device);
    let machine = MockMachine::with_horizon(machine, HORIZON);
    which.work(machine.host(id), &|| machine.now(), program, record);
    Ok(())
}

fn over_socket(
    which: Which,
    device: Box<dyn Device>,
    program: &Program,
    record: &Rc<RefCell<Record>>,
) -> Result<(), NotRun> {
    let failed = |error: std::io::Error| NotRun::Unavailable(format!("no connection: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let stop = AtomicBool::new(false);
    let mut server = Server::new(device, Options::default());
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(theirs, &stop));
        let connected = VfioUserDevice::over(ours)
            .map_err(failed)
            .and_then(|device| {
                which.work(device.host(), &|| device.now(), program, record);
                match device.failure() {
                    Some(why) => Err(NotRun::Unavailable(format!("the connection failed: {why}"))),
                    None => Ok(()),
                }
            });
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = serving.join() {
            std::panic::resume_unwind(panic);
        }
        connected
    })
}

fn on_hardware(
    which: Which,
    address: Option<Address>,
    program: &Program,
    record: &Rc<RefCell<Record>>,
) -> Result<(), NotRun> {
    let unavailable = |why: &dyn std::fmt::Display| NotRun::Unavailable(why.to_string());
    let Some(address) = address else {
        return Err(unavailable(&"no device was named; give --device ADDRESS"));
    };
    let honest = |action: &Action| matches!(action, Action::Call { .. });
    if !program.actions.iter().all(honest) {
        return Err(unavailable(
            &"the program makes the device lie, which a real one does not do",
        ));
    }
    let platform = Platform::here();
    let claim = platform
        .take(address, &[])
        .map_err(|error| unavailable(&error))?;
    let worked = VfioDevice::open(&platform, address, &VfioOptions::default())
        .map_err(|error| unavailable(&error))
        .map(|device| {
            which.work(device.host(), &|| device.now(), program, record);
            device.close();
        });
    claim.give_back().map_err(|error| unavailable(&error))?;
    worked
}
