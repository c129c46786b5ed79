//! What happens in a forked domain, from the fork to its last breath.

use crate::call::Call;
use crate::carrier;
use crate::crossing::{self, Rounds};
use crate::guest::{self, Guest};
use crate::jail::{self, Confinement};
use crate::link::Link;
use crate::lodger::Lodger;
use crate::newcomer;
use crate::placement::{Placement, RingAt, Role, Wall};
use crate::port::{self, PortPage, Spin};
use crate::probe;
use crate::ring;
use crate::server::Server;
use crate::shared::Window;
use crate::supervisor;
use crate::tenant::{self, Way};
use crate::tenant_guest;
use crate::trial::{DriverId, TenantIo, TrialSpec};
use cofferdam_instrument::trap::TrapError;
use cofferdam_machine::frames::Run;
use cofferdam_microvm::MicroVm;
use corosensei::stack::DefaultStack;
use nix::unistd::Pid;
use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// How the last words of a domain begin that could not be confined or connected.
pub const CANNOT_START: &str = "cannot start: ";
/// Exit code of a domain that could not start.
const EXIT_NOT_STARTED: i32 = 97;
/// Exit code of a domain that panicked, as of every Rust program.
const EXIT_PANIC: i32 = 101;

/// What a forked domain is to do.
pub enum Duty<'a> {
    /// Its part in a trial.
    Trial {
        /// The trial.
        spec: &'a TrialSpec,
        /// How often it was started before.
        generation: u32,
        /// Device time zero on the monotonic clock.
        epoch: u64,
        /// Empty requests to be measured instead of the tenants' usual work.
        crossing: Option<Rounds>,
        /// The page of a tenant that is started in mid-trial.
        newcomer: Option<u64>,
    },
    /// Trying everything the jail should refuse.
    ProbeJail,
}

/// Runs domain `index` of a placement (one past the last is the supervisor) in this freshly forked
/// process, and ends the process.
pub fn run(
    placement: &'static Placement,
    index: usize,
    memory: BorrowedFd<'_>,
    ports: BorrowedFd<'_>,
    parent: Pid,
    duty: &Duty<'_>,
) -> ! {
    let code = match connect(placement, index, memory, ports, duty) {
        Ok((page, window)) => {
            last_words(page);
            die_of_faults();
            match prepare(placement, index, window, parent, duty) {
                Ok((confinement, prepared)) => {
                    let alive = AssertUnwindSafe(|| {
                        live(
                            placement,
                            index,
                            page,
                            window,
                            (confinement, prepared),
                            duty,
                        );
                    });
                    if catch_unwind(alive).is_ok() {
                        0
                    } else {
                        EXIT_PANIC
                    }
                }
                Err(error) => {
                    page.leave_text(&format!("{CANNOT_START}{error}"));
                    EXIT_NOT_STARTED
                }
            }
        }
        Err(_) => EXIT_NOT_STARTED,
    };
    // SAFETY: ends the process at once; it shares nothing that wants flushing or unwinding.
    unsafe { libc::_exit(code) }
}

/// What a domain has that the jail would forbid to make.
#[derive(Default)]
struct Prepared {
    guest: Option<Guest>,
    /// A tenant's guest.
    machine: Option<MicroVm>,
    stack: Option<DefaultStack>,
}

/// Sets up what the jail would forbid, and closes it.
fn prepare(
    placement: &Placement,
    index: usize,
    window: Window,
    parent: Pid,
    duty: &Duty<'_>,
) -> Result<(Confinement, Prepared), String> {
    trap_registers(placement, index, duty).map_err(|error| error.to_string())?;
    let mut prepared = Prepared::default();
    if placement.wall == Wall::Guest && index == placement.server() {
        let guest = Guest::boot(placement, window).map_err(|error| error.to_string())?;
        prepared.guest = Some(guest);
    }
    if placement.housing().is_some() && index == placement.server() {
        let stack = Lodger::stack().map_err(|error| format!("a tenant's stack: {error}"))?;
        prepared.stack = Some(stack);
    }
    if let Some(domain) = placement.machine_of_tenant(index) {
        let runs = domain.runs_of_tenant();
        let machine = guest::boot(runs, window).map_err(|error| error.to_string())?;
        prepared.machine = Some(machine);
    }
    let of_driver = prepared.guest.as_ref().and_then(Guest::device);
    let kept = of_driver.or(prepared.machine.as_ref().map(guest::device));
    let confinement = jail::confine(parent, kept).map_err(|error| error.to_string())?;
    Ok((confinement, prepared))
}

/// Ends a domain whose host failed it: no finding, like one that could not be started.
pub fn cannot_go_on(page: &PortPage, error: &dyn Display) -> ! {
    page.leave_text(&format!("{CANNOT_START}{error}"));
    // SAFETY: ends the process at once; it shares nothing that wants flushing or unwinding.
    unsafe { libc::_exit(EXIT_NOT_STARTED) }
}

/// Maps what the domain may have, then closes every descriptor: its mappings are its wall.
fn connect(
    placement: &Placement,
    index: usize,
    memory: BorrowedFd<'_>,
    ports: BorrowedFd<'_>,
    duty: &Duty<'_>,
) -> std::io::Result<(&'static PortPage, Window)> {
    let page = port::open(ports, index)?;
    let runs: Vec<Run> = match (duty, placement.domains.get(index)) {
        (Duty::Trial { newcomer, .. }, None) => newcomer.map(newcomer::runs).into_iter().collect(),
        (Duty::ProbeJail, None) => Vec::new(),
        (_, Some(domain)) => domain.runs().copied().collect(),
    };
    let window = Window::open(memory, &runs)?;
    // SAFETY: nothing in this process uses a descriptor from here on.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    if closed != 0 {
        let error = std::io::Error::last_os_error();
        page.leave_text(&format!(
            "{CANNOT_START}close_range: {error} (Linux 5.9 or later is needed)"
        ));
        return Err(error);
    }
    Ok((page, window))
}

/// Gives faults their default action: the handler Rust's runtime installs against stack overflow
/// would try to uninstall itself in the jail, and fault for ever.
fn die_of_faults() {
    for fault in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the default action needs no handler that could be called at a bad time.
        unsafe { libc::signal(fault, libc::SIG_DFL) };
    }
}

/// The unmodified nvme-driver stores to registers as if they were memory. Its faults are served by
/// a handler, which has to be there before the jail forbids installing one; any other fault still
/// kills.
fn trap_registers(placement: &Placement, index: usize, duty: &Duty<'_>) -> Result<(), TrapError> {
    let wanted = index == placement.server()
        && matches!(duty, Duty::Trial { spec, .. } if spec.driver == DriverId::NvmeCrate);
    if wanted {
        cofferdam_instrument::trap::install()
    } else {
        Ok(())
    }
}

/// Panics write their message to the port page; there is nowhere else.
fn last_words(page: &'static PortPage) {
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        // A payload that is no text is somebody's private unwinding, not a crash.
        if let Some(text) = text {
            let place = info
                .location()
                .map(|at| format!(" at {}:{}", at.file(), at.line()));
            page.leave_text(&format!("panic: {text}{}", place.unwrap_or_default()));
        }
    }));
}

fn live(
    placement: &'static Placement,
    index: usize,
    page: &'static PortPage,
    window: Window,
    (confinement, prepared): (Confinement, Prepared),
    duty: &Duty<'_>,
) {
    let Duty::Trial {
        spec,
        generation,
        epoch,
        crossing,
        newcomer,
    } = duty
    else {
        page.leave_text(&probe::attempt_everything());
        return;
    };
    let role = placement.domains.get(index).map(|domain| domain.role);
    // Only the parties to a measurement poll: anybody else would take a core from them.
    let measured = role.is_some_and(|role| {
        matches!(role, Role::Serves | Role::Tenant(1)) || role.stands_before(1)
    });
    let polls = crossing
        .filter(|_| measured)
        .map_or(0, |rounds| rounds.waiting.polls());
    let link = Rc::new(Link::new(
        page, window, placement, index, spec.clock, *epoch, polls,
    ));
    page.call(
        Call::Hello {
            confinement: confinement.pack(),
        },
        Spin(0),
    );
    link.call(Call::Now);
    if let Some(page) = newcomer {
        newcomer::run(&link, *page);
    }
    match role {
        None => supervisor::run(&link, placement),
        Some(Role::Serves | Role::Houses(_)) => {
            let Prepared { guest, stack, .. } = prepared;
            let tenant = placement.housing().zip(stack);
            let lodger = tenant.map(|(number, stack)| Lodger::new(stack, &link, spec, number));
            Server::new(link, spec, placement, index, *generation)
                .with_guest(guest)
                .with_lodger(lodger)
                .run();
        }
        Some(Role::Tenant(number)) if crossing.is_some() => {
            let rounds = crossing
                .filter(|_| number == 1)
                .map_or(0, |rounds| rounds.count);
            measure(&link, number, placement, rounds)
        }
        Some(Role::Tenant(number)) => {
            let way = match placement.reaches(number) {
                true => Way::Ring(placement.attendant(number)),
                false => Way::None,
            };
            match prepared.machine {
                Some(machine) => tenant_guest::run(machine, link, spec, number, way),
                None => tenant::run(link, spec, number, way),
            }
        }
        Some(Role::Carries | Role::Emulates(_)) => {
            carrier::run(&link, placement, index, spec.driver)
        }
        Some(Role::Idles) => link.rest(),
    }
}

/// A tenant of a measurement: makes its empty requests, then keeps out of the way.
fn measure(link: &Link, tenant: u8, placement: &Placement, count: u32) -> ! {
    let server = Link::bit(placement.attendant(tenant));
    let ring = ring::of(link.window(), RingAt::Tenant(tenant));
    let took = match count {
        0 => 0,
        _ => crossing::empty_requests(link, ring, server, count),
    };
    link.page().store_io(&TenantIo {
        tenant,
        wanted: count,
        completed: count,
        longest_ns: took,
        finished: true,
        ..TenantIo::default()
    });
    link.call(Call::Finished);
    link.rest()
}
