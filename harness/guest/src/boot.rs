//! One life of a guest: it boots, does its job and powers off, or is ended at its deadline.

use crate::Guest;
use crate::cpio::Archive;
use crate::message::{Check, JOB, Job, LINE_LIMIT, LoadModule, Message, Record, Task, Verdict};
use crate::modules::{self, ModuleError, Modules, Unpacked};
use crate::monitor::{Answer, Order, Orders};
use crate::process::{self, Streams};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Bytes a guest may say in its life; one that says more has gone wild.
const SAID: usize = 32 << 20;

/// The IOMMU in front of the guest's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iommu {
    /// None: DMA addresses are physical.
    None,
    /// Intel VT-d, driven by the guest's kernel.
    Intel {
        /// The IOMMU may cache entries that are not present, as those do that shadow a guest's
        /// tables. Linux then invalidates strictly, whatever it is told.
        caching_mode: bool,
        /// Message-signalled interrupts are remapped too.
        interrupt_remapping: bool,
    },
}

/// The guest's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Its IOMMU.
    pub iommu: Iommu,
    /// Its memory in MiB.
    pub memory: u32,
    /// Its CPUs.
    pub cpus: u32,
}

impl Machine {
    /// One CPU and 512 MiB of memory behind an IOMMU.
    #[must_use]
    pub fn new(iommu: Iommu) -> Self {
        Self {
            iommu,
            memory: 512,
            cpus: 1,
        }
    }
}

/// A kernel module for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Which.
    pub source: ModuleSource,
    /// As on the command line of `insmod`.
    pub parameters: String,
}

/// Where a module comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSource {
    /// The kernel's own, by name, with what it depends on.
    Kernel(String),
    /// A file, which depends on nothing that is not listed before it.
    File(PathBuf),
}

impl Module {
    /// A module of the kernel, without parameters.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            source: ModuleSource::Kernel(name.to_owned()),
            parameters: String::new(),
        }
    }

    /// A module in a file, without parameters.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self {
            source: ModuleSource::File(path.to_owned()),
            parameters: String::new(),
        }
    }

    /// The module with parameters, `name=value` separated by spaces.
    #[must_use]
    pub fn with(mut self, parameters: &str) -> Self {
        parameters.clone_into(&mut self.parameters);
        self
    }
}

/// What to boot and what to do there.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The machine.
    pub machine: Machine,
    /// Devices to plug in, each as an argument of QEMU's `-device`.
    pub devices: Vec<String>,
    /// Media for them, each as an argument of QEMU's `-blockdev`.
    pub media: Vec<String>,
    /// More of the kernel's command line.
    pub kernel_arguments: Vec<String>,
    /// Modules to load before the first check.
    pub modules: Vec<Module>,
    /// More files: where in the guest, and where from.
    pub files: Vec<(String, PathBuf)>,
    /// The checks, in order.
    pub tasks: Vec<Task>,
    /// What the machine is told between them, in order.
    pub orders: Vec<Order>,
    /// When the guest is killed.
    pub deadline: Duration,
}

impl Boot {
    /// A machine without devices that runs some checks within two minutes.
    #[must_use]
    pub fn new(machine: Machine, tasks: Vec<Task>) -> Self {
        Self {
            machine,
            devices: Vec::new(),
            media: Vec::new(),
            kernel_arguments: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            tasks,
            orders: Vec::new(),
            deadline: Duration::from_secs(120),
        }
    }
}

/// Why a guest could not be booted, or was not understood. Never a finding.
#[derive(Debug, Error)]
pub enum GuestError {
    /// A module is missing.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A file for the guest could not be read.
    #[error("cannot read {} for the guest: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The disk or the process table.
    #[error("cannot run the guest: {0}")]
    Io(#[from] io::Error),
    /// Not what an agent says.
    #[error("the guest said what is no message ({error}): {line}")]
    Garbled {
        /// The beginning of the line.
        line: String,
        /// What is wrong with it.
        error: String,
    },
}

/// How a guest's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It did all its tasks and powered off.
    Finished,
    /// Its agent could not go on, and why.
    Broken(String),
    /// The machine ended before the agent was done: the kernel panicked, or QEMU failed. What QEMU
    /// said.
    Died(String),
    /// It was killed at its deadline.
    Deadline,
}

/// What a guest's life came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The kernel's release, if the agent was reached.
    pub release: Option<String>,
    /// The results, in the order of the tasks; those that were not reached are missing.
    pub checks: Vec<Check>,
    /// What the machine answered to orders, in their order; those it was not told are missing.
    pub answers: Vec<Answer>,
    /// What the machine answered at its deadline, asked whether it runs: silence is QEMU's own.
    pub state: Option<Answer>,
    /// What the kernel logged before the first check, and what was too much to go with a check.
    pub log: Vec<Record>,
    /// How it ended.
    pub ending: Ending,
    /// The end of what was on the console.
    pub console: String,
    /// From the start of QEMU to the agent's first word.
    pub boot: Option<Duration>,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl Outcome {
    /// The first result of a check.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The whole of the kernel's log that was seen.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.log
            .iter()
            .chain(self.checks.iter().flat_map(|check| &check.log))
    }

    /// What keeps this from being a life in which every task was done and no check failed, for a
    /// test to show; skipped checks do not count as failed.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| check.verdict == Verdict::Failed)
            .map(|check| format!("check `{}` failed: {:#}", check.name, check.detail))
            .collect();
        if self.ending == Ending::Finished && failed.is_empty() {
            return None;
        }
        Some(format!(
            "the guest ended as {:?}\n{}\nconsole:\n{}",
            self.ending,
            failed.join("\n"),
            self.console
        ))
    }
}

impl Guest {
    /// Boots a guest, waits until it has ended and returns what it said. If the calling thread
    /// ends before, so does the guest.
    ///
    /// # Errors
    /// [`GuestError`]. That a check fails, or the guest dies, is an [`Outcome`].
    pub fn run(&self, boot: &Boot) -> Result<Outcome, GuestError> {
        let place = tempfile::tempdir()?;
        let initramfs = place.path().join("initramfs");
        self.write_initramfs(boot, &initramfs)?;
        let (results, guest_results) = UnixStream::pair()?;
        let (console, guest_console) = UnixStream::pair()?;
        let monitor = place.path().join("monitor");
        let mut command = self.command(boot, &initramfs);
        command.args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", monitor.display()),
        ]);
        command
            .stdin(OwnedFd::from(guest_results))
            .stdout(OwnedFd::from(guest_console))
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut qemu = process::die_with_us(&mut command).spawn()?;
        // The guest's ends of the sockets are QEMU's alone now.
        drop(command);
        let mut streams = Streams::default();
        let results = streams.add(results.into());
        let console = streams.add(console.into());
        let said = qemu.stderr.take().map(|pipe| streams.add(pipe.into()));
        let mut transcript = Transcript::new(started);
        let mut orders = Orders::new(&boot.orders, &monitor);
        let followed = streams.follow(&qemu, started + boot.deadline, |stream, piece| {
            if stream == results {
                transcript.hear(piece);
                if transcript.release.is_some() {
                    orders.tell(transcript.checks.len());
                }
            }
            Ok(())
        });
        let late = followed.as_ref().is_ok_and(|in_time| !in_time);
        let state = late.then(|| orders.ask_state());
        qemu.kill()?;
        let status = qemu.wait()?;
        let in_time = followed?;
        let said = said.map(|stream| streams.take(stream)).unwrap_or_default();
        let said = format!("{status}; {}", process::tail(&said, 2000));
        let console = process::tail(&streams.take(console), 64 * 1024);
        let outcome = transcript.end(in_time, said, console)?;
        Ok(Outcome {
            answers: orders.answers(),
            state,
            ..outcome
        })
    }

    /// The command line of QEMU: results at standard input, console at standard output.
    fn command(&self, boot: &Boot, initramfs: &Path) -> Command {
        let mut command = self.tools.qemu.command();
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none"])
            // A file in memory: who serves a device to the guest can be lent it.
            .args(["-machine", "q35,kernel-irqchip=split,memory-backend=memory"])
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=memory,share=on,size={}M",
                boot.machine.memory
            ))
            .args(["-accel", "tcg,tb-size=256", "-cpu", "max"])
            .args(["-smp", &boot.machine.cpus.to_string()])
            .args(["-m", &boot.machine.memory.to_string()])
            .args(["-chardev", "socket,id=console,fd=1"])
            .args(["-serial", "chardev:console"])
            .args(["-chardev", "socket,id=results,fd=0"])
            .args(["-serial", "chardev:results"])
            .arg("-kernel")
            .arg(&self.tools.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &command_line(boot)]);
        if let Iommu::Intel {
            caching_mode,
            interrupt_remapping,
        } = boot.machine.iommu
        {
            let switch = |on| if on { "on" } else { "off" };
            command.arg("-device").arg(format!(
                "intel-iommu,intremap={},caching-mode={}",
                switch(interrupt_remapping),
                switch(caching_mode)
            ));
        }
        for medium in &boot.media {
            command.args(["-blockdev", medium]);
        }
        for device in &boot.devices {
            command.args(["-device", device]);
        }
        command
    }

    fn write_initramfs(&self, boot: &Boot, to: &Path) -> Result<(), GuestError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| GuestError::File {
                path: path.to_owned(),
                error,
            })
        };
        let (modules, unpacked) = self.modules(&boot.modules)?;
        let job = Job {
            modules,
            tasks: boot.tasks.clone(),
        };
        let job = serde_json::to_vec(&job).map_err(io::Error::from)?;
        let mut archive = Archive::new(BufWriter::new(File::create(to)?));
        for directory in ["/proc", "/sys", "/run", "/tmp"] {
            archive.directory(directory)?;
        }
        // What the kernel gives init as its standard streams.
        archive.device("/dev/console", 5, 1)?;
        archive.file("/init", &read(&self.agent)?)?;
        archive.file(JOB, &job)?;
        for module in &unpacked {
            archive.file(&path_of(&module.name), &module.content)?;
        }
        for (at, from) in &boot.files {
            archive.file(at, &read(from)?)?;
        }
        archive.finish()?;
        Ok(())
    }

    /// The modules in the order of loading, and their content.
    fn modules(&self, wanted: &[Module]) -> Result<(Vec<LoadModule>, Vec<Unpacked>), GuestError> {
        let unpacker = &self.tools.unpacker;
        let mut list = Vec::new();
        let mut parameters = Vec::new();
        let mut known = None;
        for module in wanted {
            let name = match &module.source {
                ModuleSource::File(path) => {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    let name = name.replace('-', "_");
                    list.push(Unpacked {
                        name: name.clone(),
                        content: modules::read(path, unpacker)?,
                    });
                    name
                }
                ModuleSource::Kernel(name) => {
                    if known.is_none() {
                        let root = self.tools.modules.as_ref();
                        known = Some(Modules::open(root.ok_or(ModuleError::NoModules)?)?);
                    }
                    if let Some(known) = &known {
                        known.resolve(name, unpacker, &mut list)?;
                    }
                    name.replace('-', "_")
                }
            };
            parameters.push((name, module.parameters.clone()));
        }
        let load = list
            .iter()
            .map(|module| LoadModule {
                file: path_of(&module.name),
                parameters: parameters
                    .iter()
                    .find(|(name, _)| *name == module.name)
                    .map(|(_, parameters)| parameters.clone())
                    .unwrap_or_default(),
            })
            .collect();
        Ok((load, list))
    }
}

fn path_of(module: &str) -> String {
    format!("/lib/modules/{module}.ko")
}

fn command_line(boot: &Boot) -> String {
    // A panic ends the machine at once; what the interpreter need not do is left out. On a busy host
    // the timer's ticks come too late for the check of them, which would end the machine, and the
    // frequency that Linux measures of the time-stamp counter can be far off: a clock by it ran 2.6 times
    // too fast. That of ACPI's timer is fixed.
    let mut line = "console=ttyS0 panic=-1 quiet mitigations=off clocksource=acpi_pm tsc=reliable \
                    no_timer_check"
        .to_owned();
    if matches!(boot.machine.iommu, Iommu::Intel { .. }) {
        line += " intel_iommu=on";
    }
    for argument in &boot.kernel_arguments {
        line.push(' ');
        line += argument;
    }
    line
}

/// What was heard of a guest so far.
#[derive(Debug)]
struct Transcript {
    started: Instant,
    /// A line that has not ended yet.
    line: Vec<u8>,
    said: usize,
    garbled: Option<GuestError>,
    release: Option<String>,
    boot: Option<Duration>,
    checks: Vec<Check>,
    log: Vec<Record>,
    ending: Option<Ending>,
}

impl Transcript {
    fn new(started: Instant) -> Self {
        Self {
            started,
            line: Vec::new(),
            said: 0,
            garbled: None,
            release: None,
            boot: None,
            checks: Vec::new(),
            log: Vec::new(),
            ending: None,
        }
    }

    /// Takes bytes from the guest's port. After the first line that is no message nothing more is
    /// believed.
    fn hear(&mut self, mut piece: &[u8]) {
        self.said = self.said.saturating_add(piece.len());
        if self.said > SAID && self.garbled.is_none() {
            self.garble(&format!("it said more than {SAID} bytes"));
        }
        while self.garbled.is_none()
            && let Some(end) = piece.iter().position(|&byte| byte == b'\n')
        {
            self.line.extend_from_slice(&piece[..end]);
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.understand(line.trim_ascii());
        }
        if self.garbled.is_none() {
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_LIMIT {
                self.garble(&format!("a line is longer than {LINE_LIMIT} bytes"));
            }
        }
    }

    fn understand(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(Message::Started { release }) => {
                self.boot = Some(self.started.elapsed());
                self.release = Some(release);
            }
            Ok(Message::Log(records)) => self.log.extend(records),
            Ok(Message::Check(check)) => self.checks.push(check),
            Ok(Message::Broken(why)) => self.ending = Some(Ending::Broken(why)),
            Ok(Message::Finished) => self.ending = Some(Ending::Finished),
            Err(error) => {
                self.line = line.to_vec();
                self.garble(&error.to_string());
            }
        }
    }

    fn garble(&mut self, error: &str) {
        let line = std::mem::take(&mut self.line);
        self.garbled = Some(GuestError::Garbled {
            line: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
            error: error.to_owned(),
        });
    }

    fn end(self, in_time: bool, said: String, console: String) -> Result<Outcome, GuestError> {
        if let Some(garbled) = self.garbled {
            return Err(garbled);
        }
        let ending = match (self.ending, in_time) {
            (Some(ending), true) => ending,
            (_, false) => Ending::Deadline,
            (None, true) => Ending::Died(said),
        };
        Ok(Outcome {
            release: self.release,
            checks: self.checks,
            answers: Vec::new(),
            state: None,
            log: self.log,
            ending,
            console,
            boot: self.boot,
            took: self.started.elapsed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transcript() -> Transcript {
        Transcript::new(Instant::now())
    }

    fn line(message: &Message) -> Vec<u8> {
        let mut line = serde_json::to_vec(message).expect("line");
        line.extend_from_slice(b"\r\n");
        line
    }

    fn end(transcript: Transcript, in_time: bool) -> Result<Outcome, GuestError> {
        transcript.end(in_time, "exit status: 0; ".to_owned(), String::new())
    }

    #[test]
    fn messages_are_understood_however_they_are_cut() {
        let mut bytes = line(&Message::Started {
            release: "6.12".to_owned(),
        });
        bytes.extend(line(&Message::Finished));

        for size in 1..bytes.len() {
            let mut transcript = transcript();
            for piece in bytes.chunks(size) {
                transcript.hear(piece);
            }
            let outcome = end(transcript, true).expect("outcome");
            assert_eq!(outcome.release.as_deref(), Some("6.12"));
            assert_eq!(outcome.ending, Ending::Finished);
        }
    }

    #[test]
    fn silence_is_death_and_slowness_a_passed_deadline() {
        assert!(matches!(
            end(transcript(), true).expect("outcome").ending,
            Ending::Died(_)
        ));
        assert_eq!(
            end(transcript(), false).expect("outcome").ending,
            Ending::Deadline
        );
    }

    #[test]
    fn line_that_is_no_message_is_an_error_that_shows_it() {
        let mut transcript = transcript();

        transcript.hear(b"Kernel panic\n");
        transcript.hear(&line(&Message::Finished));

        let error = end(transcript, true).expect_err("garbled");
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }

    #[test]
    fn line_without_an_end_is_not_kept_for_ever() {
        let mut transcript = transcript();

        for _ in 0..100 {
            transcript.hear(&[b'x'; 100_000]);
        }

        assert!(transcript.line.len() <= LINE_LIMIT);
        assert!(matches!(
            end(transcript, true),
            Err(GuestError::Garbled { .. })
        ));
    }

    #[test]
    fn guest_that_never_stops_talking_is_not_believed() {
        let mut transcript = transcript();
        let line = line(&Message::Broken("x".repeat(1 << 20)));

        for _ in 0..=SAID / line.len() {
            transcript.hear(&line);
        }

        assert!(matches!(
            end(transcript, true),
            Err(GuestError::Garbled { .. })
        ));
    }

    #[test]
    fn failed_check_is_a_complaint_that_names_it() {
        let mut transcript = transcript();
        transcript.hear(&line(&Message::Check(Check {
            name: "iommu-groups".to_owned(),
            arguments: Vec::new(),
            verdict: Verdict::Failed,
            detail: serde_json::json!({ "groups": {} }),
            log: Vec::new(),
            took: Duration::ZERO,
        })));
        transcript.hear(&line(&Message::Finished));

        let complaint = end(transcript, true).expect("outcome").complaint();

        assert!(complaint.is_some_and(|text| text.contains("iommu-groups")));
    }

    #[test]
    fn kernel_drives_an_iommu_only_if_there_is_one() {
        let with = |iommu| command_line(&Boot::new(Machine::new(iommu), Vec::new()));

        assert!(!with(Iommu::None).contains("intel_iommu"));
        assert!(
            with(Iommu::Intel {
                caching_mode: true,
                interrupt_remapping: true
            })
            .contains("intel_iommu=on")
        );
    }

    proptest! {
        #[test]
        fn nothing_a_guest_says_makes_the_host_panic(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut transcript = transcript();
            for piece in &pieces {
                transcript.hear(piece);
            }
            let _ = end(transcript, true);
        }
    }
}
