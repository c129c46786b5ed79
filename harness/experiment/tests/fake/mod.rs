//! An engine without processes: plausible, deterministic reports for every trial of the plan, from
//! the physics a real engine is expected to obey. Shared by the tests of several crates.

use cofferdam_experiment::catalogue::placement;
use cofferdam_experiment::engine::{Engine, EngineError};
use cofferdam_experiment::environment::{Fact, Unavailable};
use cofferdam_experiment::record::Record;
use cofferdam_experiment::run::Observer;
use cofferdam_experiment::seed::Draw;
use cofferdam_experiment::summary::InfrastructureFailure;
use cofferdam_machine::config::{FabricKind, IommuMode, TimeoutEnds};
use cofferdam_machine::frames::Owner;
use cofferdam_placement::trial::{
    Balloon, By, Corruption, Counts, DataPath, Detection, DomainEnd, DomainReport, DriverId, End,
    Fault, Lock, Oops, Packing, PlacementId, Reading, Route, Served, SharedMemory, StrayDma,
    Target, TenantIo, TrialReport, TrialSpec,
};

const MS: u64 = 1_000_000;

/// The engine. `spoil` may change each report before it is handed over.
pub struct Fake<S> {
    spoil: S,
}

/// A fake engine whose reports go through `spoil`.
pub fn spoiled<S: FnMut(&TrialSpec, &mut TrialReport)>(spoil: S) -> Result<Fake<S>, EngineError> {
    Ok(Fake { spoil })
}

impl<S: FnMut(&TrialSpec, &mut TrialReport)> Engine for Fake<S> {
    fn run(&mut self, spec: &TrialSpec) -> Result<TrialReport, EngineError> {
        let mut report = report(spec);
        (self.spoil)(spec, &mut report);
        Ok(report)
    }

    fn facts(&self) -> Vec<Fact> {
        ["seccomp", "landlock"]
            .map(|name| Fact {
                name: name.into(),
                value: "made up by a test".into(),
            })
            .to_vec()
    }

    fn unavailable(&self) -> Vec<Unavailable> {
        vec![Unavailable {
            what: "KVM".into(),
            why: "a test needs none".into(),
        }]
    }
}

/// An observer that stops after so many trials.
pub struct StopAfter {
    left: u64,
}

impl StopAfter {
    /// Stops after `trials`.
    pub fn trials(trials: u64) -> Self {
        Self { left: trials }
    }

    /// Never stops.
    pub fn never() -> Self {
        Self { left: u64::MAX }
    }
}

impl Observer for StopAfter {
    fn done(&mut self, _: u64, _: u64, _: &Record) {
        self.left = self.left.saturating_sub(1);
    }

    fn failed(&mut self, _: u64, _: u64, _: &InfrastructureFailure) {}

    fn stop(&self) -> bool {
        self.left == 0
    }
}

fn domain(name: &str, cpu: u8) -> DomainReport {
    DomainReport {
        name: name.into(),
        privileged: false,
        holds_driver: false,
        tenant: None,
        cpu,
        end: DomainEnd::Alive,
        deaths: Vec::new(),
        restarts: 0,
        longest_gap_ns: 180_000,
        frozen_ns: 0,
        resident_bytes: None,
        interrupt_ns: 0,
    }
}

fn domains(of: PlacementId) -> Vec<DomainReport> {
    let layer = |name, cpu| DomainReport {
        privileged: true,
        ..domain(name, cpu)
    };
    let mut domains = match of {
        PlacementId::InKernel | PlacementId::SafeLanguage => vec![layer("kernel", 0)],
        PlacementId::Hypervisor | PlacementId::HypervisorKvm => vec![layer("hypervisor", 0)],
        PlacementId::RootPartition | PlacementId::RootPartitionKvm => {
            vec![layer("hypervisor", 1), domain("root", 0)]
        }
        PlacementId::UserProcess | PlacementId::Microkernel => {
            vec![layer("kernel", 1), domain("driver", 0)]
        }
        PlacementId::Passthrough | PlacementId::LibraryOs => {
            vec![layer("hypervisor", 1), domain("tenant1", 0)]
        }
        PlacementId::DriverVm => vec![layer("hypervisor", 1), domain("driver", 0)],
        PlacementId::Hosted => {
            vec![layer("kernel", 0), domain("vmm1", 0), domain("vmm2", 1)]
        }
        PlacementId::Own(own) => unreachable!("{own:?}: no test has a placement of its own"),
    };
    let holder = placement(of).server();
    if let Some(holder) = domains.get_mut(holder) {
        holder.holds_driver = true;
    }
    let housing = placement(of).housing();
    for tenant in [1, 2] {
        if housing == Some(tenant) {
            domains[holder].tenant = housing;
            continue;
        }
        domains.push(DomainReport {
            tenant: Some(tenant),
            ..domain(&format!("tenant{tenant}"), tenant - 1)
        });
    }
    domains
}

fn clean(spec: &TrialSpec) -> TrialReport {
    let requests = |tenant| match placement(spec.placement).reaches(tenant) {
        true => spec.requests,
        false => 0,
    };
    let io = |tenant| TenantIo {
        tenant,
        wanted: requests(tenant),
        completed: requests(tenant),
        longest_ns: 90_000,
        finished: true,
        ..TenantIo::default()
    };
    let per_request = u64::from(spec.requests) * 2;
    TrialReport {
        activated: 0,
        activated_at_ns: None,
        domains: domains(spec.placement),
        io: vec![io(1), io(2)],
        corruption: Vec::new(),
        stray: Vec::new(),
        stray_landed: 0,
        stray_blocked: 0,
        forged_interrupts: 0,
        refused_interrupts: 0,
        served: Served::default(),
        balloon: None,
        stale_window_ns: None,
        detection: None,
        recovered_after_ns: None,
        resets: 0,
        reset_wait_ns: 0,
        longest_reset_ns: 0,
        machine_check: false,
        split_lock: None,
        counts: Counts {
            mmio_reads: per_request * 2,
            mmio_writes: per_request * 3,
            maps: per_request * 2,
            unmaps: per_request * 2,
            invalidations: match spec.iommu {
                IommuMode::Strict | IommuMode::Bounce => per_request * 2,
                IommuMode::Off | IommuMode::Passthrough | IommuMode::Lazy => 0,
            },
            doorbells: per_request
                * if placement(spec.placement).driver_is_privileged() {
                    1
                } else {
                    2
                },
            interrupts: per_request,
            dma_requests: per_request * 4,
            crossings: per_request * 2,
            copied_bytes: match spec.data {
                DataPath::Copy => per_request * 512,
                DataPath::ZeroCopy => 0,
            },
            wakeups: per_request * 2,
            ..Counts::default()
        },
        end: End::Finished,
        ended_at_ns: 5 * MS,
        spoilt: None,
    }
}

impl Scene<'_> {
    fn stray(&mut self, landed: bool, write: bool, owner: Option<Owner>) {
        let at_ns = self.report.activated_at_ns.unwrap_or(0);
        self.report.stray.push(StrayDma {
            at_ns,
            iova: 0x1000,
            len: 8,
            write,
            verdict: "foreign".into(),
            landed,
            owner: owner.filter(|_| landed),
        });
        if landed {
            self.report.stray_landed += 1;
        } else {
            self.report.stray_blocked += 1;
            self.notice("iommu", "translation fault", 0);
        }
    }

    /// Whose memory the data of a request are in while the device moves them.
    fn holder(&self) -> Owner {
        match self.spec.data {
            DataPath::Copy => Owner::Driver,
            DataPath::ZeroCopy => Owner::Tenant1,
        }
    }

    /// A stray write of 64 bytes to a frame of that owner.
    fn hit_frame(&mut self, landed: bool, owner: Owner) {
        self.stray(landed, true, Some(owner));
        if landed {
            self.corrupt(owner, 64);
        }
    }

    fn corrupt(&mut self, owner: Owner, bytes: u32) {
        self.report.corruption.push(Corruption {
            owner,
            bytes: bytes.into(),
        });
    }

    fn notice(&mut self, by: &str, what: &str, after_ns: u64) {
        self.report.detection.get_or_insert(Detection {
            by: by.into(),
            what: what.into(),
            after_ns,
        });
    }

    /// Requests fail until the driver serves again.
    fn restart(&mut self, after: u64) {
        self.report.resets += 1;
        self.report.recovered_after_ns = Some(after);
        for io in &mut self.report.io {
            io.longest_ns += after;
        }
    }

    fn driver_dies(&mut self, how: &str) {
        let placed = placement(self.spec.placement);
        let privileged = placed.driver_is_privileged();
        let survives = self.spec.oops == Oops::KillTask;
        if how.starts_with("panic") && privileged && !placed.panic_ends_layer() {
            self.notice("driver", "the driver crashed and was contained", 0);
            self.restart(MS / 10);
            return;
        }
        for domain in &mut self.report.domains {
            if domain.holds_driver {
                domain.deaths.push(how.into());
                domain.restarts += u32::from(!privileged);
            }
        }
        self.notice("supervisor", how, 40_000);
        if privileged && !survives {
            self.lose_system();
        } else if privileged {
            self.lose_tenants();
        } else if placed.housing().is_some() {
            for domain in &mut self.report.domains {
                if domain.holds_driver {
                    (domain.end, domain.restarts) = (DomainEnd::Dead, 0);
                }
            }
            self.report.io[0].finished = false;
        } else {
            let root = matches!(
                self.spec.placement,
                PlacementId::RootPartition | PlacementId::RootPartitionKvm
            );
            self.restart(if root { 30 * MS } else { 2 * MS });
        }
    }

    /// The driver's CPU is in interrupt handlers for so long.
    fn interrupt(&mut self, ns: u64) {
        for domain in self.report.domains.iter_mut().filter(|d| d.cpu == 0) {
            domain.interrupt_ns += ns;
            domain.longest_gap_ns += ns;
        }
    }

    fn lose_tenants(&mut self) {
        for io in &mut self.report.io {
            io.finished = false;
            io.completed /= 2;
        }
        self.report.end = End::Horizon;
        self.report.ended_at_ns = self.spec.horizon_ns;
    }

    fn lose_system(&mut self) {
        self.lose_tenants();
        for domain in &mut self.report.domains {
            domain.end = DomainEnd::Halted;
        }
        self.report.end = End::SystemLost;
        self.report.ended_at_ns = self.report.activated_at_ns.unwrap_or(0);
    }

    /// The bus stands still for these CPUs.
    fn stop_bus(&mut self, cpus: &[u8], ns: u64) {
        let left = self.spec.horizon_ns - self.report.activated_at_ns.unwrap_or(0);
        if ns >= left {
            self.lose_tenants();
        }
        for domain in &mut self.report.domains {
            if cpus.contains(&domain.cpu) {
                domain.frozen_ns = ns.min(left);
                domain.longest_gap_ns += domain.frozen_ns;
            }
        }
    }

    fn freeze(&mut self, ns: Option<u64>) {
        for domain in &mut self.report.domains {
            if domain.cpu == 0 {
                domain.frozen_ns = ns.unwrap_or(self.spec.horizon_ns);
                domain.longest_gap_ns += domain.frozen_ns;
                if ns.is_none() {
                    domain.end = DomainEnd::Frozen;
                }
            }
        }
    }
}

struct Scene<'a> {
    spec: &'a TrialSpec,
    report: TrialReport,
}

fn report(spec: &TrialSpec) -> TrialReport {
    let mut draw = Draw::new(spec.seed);
    let mut scene = Scene {
        spec,
        report: clean(spec),
    };
    let jitter = u64::from(draw.between(0, 50_000));
    for domain in &mut scene.report.domains {
        domain.longest_gap_ns += jitter;
    }
    if spec.fault != Fault::None {
        scene.report.activated = 1;
        scene.report.activated_at_ns = Some(MS + jitter);
    }
    strike(&mut scene, &mut draw);
    scene.report
}

fn strike(scene: &mut Scene<'_>, draw: &mut Draw) {
    let spec = scene.spec;
    let open = !spec.iommu.translates();
    match spec.fault {
        Fault::None | Fault::Own { .. } => {}
        Fault::D1 {
            by, target, len, ..
        } => {
            let owner = target.owner();
            let landed = match target {
                Target::Neighbour => true,
                Target::Unbacked => false,
                _ => open,
            };
            scene.stray(landed, true, owner.or(Some(Owner::Driver)));
            if let (true, Some(owner)) = (landed, owner) {
                scene.corrupt(owner, len);
            }
            if by == By::Driver && landed {
                scene.report.io[0].corrupted = 1;
            } else if by == By::Driver {
                scene.report.io[0].errors = 1;
            }
            let harms = spec.iommu != IommuMode::Bounce && draw.between(0, 2) == 0;
            if target == Target::Neighbour && harms {
                scene.report.io[1].corrupted = 1;
            }
        }
        Fault::D6 { by, delay_us, .. } => {
            let early = delay_us < 10_000 && by == By::Device;
            let landed = open || (spec.iommu == IommuMode::Lazy && early);
            scene.stray(landed, true, Some(scene.holder()));
            if landed {
                scene.report.stale_window_ns = Some(u64::from(delay_us) * 900);
            }
        }
        Fault::D4 { .. } => scene.stray(true, true, Some(Owner::Driver)),
        Fault::D2 { bit, .. } => {
            let owner = match bit {
                0..12 => Some(Owner::Driver),
                40.. => None,
                _ => Some(Owner::Hypervisor),
            };
            let landed = owner == Some(Owner::Driver) || (open && owner.is_some());
            scene.stray(landed, true, owner);
            if landed && owner == Some(Owner::Hypervisor) {
                scene.corrupt(Owner::Hypervisor, 64);
            }
            scene.report.io[0].errors = 1;
        }
        Fault::D3 { .. } => {
            scene.hit_frame(open, Owner::Tenant1);
            scene.report.io[0].corrupted = 1;
        }
        Fault::D5 { write, .. } => {
            let bounced = spec.iommu == IommuMode::Bounce;
            let owner = if bounced {
                Owner::Driver
            } else {
                scene.holder()
            };
            scene.stray(true, write, Some(owner));
            if !write && !bounced && spec.packing == Packing::Packed {
                scene.report.counts.leaked_bytes = u64::from(draw.between(0, 64));
            }
        }
        Fault::D7 { .. } => scene.report.io[0].corrupted = 1,
        Fault::D10 { trusted, .. } => {
            scene.hit_frame(trusted || spec.iommu == IommuMode::Off, Owner::Tenant1);
        }
        Fault::D11 { .. } => scene.hit_frame(true, Owner::Hypervisor),
        Fault::D12 { death, .. } => {
            scene.stray(open, true, Some(Owner::Driver));
            if death {
                scene.driver_dies("panic: injected crash");
            } else {
                scene.restart(MS);
            }
        }
        Fault::D13 { .. } => scene.hit_frame(!spec.acs, Owner::Tenant2),
        Fault::D14 { delay_us, .. } => {
            let (filled, after) = (MS, u64::from(delay_us) * 1000);
            scene.report.activated_at_ns = Some(filled + after);
            scene.report.balloon = Some(Balloon {
                from: 1,
                page: 0x14_9000,
                given_at_ns: filled - 1000,
                filled_at_ns: Some(filled),
                resident_before: None,
                resident_after: None,
            });
            scene.report.domains.push(domain("newcomer", 1));
            let early = spec.iommu == IommuMode::Lazy && after < 10 * MS;
            scene.hit_frame(open || early, Owner::Newcomer);
            scene.report.stale_window_ns = (open || early).then_some(after + 1000);
        }
        Fault::D8 { .. } => scene.stray(open, true, Some(Owner::Driver)),
        Fault::I4 { .. } if spec.intremap => scene.report.refused_interrupts = 1,
        Fault::I4 { .. } => scene.report.forged_interrupts = 1,
        Fault::M1 { target, len, .. } => {
            let owner = target.owner().unwrap_or(Owner::Free);
            if placement(spec.placement).driver_maps(owner) {
                scene.corrupt(owner, len);
            } else {
                scene.driver_dies("SIGSEGV");
            }
        }
        Fault::B1 { .. } => match (spec.fabric, spec.timeout_ends) {
            (FabricKind::Pcie, TimeoutEnds::MachineCheck) => {
                scene.report.machine_check = true;
                scene.notice("fabric", "machine check", 50 * MS);
                scene.lose_system();
            }
            (FabricKind::Pcie | FabricKind::PcieDpc, _) => {
                scene.freeze(Some(50 * MS));
                scene.notice("fabric", "completion timeout", 50 * MS);
                scene.restart(51 * MS);
            }
            (FabricKind::Pci | FabricKind::PcieNotimeout, _) => {
                scene.lose_tenants();
                scene.freeze(None);
                scene.notice("supervisor", "driver hangs", 100 * MS);
            }
        },
        Fault::B2 { permille, .. } => {
            scene.freeze(Some(u64::from(permille.min(1000)) * MS / 20));
        }
        Fault::B3 { count, .. } if count == u32::MAX => {
            scene.lose_tenants();
            scene.freeze(None);
        }
        Fault::B3 { count, .. } => scene.freeze(Some(u64::from(count) * 240)),
        Fault::B4 { clocks, .. } => {
            let ns = u64::from(clocks) * 30;
            scene.stop_bus(&[0, 1], ns);
        }
        Fault::B5 { lock, ms, .. } => {
            let cpus: &[u8] = match lock {
                Lock::Resource => &[1],
                Lock::Bus => &[0, 1],
            };
            scene.stop_bus(cpus, u64::from(ms) * MS);
        }
        Fault::B6 { posted, ms, .. } => {
            if spec.fabric == FabricKind::Pcie && posted {
                scene.stop_bus(&[0], u64::from(ms) * MS);
            } else if spec.fabric == FabricKind::PcieDpc {
                scene.notice("fabric", "flow control", MS / 5);
                scene.restart(101 * MS);
            }
        }
        Fault::B7 { ms: 0, .. } => {
            scene.notice("fabric", "surprise down", 0);
            for io in &mut scene.report.io {
                io.errors = 8;
                io.finished = false;
            }
        }
        Fault::B7 { .. } => {
            scene.notice("fabric", "surprise down", 0);
            scene.restart(110 * MS);
        }
        Fault::B8 { .. } => {
            let of = |times: u64| Reading {
                in_order_ns: 240 * times,
                scattered_ns: 6000 * times,
                samples: 100,
            };
            scene.report.io[1].memory = Some(SharedMemory {
                quiet: of(1),
                during: of(6),
            });
        }
        Fault::B10 { fatal, .. } => {
            scene.notice("fabric", "poisoned", 0);
            if fatal && spec.fabric == FabricKind::Pcie {
                scene.report.machine_check = true;
                scene.lose_system();
            } else {
                scene.restart(101 * MS);
            }
        }
        Fault::C1 { overlap, .. } => {
            scene.restart(101 * MS);
            if overlap && spec.fabric == FabricKind::Pci {
                scene.report.io[1].device_changed = 1;
            }
        }
        Fault::C5 { ignored, .. } => {
            if ignored && spec.fabric == FabricKind::Pci {
                scene.report.io[1].device_lost = 1;
            }
            scene.restart(200 * MS);
        }
        Fault::D9 { route, .. } => {
            let direct = spec.fabric == FabricKind::Pci || (route == Route::Near && !spec.acs);
            let landed = direct || open;
            scene.stray(landed, true, None);
            scene.report.io[1].device_changed = u32::from(landed);
        }
        Fault::B9 { window_us, .. } => {
            scene.notice("driver", "device is gone", 20_000);
            scene.restart(u64::from(window_us) * 1000 + MS);
            for io in &mut scene.report.io {
                io.errors = 1;
            }
        }
        Fault::R1 { .. } => {
            scene.notice("driver", "completion of an unknown request", 8_000);
            scene.restart(3 * MS + u64::from(draw.between(0, 400_000)));
        }
        Fault::X1 { .. } => scene.driver_dies("panic: injected crash"),
        Fault::X2 { raw: true, .. } => scene.driver_dies("spun"),
        Fault::X2 { ms, .. } if ms < 100 => {
            for io in &mut scene.report.io {
                io.longest_ns += u64::from(ms) * MS;
            }
        }
        Fault::X2 { .. } => {
            scene.notice("supervisor", "watchdog", 100 * MS);
            scene.driver_dies("killed by the watchdog");
        }
        Fault::I1 { per_second, ms, .. } => {
            let saturated = u64::from(per_second.min(1_000_000)) * u64::from(ms);
            scene.interrupt(saturated.min(100_000_000));
        }
        Fault::I2 { burst, .. } => scene.restart(u64::from(burst) * 30 * MS),
        Fault::I3 { .. } => scene.interrupt(MS),
        Fault::I5 { .. } => {
            scene.report.served.spurious = 1;
            scene.restart(MS);
        }
        Fault::C2 { .. } => {
            scene.notice("driver", "a wait timed out", 30 * MS);
            scene.restart(31 * MS);
        }
        Fault::C3 { length, .. } if length < 6 => {
            scene.notice("driver", "could not be started", MS);
            scene.lose_tenants();
        }
        Fault::C3 { .. } => {}
        Fault::C4 { field: 0, .. } => {
            scene.stray(open, true, Some(Owner::Tenant1));
            if open {
                scene.corrupt(Owner::Tenant1, 4);
            }
        }
        Fault::C4 { .. } => scene.restart(30 * MS),
        Fault::R2 { .. } | Fault::R4 { .. } => scene.report.io[0].corrupted = 1,
        Fault::R3 { .. } | Fault::R6 { .. } => {}
        Fault::R5 { by: By::Device, .. } => scene.stray(open, true, Some(Owner::Driver)),
        Fault::R5 { .. } => {
            scene.notice("driver", "a request timed out", 30 * MS);
            scene.restart(31 * MS);
        }
        Fault::X3 { .. } => {
            scene.notice("supervisor", "watchdog", 100 * MS);
            scene.driver_dies("killed by the watchdog");
        }
        Fault::X4 { pins, .. } => scene.report.counts.maps += u64::from(pins),
        Fault::X5 { .. } => scene.driver_dies("panic: planned crash (X5)"),
        Fault::X6 { .. } => scene.driver_dies("panic: planned death (X6)"),
    }
    // A driver that never reads a register in its hot path cannot meet a read that lies.
    let reads = matches!(spec.fault, Fault::B9 { .. });
    if reads && spec.driver == DriverId::VirtioBlk && spec.seed.is_multiple_of(5) {
        scene.report = clean(spec);
    }
}
