//! Controllers that lie, each served to the guest's own driver of NVMe over vfio-user.
//!
//! A guest meets several, one after the other; each is honest until the guest's agent tells it, by a
//! register of its configuration space that means nothing else, that its turn has come. A guest that
//! ends is booted again for those it had not met.

use crate::guest::RealityError;
use crate::linux::Trial;
use cofferdam_experiment::catalogue::{Lying, lies};
use cofferdam_guest::message::Task;
use cofferdam_guest::{Boot, Guest, Iommu, Machine};
use cofferdam_machine::config::IommuMode;
use cofferdam_placement::trial::DriverId;
use cofferdam_seam::Device;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vdevice_nvme::{Nvme, NvmeConfig};
use vdevice_server::{BindError, Dma, Door, Options, Server};
use vdevice_tamper::{Tally, Tamper};

/// Sectors of a disk.
const SECTORS: u64 = 16 << 11;
/// Where the first one is plugged in.
const FIRST_SLOT: usize = 4;
/// Controllers that one guest meets.
const AT_ONCE: usize = 20;
/// How often it is looked whether a read was made that is never answered.
const TICK: Duration = Duration::from_millis(10);
/// What a liar of each fault and mode may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// How many liars Linux meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Four, behind a strict IOMMU.
    Quick,
    /// One of each fault that a served controller can commit, without and behind an IOMMU.
    All,
}

/// The cases of the quick set: a write that the IOMMU must stop, an interrupt that must be missed,
/// completions that must be noticed.
const QUICK: [&str; 4] = ["D1.device.unbacked", "I2", "R1", "R4"];

/// A fault's case, where it is not the first that a served device can commit: this one is the same
/// address in every memory.
const PREFERRED: [&str; 1] = ["D1.device.unbacked"];

/// A circle of capabilities is there from the start, and who serves it to a guest takes the guest down.
const ALONE: &str = "C3";

/// A read that never completes.
const LOCKED: &str = "B1";
/// What ends the wait for it: QEMU as it comes, QEMU so late that the bus is as good as locked, and nobody
/// but us.
const LOCKS: [Until; 3] = [
    Until::QemuGivesUp(Duration::from_secs(5)),
    Until::QemuGivesUp(Duration::from_secs(20)),
    Until::ServerEnds(Duration::from_secs(10)),
];
/// The longest that QEMU can be told to wait: 25 days. It hands the number on as one with a sign, so that more,
/// as well as nothing, is no time at all.
const FOR_EVER: Duration = Duration::from_millis(i32::MAX as u64);

/// What ends a read that a served device never answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// QEMU waits so long for a message.
    QemuGivesUp(Duration),
    /// QEMU waits for ever; the server is ended so long after the read.
    ServerEnds(Duration),
}

impl Until {
    fn timeout(self) -> Duration {
        match self {
            Self::QemuGivesUp(timeout) => timeout,
            Self::ServerEnds(_) => FOR_EVER,
        }
    }

    fn after(self) -> Duration {
        match self {
            Self::QemuGivesUp(after) | Self::ServerEnds(after) => after,
        }
    }

    /// The machine's name in a trial.
    fn machine(self) -> String {
        match self {
            Self::QemuGivesUp(after) => format!("2-cpus-timeout-{}s", after.as_secs()),
            Self::ServerEnds(after) => format!("2-cpus-server-ends-{}s", after.as_secs()),
        }
    }
}

impl Extent {
    /// The guest's IOMMU modes.
    fn modes(self) -> &'static [IommuMode] {
        match self {
            Self::Quick => &[IommuMode::Strict],
            Self::All => &[IommuMode::Off, IommuMode::Strict],
        }
    }

    /// The liars, in the order of the catalogue.
    fn liars(self) -> Vec<Lying> {
        let named = |names: &[&str], one: &Lying| names.contains(&one.name.as_str());
        let all = lies(DriverId::Nvme);
        let preferred: Vec<&str> = all
            .iter()
            .filter(|one| named(&PREFERRED, one))
            .map(|one| one.fault)
            .collect();
        let mut wanted = Vec::<Lying>::new();
        for one in all {
            let taken = wanted.iter().any(|other| other.fault == one.fault);
            let other = preferred.contains(&one.fault) && !named(&PREFERRED, &one);
            let left_out = self == Self::Quick
                && !QUICK.contains(&one.name.as_str())
                && !QUICK.contains(&one.fault);
            if !taken && !other && !left_out {
                wanted.push(one);
            }
        }
        wanted
    }
}

/// Has Linux meet them. Modes run side by side: mostly they wait.
pub fn meet(guest: &Guest, extent: Extent) -> Result<Vec<Trial>, RealityError> {
    let met: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = extent
            .modes()
            .iter()
            .map(|&mode| scope.spawn(move || meet_in(guest, extent, mode)))
            .collect();
        running.into_iter().map(|life| life.join()).collect()
    });
    let mut trials = Vec::new();
    for one in met {
        trials.extend(one.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    if extent == Extent::All {
        for until in LOCKS {
            trials.extend(lock_bus(guest, until)?);
        }
    }
    Ok(trials)
}

fn meet_in(guest: &Guest, extent: Extent, mode: IommuMode) -> Result<Vec<Trial>, RealityError> {
    let (alone, together): (Vec<_>, Vec<_>) = extent
        .liars()
        .into_iter()
        .partition(|one| one.fault == ALONE);
    let mut trials = Vec::new();
    for some in [together, alone] {
        let mut left = some.as_slice();
        while !left.is_empty() {
            let met = live(guest, &left[..left.len().min(AT_ONCE)], mode)?;
            left = &left[met.len()..];
            trials.extend(met);
        }
    }
    Ok(trials)
}

/// B1 in a guest of two CPUs, while the other one uses disks that are honest: one that is served as the
/// liar is, and one of QEMU's own.
///
/// # Errors
/// [`RealityError`]: nothing is known then.
pub fn lock_bus(guest: &Guest, until: Until) -> Result<Option<Trial>, RealityError> {
    let Some(lying) = Extent::All
        .liars()
        .into_iter()
        .find(|one| one.fault == LOCKED)
    else {
        return Ok(None);
    };
    let mode = IommuMode::Off;
    let mut machine = Machine::new(Iommu::None);
    machine.cpus = 2;
    let mut served = Served::new()?;
    let mut boot = boot(machine);
    let (liar, tally) = served.add_liar(0, &lying, Some(until.timeout()))?;
    let honest = served.add(1, Box::new(disk(1)), Options::default(), None)?;
    boot.media
        .push("driver=null-co,node-name=null,size=16777216,read-zeroes=on".to_owned());
    let own = format!("nvme,addr={:x}.0,serial=own,drive=null", FIRST_SLOT + 2);
    boot.devices.extend([liar, honest, own]);
    let addresses: Vec<String> = (0..3).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut task = Task::with("lying-disk", &addresses);
    task.deadline = PATIENCE + until.after();
    boot.tasks.push(task);
    boot.deadline = Duration::from_secs(60) + PATIENCE + until.after();
    let over = AtomicBool::new(false);
    let life = std::thread::scope(|scope| {
        if let Until::ServerEnds(after) = until {
            let (over, tally, liar) = (&over, &tally, served.stop(0));
            scope.spawn(move || end_after(after, tally, &liar, over));
        }
        let life = guest.run(&boot);
        over.store(true, Ordering::Relaxed);
        life
    })?;
    let of = (lying.fault, lying.name.as_str());
    let mut trial = Trial::judge(&life, 0, of, mode, tally.acted());
    if let Some(trial) = &mut trial {
        let within = until.machine();
        trial.cell = format!("{}/{within}", trial.cell);
        trial.machine = Some(within);
    }
    Ok(trial)
}

/// Ends a server so long after its device has lied, unless it is over before.
fn end_after(after: Duration, tally: &Tally, server: &AtomicBool, over: &AtomicBool) {
    let mut lied = None;
    while !over.load(Ordering::Relaxed) {
        if tally.acted() > 0 && lied.get_or_insert_with(Instant::now).elapsed() >= after {
            server.store(true, Ordering::Relaxed);
            return;
        }
        std::thread::sleep(TICK);
    }
}

fn boot(machine: Machine) -> Boot {
    let mut boot = Boot::new(machine, Vec::new());
    boot.kernel_arguments.push(
        "nvme_core.io_timeout=2 nvme_core.admin_timeout=2 nvme_core.max_retries=1 \
         sysctl.kernel.hung_task_timeout_secs=10"
            .to_owned(),
    );
    boot
}

fn disk(number: usize) -> Nvme {
    Nvme::new(NvmeConfig {
        blocks: SECTORS,
        latency: Duration::ZERO,
        seed: number as u64,
        max_queue_entries: 1024,
        ..NvmeConfig::default()
    })
}

/// One life of the guest; at least the first liar is met in it.
fn live(guest: &Guest, liars: &[Lying], mode: IommuMode) -> Result<Vec<Trial>, RealityError> {
    let iommu = match mode {
        IommuMode::Off => Iommu::None,
        // Each page that Linux maps is told to the controller's server, which takes caching mode.
        _ => Iommu::Intel {
            caching_mode: true,
            interrupt_remapping: true,
        },
    };
    let mut served = Served::new()?;
    let mut boot = boot(Machine::new(iommu));
    boot.deadline =
        Duration::from_secs(60) + PATIENCE * u32::try_from(liars.len()).unwrap_or(u32::MAX);
    if liars.iter().any(|one| one.fault == ALONE) {
        // A guest that does not come up tells where it stood still.
        let talk = "ignore_loglevel initcall_debug earlyprintk=ttyS0";
        boot.kernel_arguments.push(talk.to_owned());
    }
    let mut tallies = Vec::new();
    for (number, lying) in liars.iter().enumerate() {
        let (device, tally) = served.add_liar(number, lying, None)?;
        boot.devices.push(device);
        tallies.push(tally);
        let mut task = Task::with("lying-disk", &[&address(number)]);
        task.deadline = PATIENCE;
        boot.tasks.push(task);
    }
    let life = guest.run(&boot)?;
    let trials: Vec<_> = liars
        .iter()
        .zip(&tallies)
        .enumerate()
        .map_while(|(place, (lying, tally))| {
            Trial::judge(
                &life,
                place,
                (lying.fault, &lying.name),
                mode,
                tally.acted(),
            )
        })
        .collect();
    if trials.is_empty() {
        return Err(RealityError::Ended(life.complaint().unwrap_or_default()));
    }
    Ok(trials)
}

fn address(number: usize) -> String {
    format!("0000:00:{:02x}.0", FIRST_SLOT + number)
}

/// Devices, each served by a thread of its own, while this lives.
struct Served {
    place: tempfile::TempDir,
    /// One a device, in the order they were added.
    stops: Vec<Arc<AtomicBool>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Served {
    fn new() -> Result<Self, RealityError> {
        Ok(Self {
            place: tempfile::tempdir().map_err(RealityError::Serve)?,
            stops: Vec::new(),
            threads: Vec::new(),
        })
    }

    /// What ends the server of a device.
    fn stop(&self, number: usize) -> Arc<AtomicBool> {
        Arc::clone(&self.stops[number])
    }

    /// Serves a liar; QEMU's argument that plugs it in.
    fn add_liar(
        &mut self,
        number: usize,
        lying: &Lying,
        timeout: Option<Duration>,
    ) -> Result<(String, Arc<Tally>), RealityError> {
        let lies = lying.lie(DriverId::Nvme, 1, 1);
        let (tamper, tally) = Tamper::new(Box::new(disk(number)), lies.into_iter().collect());
        let armed = Arc::clone(&tally);
        let options = Options {
            // The guest's IOMMU judges what goes astray.
            dma: Dma::Judged,
            map_doorbells: false,
            pin_only: false,
            trace: Some(Box::new(move |line| {
                if line.to_string().starts_with("write 7 0x3c 1 = [a5]") {
                    armed.arm();
                }
            })),
        };
        let plugged = self.add(number, Box::new(tamper), options, timeout)?;
        Ok((plugged, tally))
    }

    /// Serves a device; QEMU's argument that plugs it in, and how long QEMU waits for it, if not as usual.
    fn add(
        &mut self,
        number: usize,
        device: Box<dyn Device>,
        options: Options,
        timeout: Option<Duration>,
    ) -> Result<String, RealityError> {
        let path = self.place.path().join(format!("{number}.sock"));
        let door = Door::open(&path)?;
        let stop = Arc::<AtomicBool>::default();
        self.stops.push(Arc::clone(&stop));
        let mut server = Server::new(device, options);
        let serve = move || server.serve_at(&door, &stop, |_| false);
        self.threads.push(std::thread::spawn(serve));
        Ok(plugged(&path, number, timeout))
    }
}

impl From<BindError> for RealityError {
    fn from(error: BindError) -> Self {
        Self::Serve(std::io::Error::other(error))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for stop in &self.stops {
            stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A server that failed was missed by its guest, which tells so.
            let _ = thread.join();
        }
    }
}

fn plugged(path: &Path, number: usize, timeout: Option<Duration>) -> String {
    let path = path.display();
    let slot = FIRST_SLOT + number;
    let waits = timeout.map(|timeout| format!(r#","x-msg-timeout":{}"#, timeout.as_millis()));
    let waits = waits.unwrap_or_default();
    format!(
        r#"{{"driver":"vfio-user-pci","addr":"{slot:x}.0","rombar":0,"socket":{{"type":"unix","path":"{path}"}}{waits}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_set_has_each_fault_once_and_the_quick_one_is_part_of_it() {
        let all = Extent::All.liars();
        let mut faults: Vec<&str> = all.iter().map(|one| one.fault).collect();
        let quick = Extent::Quick.liars();

        assert!(all.len() >= 12, "{faults:?}");
        assert!(
            quick
                .iter()
                .all(|one| all.iter().any(|other| other.name == one.name))
        );
        assert_eq!(quick.len(), QUICK.len());
        faults.dedup();
        assert_eq!(faults.len(), all.len());
        for wanted in ["D1", "D4", "B1", "B9", "I1", "I2", "R1", "R2", "R4", "C3"] {
            assert!(faults.contains(&wanted), "{wanted}");
        }
    }
}
