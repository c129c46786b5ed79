//! `cofferdam vfio`: what there is, what holds it, and a driver's work on a real device.

use crate::arguments::Format;
use crate::{interrupt, print};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use cofferdam_backends::vfio::platform::{
    Address, Claim, ClaimError, Function, Obstacle, Override, Platform, PlatformError, Taken,
};
use cofferdam_backends::vfio::{
    Fault, NoCdev, Options, Outcome, Report, VfioDevice, Wall, Workload, run,
};
use driver_edu::Edu;
use serde_json::json;
use std::fmt::{Display, Write as _};
use std::io::{Write as _, stderr};
use std::process::ExitCode;

const FINDING: u8 = 1;
const USAGE: u8 = 2;
const INFRASTRUCTURE: u8 = 3;
const INTERRUPTED: u8 = 130;

#[derive(Subcommand)]
pub enum Vfio {
    /// Lists the PCI devices of this machine, their groups and what holds them.
    List {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Says all there is to know about a device, and what speaks against taking it.
    Info {
        /// The device, as 0000:00:01.0.
        device: Address,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Takes a device from its driver, has ours work on it, with or without a fault, and gives it
    /// back.
    Run(Run),
    /// Gives a device back to the driver it was taken from, after a crash too.
    Release {
        /// The device, as 0000:00:01.0.
        device: Address,
    },
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 as expected; 1 a finding: wrong answers, a fault that was not \
                  contained or did not come about; 2 wrong usage, or a device that is left alone; \
                  3 the harness or the kernel failed; 130 interrupted, with the device given back."
)]
pub struct Run {
    /// The driver.
    driver: Driver,
    /// The device, as 0000:00:01.0.
    #[arg(long)]
    device: Address,
    /// What the driver's side does wrong, once.
    #[arg(long, value_name = "F", value_parser = faults(), ignore_case = true)]
    fault: Option<Fault>,
    /// Requests before the fault, and after it.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    requests: u32,
    /// Takes the device although this speaks against it; may be given again.
    #[arg(long, value_name = "WHAT", value_parser = overrides())]
    force: Vec<Override>,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    /// Our driver of QEMU's edu.
    Edu,
}

impl Driver {
    /// Vendor and device ID of what it drives.
    const fn drives(self) -> (u16, u16) {
        match self {
            Self::Edu => (0x1234, 0x11e8),
        }
    }
}

pub fn vfio(command: &Vfio) -> ExitCode {
    let platform = Platform::here();
    match command {
        Vfio::List { format } => list(&platform, *format),
        Vfio::Info { device, format } => info(&platform, *device, *format),
        Vfio::Run(arguments) => work(&platform, arguments),
        Vfio::Release { device } => match platform.release(*device) {
            Ok(released) => {
                let driver = released.driver.as_deref().unwrap_or("no driver");
                print(&format!("{} is back with {driver}.\n", released.address));
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, code(&error)),
        },
    }
}

fn list(platform: &Platform, format: Format) -> ExitCode {
    let found = match platform.devices() {
        Ok(found) => found,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    let taken = platform.taken();
    let found: Vec<_> = found
        .iter()
        .map(|function| (function, platform.obstacles(function)))
        .collect();
    if format == Format::Json {
        let all: Vec<_> = found
            .iter()
            .map(|(function, obstacles)| described(function, obstacles, &taken))
            .collect();
        print(&format!("{:#}\n", json!(all)));
        return ExitCode::SUCCESS;
    }
    let mut text = format!(
        "{:12}  {:9}  {:6}  {:>5}  {:7}  {:16}  {}\n",
        "device", "id", "class", "group", "domain", "driver", "may be taken"
    );
    for (function, obstacles) in &found {
        let group = function.group.as_ref();
        let number = group.map_or("-".to_owned(), |group| group.number.to_string());
        let domain = group.and_then(|group| group.domain.as_deref());
        let taken = taken.iter().find(|taken| taken.address == function.address);
        let state = match (taken, &obstacles[..]) {
            (Some(taken), _) => format!("taken from {}", or_none(taken.driver.as_deref())),
            (None, []) => "yes".to_owned(),
            (None, [one]) => format!("no: {one}"),
            (None, [first, others @ ..]) => format!("no: {first}; and {} more", others.len()),
        };
        let _ = writeln!(
            text,
            "{}  {:04x}:{:04x}  {:06x}  {number:>5}  {:7}  {:16}  {state}",
            function.address,
            function.vendor,
            function.device,
            function.class,
            domain.unwrap_or("-"),
            function.driver.as_deref().unwrap_or("-"),
        );
    }
    print(&text);
    ExitCode::SUCCESS
}

fn info(platform: &Platform, device: Address, format: Format) -> ExitCode {
    let function = match platform.device(device) {
        Ok(function) => function,
        Err(error) => return fail(&error, platform_code(&error)),
    };
    let obstacles = platform.obstacles(&function);
    let taken = platform.taken();
    if format == Format::Json {
        let all = described(&function, &obstacles, &taken);
        print(&format!("{all:#}\n"));
        return ExitCode::SUCCESS;
    }
    let mut text = format!("{}\n", function.address);
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "  {name:10}{value}");
    };
    let (vendor, id, class) = (function.vendor, function.device, function.class);
    line("id", &format_args!("{vendor:04x}:{id:04x}"));
    line("class", &format_args!("{class:06x}"));
    line("driver", &or_none(function.driver.as_deref()));
    if let Some(reserved) = &function.driver_override {
        line("for", reserved);
    }
    match &function.group {
        Some(group) => {
            let domain = group.domain.as_deref().unwrap_or("unknown domain");
            let members: Vec<_> = group.members.iter().map(Address::to_string).collect();
            let members = members.join(", ");
            line(
                "group",
                &format_args!("{} ({domain}): {members}", group.number),
            );
        }
        None => line("group", &"none: there is no IOMMU in front of it"),
    }
    match platform.cdev(&function) {
        _ if function.group.is_none() => {}
        Ok(cdev) => line(
            "opened by",
            &format_args!("{} and {}", cdev.node.display(), cdev.iommufd.display()),
        ),
        Err(NoCdev::NoNode(_)) if function.driver.as_deref() != Some("vfio-pci") => line(
            "opened by",
            &"its own node if the kernel makes one, which shows once vfio-pci has it",
        ),
        Err(why) => line("opened by", &format_args!("its group: {why}")),
    }
    if function.resets.is_empty() {
        line("reset", &"cannot be reset alone");
    } else {
        line("reset", &function.resets.join(", "));
    }
    if let Some(taken) = taken.iter().find(|taken| taken.address == device) {
        let from = or_none(taken.driver.as_deref());
        line(
            "taken",
            &format_args!("from {from} by process {}", taken.pid),
        );
    }
    if obstacles.is_empty() {
        line("use", &"none found: it may be taken");
    }
    for obstacle in &obstacles {
        match obstacle.overridden_by() {
            Some(needed) => line(
                "use",
                &format_args!("{obstacle} (--force {})", needed.name()),
            ),
            None => line("use", obstacle),
        }
    }
    print(&text);
    ExitCode::SUCCESS
}

fn described(function: &Function, obstacles: &[Obstacle], taken: &[Taken]) -> serde_json::Value {
    let taken = taken.iter().find(|taken| taken.address == function.address);
    json!({ "function": function, "obstacles": obstacles, "taken": taken })
}

fn work(platform: &Platform, arguments: &Run) -> ExitCode {
    // The device must be given back: a first Ctrl-C ends the work after the running request.
    interrupt::watch();
    let address = arguments.device;
    // Nobody loses a device to a driver that cannot drive it.
    match platform.device(address) {
        Ok(found) if (found.vendor, found.device) == arguments.driver.drives() => {}
        Ok(found) => {
            let (vendor, device) = arguments.driver.drives();
            let error = format!(
                "{address} is {:04x}:{:04x}, and the driver drives {vendor:04x}:{device:04x}",
                found.vendor, found.device
            );
            return fail(&error, USAGE);
        }
        Err(error) => return fail(&error, platform_code(&error)),
    }
    let claim = match platform.take(address, &arguments.force) {
        Ok(claim) => claim,
        Err(error) => return fail(&error, code(&error)),
    };
    let workload = Workload {
        requests: arguments.requests,
        stop: interrupt::asked,
        ..Workload::default()
    };
    let open = || VfioDevice::open(platform, address, &Options::default());
    let done = match arguments.driver {
        Driver::Edu => run(
            platform,
            address,
            arguments.fault,
            &workload,
            open,
            Edu::probe,
        ),
    };
    let given_back = give_back(claim);
    let report = match done {
        Ok(report) => report,
        Err(error) => return fail(&error, INFRASTRUCTURE),
    };
    match arguments.format {
        Format::Json => print(&format!("{:#}\n", json!(report))),
        Format::Text => print(&text(&report)),
    }
    match given_back {
        Err(code) => code,
        Ok(()) if interrupt::asked() => ExitCode::from(INTERRUPTED),
        Ok(()) if report.failure.is_some() => ExitCode::from(INFRASTRUCTURE),
        Ok(()) if report.is_finding() => ExitCode::from(FINDING),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn give_back(claim: Claim) -> Result<(), ExitCode> {
    let address = claim.taken().address;
    claim.give_back().map(drop).map_err(|error| {
        let again = format!("{error}; try `cofferdam vfio release {address}`");
        fail(&again, INFRASTRUCTURE)
    })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name:10}{value}");
    };
    if let Some(fault) = report.fault {
        line("fault", &format_args!("{}: {}", fault.id(), fault.line()));
    }
    let wall = match report.wall {
        None => "",
        Some(Wall::Iommu) => " by the IOMMU",
        Some(Wall::BusMastering) => " because the kernel had switched bus mastering off",
        Some(Wall::Unrecorded) => " (the kernel wrote no record of it)",
    };
    let outcome = match report.outcome {
        Outcome::Clean => "clean: every answer was right",
        Outcome::Failed => "failed: answers were wrong or missing",
        Outcome::NotActivated => "the fault did not come about: nothing is known",
        Outcome::Landed => "landed: it reached memory it had no right to",
        Outcome::Blocked => "blocked",
        Outcome::Unclear => "unclear: nothing shows whether it landed; root sees more",
    };
    line("outcome", &format_args!("{outcome}{wall}"));
    line("opened by", &report.door);
    if let (Some(address), Some(verdict)) = (report.address, &report.verdict) {
        line(
            "access",
            &format_args!("a write at {address:#x}: {verdict}"),
        );
    }
    if let Some(landed) = report.bytes_landed {
        line("landed", &format_args!("{landed} bytes"));
    }
    for record in &report.records {
        line("record", &record.text);
    }
    for record in &report.other_records {
        line("also", &record.text);
    }
    if let Some(why) = &report.no_log {
        line(
            "record",
            &format_args!("the kernel's log cannot be read: {why}"),
        );
    }
    let (right, wrong) = (report.right, report.wrong);
    line("requests", &format_args!("{right} right, {wrong} wrong"));
    for error in &report.errors {
        line("driver", error);
    }
    if let Some(recovered) = report.recovered {
        line(
            "after",
            if recovered {
                &"the driver works"
            } else {
                &"the driver does not work"
            },
        );
    }
    if let Some(failure) = &report.failure {
        line("failure", failure);
    }
    text
}

fn or_none(driver: Option<&str>) -> &str {
    driver.unwrap_or("no driver")
}

/// Something that was asked for and is refused is the caller's business, the rest the system's.
fn code(error: &ClaimError) -> u8 {
    match error {
        ClaimError::Platform(error) => platform_code(error),
        ClaimError::Refused { .. } | ClaimError::NotTaken(_) | ClaimError::StillOpen { .. } => {
            USAGE
        }
        ClaimError::NoVfio
        | ClaimError::Busy
        | ClaimError::NotBound { .. }
        | ClaimError::File { .. } => INFRASTRUCTURE,
    }
}

fn platform_code(error: &PlatformError) -> u8 {
    match error {
        PlatformError::NoDevice(_) => USAGE,
        PlatformError::Read { .. } => INFRASTRUCTURE,
    }
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    let _ = writeln!(stderr(), "error: {error}");
    ExitCode::from(code)
}

fn faults() -> impl TypedValueParser<Value = Fault> {
    let values = Fault::ALL.map(|fault| PossibleValue::new(fault.id()).help(fault.line()));
    PossibleValuesParser::new(values).try_map(|id| {
        let mut all = Fault::ALL.into_iter();
        all.find(|fault| fault.id().eq_ignore_ascii_case(&id))
            .ok_or("not a fault of the driver's side")
    })
}

fn overrides() -> impl TypedValueParser<Value = Override> {
    let values = Override::ALL.map(|what| PossibleValue::new(what.name()));
    PossibleValuesParser::new(values).try_map(|name| {
        let mut all = Override::ALL.into_iter();
        all.find(|what| what.name() == name)
            .ok_or("nothing that can be overridden")
    })
}
