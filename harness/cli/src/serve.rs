//! `cofferdam serve`: a device model, honest or not, for virtual machine monitors and other clients of
//! vfio-user.

use crate::interrupt;
use clap::{Args, ValueEnum};
use cofferdam_experiment::catalogue::{Lying, lies, nearest};
use cofferdam_fuzz::program::{Program, text};
use cofferdam_fuzz::served::Served;
use cofferdam_placement::trial::DriverId;
use cofferdam_seam::Device;
use std::fmt::Display;
use std::io::{Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vdevice_edu::{Edu, EduTiming};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_server::{Dma, Door, Ended, Options, Server};
use vdevice_tamper::{Tally, Tamper};
use vdevice_virtio::{BlkConfig, VirtioBlk};

const USAGE: u8 = 2;
const INFRASTRUCTURE: u8 = 3;

/// How often it looks whether to stop or to begin to lie.
const TICK: Duration = Duration::from_millis(50);

#[derive(Args)]
#[command(
    after_help = "Serves one client after the other until it is interrupted; one process a device.\n\
                  Exit codes: 0 done; 2 wrong usage; 3 the socket failed."
)]
pub struct Serve {
    /// The device.
    device: Model,
    /// Where clients connect.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// MiB of its medium.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=256))]
    mib: u16,
    /// How it reaches memory that the client lent, and other memory.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Reach::Lent)]
    dma: Reach,
    /// Lets clients map the device's page of doorbells, if it has one: a ring is then no message, and this
    /// process looks at the page all the time.
    #[arg(long)]
    map_doorbells: bool,
    /// Shows clients no MSI-X, so that the device interrupts by its pin: QEMU aborts when one with MSI-X is
    /// taken out of it.
    #[arg(long)]
    pin_only: bool,
    /// What it does wrong, once: a fault or a case of `cofferdam list faults` that a device commits.
    #[arg(long, value_name = "F")]
    fault: Option<String>,
    /// What it does wrong, as a program of the fuzzer says it (`program.prog` of a finding): each client
    /// meets it from its start. Calls of the workload are left out.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "fault")]
    tamper: Option<PathBuf>,
    /// At which occasion it does so, counted from when it begins to lie.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fault", value_parser = clap::value_parser!(u32).range(1..))]
    nth: u32,
    /// Seconds after which it begins to lie.
    #[arg(long, value_name = "S", default_value_t = 0, requires = "fault")]
    after: u32,
    /// Decides the bytes of a lie.
    #[arg(long, value_name = "S", default_value_t = 1, requires = "fault")]
    seed: u64,
    /// Ends when the first client has gone.
    #[arg(long)]
    once: bool,
    /// Tells every message, on standard error.
    #[arg(long)]
    trace: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// QEMU's edu.
    Edu,
    /// An NVM Express controller with one namespace.
    Nvme,
    /// A virtio block device.
    VirtioBlk,
}

impl Model {
    /// The driver whose faults it can commit.
    const fn driver(self) -> DriverId {
        match self {
            Self::Edu => DriverId::Edu,
            Self::Nvme => DriverId::Nvme,
            Self::VirtioBlk => DriverId::VirtioBlk,
        }
    }

    /// What targets of the fuzzer are called that drive it: this, or with more behind a hyphen.
    const fn target(self) -> &'static str {
        match self {
            Self::Edu => "edu",
            Self::Nvme => "nvme",
            Self::VirtioBlk => "virtio-blk",
        }
    }

    /// The model, with a medium of that many MiB and no latency of its own.
    fn device(self, mib: u16) -> Box<dyn Device> {
        let sectors = u64::from(mib) * 2048;
        let latency = Duration::ZERO;
        match self {
            Self::Edu => Box::new(Edu::new(EduTiming::default())),
            Self::Nvme => Box::new(Nvme::new(NvmeConfig {
                blocks: sectors,
                latency,
                max_queue_entries: 1024,
                ..NvmeConfig::default()
            })),
            Self::VirtioBlk => Box::new(VirtioBlk::new(BlkConfig {
                sectors,
                latency,
                ..BlkConfig::default()
            })),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Reach {
    /// Through the files that the client lent; anything else is refused here.
    Lent,
    /// The same, but what was not lent is asked of the client, whose IOMMU judges it.
    Judged,
    /// Everything is asked of the client.
    Message,
}

impl From<Reach> for Dma {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Lent => Self::Lent,
            Reach::Judged => Self::Judged,
            Reach::Message => Self::Message,
        }
    }
}

pub fn serve(arguments: &Serve) -> ExitCode {
    let mut device = arguments.device.device(arguments.mib);
    let mut tally = None;
    if let Some(name) = &arguments.fault {
        let driver = arguments.device.driver();
        let lying = match lying(driver, name) {
            Ok(lying) => lying,
            Err(why) => return fail(&why, USAGE),
        };
        let lie = lying.lie(driver, arguments.nth, arguments.seed);
        let (tamper, told) = Tamper::new(device, lie.into_iter().collect());
        device = Box::new(tamper);
        tally = Some(told);
        say(format_args!("{}: {}", lying.name, lying.line));
    }
    let mut deeds = None;
    if let Some(path) = &arguments.tamper {
        let program = match program(arguments.device, path) {
            Ok(program) => program,
            Err(why) => return fail(&why, USAGE),
        };
        let (served, acted) = Served::new(device, &program);
        device = Box::new(served);
        deeds = Some(acted);
    }
    let door = match Door::open(&arguments.socket) {
        Ok(door) => door,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    let mut options = Options {
        dma: arguments.dma.into(),
        map_doorbells: arguments.map_doorbells,
        pin_only: arguments.pin_only,
        trace: None,
    };
    if arguments.trace {
        options.trace = Some(Box::new(say));
    }
    interrupt::watch();
    say(format_args!("listening at {}", arguments.socket.display()));
    let stop = AtomicBool::new(false);
    let mut server = Server::new(device, options);
    let once = arguments.once;
    let gone = |ended: &Ended| {
        say(format_args!("a client has gone: {ended}"));
        once
    };
    let served = std::thread::scope(|scope| {
        let thread = scope.spawn(|| server.serve_at(&door, &stop, gone));
        let begins = Instant::now() + Duration::from_secs(arguments.after.into());
        while !thread.is_finished() {
            if interrupt::asked() {
                stop.store(true, Ordering::Relaxed);
            }
            if Instant::now() >= begins {
                tally.iter().for_each(|tally: &Arc<Tally>| tally.arm());
            }
            std::thread::sleep(TICK);
        }
        thread.join()
    });
    if let Some(tally) = tally {
        say(format_args!("lies that were acted out: {}", tally.acted()));
    }
    if let Some(deeds) = deeds {
        let deeds = deeds.load(Ordering::Relaxed);
        say(format_args!(
            "deeds of the program that took place: {deeds}"
        ));
    }
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error, INFRASTRUCTURE),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What a program has that device do.
fn program(device: Model, path: &Path) -> Result<Program, String> {
    let at = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {at}: {error}; name a program's file"))?;
    let parsed = text::parse_device(&text).map_err(|error| format!("{at}: {error}"))?;
    let (target, name) = (parsed.target, device.target());
    let rest = target.strip_prefix(name);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
        return Err(format!(
            "{at} is a program for '{target}', not for a driver of {name}; serve that device"
        ));
    }
    match Served::idle(&parsed.program) {
        0 => {}
        idle => say(format_args!(
            "{idle} actions of the program wait for what a served device does not see, and never happen"
        )),
    }
    Ok(parsed.program)
}

/// The case of that name, or the first of the fault of that name.
fn lying(driver: DriverId, name: &str) -> Result<Lying, String> {
    let mut all = lies(driver);
    let is = |lying: &Lying| {
        lying.name.eq_ignore_ascii_case(name) || lying.fault.eq_ignore_ascii_case(name)
    };
    if let Some(place) = all.iter().position(is) {
        return Ok(all.swap_remove(place));
    }
    let mut names: Vec<&str> = all.iter().map(|lying| lying.fault).collect();
    names.dedup();
    let meant = nearest(name, names.iter().copied());
    let meant = meant.map_or(String::new(), |one| format!("did you mean '{one}'? "));
    Err(format!(
        "this device commits no fault '{name}': {meant}it can: {}",
        names.join(", ")
    ))
}

fn say(what: std::fmt::Arguments<'_>) {
    // A terminal that went away does not end a device.
    let _ = writeln!(stderr(), "cofferdam: {what}");
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    say(format_args!("{error}"));
    ExitCode::from(code)
}
