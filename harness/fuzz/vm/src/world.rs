//! The world around a guest whose driver is fuzzed: the fuzzer's host answers.

use crate::symbols;
use cofferdam_fuzz::elsewhere::{self, Turned};
use cofferdam_fuzz::host::{FuzzAddresses, FuzzDma, FuzzHost};
use cofferdam_fuzz::oracle::Oracle;
use cofferdam_microvm::{Death, Locate, Service, Silence, World};
use cofferdam_microvm_abi::{BAR_WINDOW, BARS, DEEP_STACK, MACHINE, MACHINE_LEN};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, InterruptKind, Iova, Mapping, Mmio, RawDma,
    Time, Vector, VectorSet, Wake, Width,
};
use std::mem::{self, ManuallyDrop};
use std::ops::Range;

/// Addresses that nobody has, where null pointers lead.
const NULL: u64 = 64 << 10;

/// Below the driver's stack: what runs over lands there.
const GUARD: Range<u64> = DEEP_STACK.start - (64 << 10)..DEEP_STACK.start;

/// The world, in one execution.
pub struct FuzzWorld {
    host: FuzzHost,
    /// By their names, from 1. What a guest did not give back is the driver's leak, not ours to give back.
    regions: Vec<Option<ManuallyDrop<FuzzDma>>>,
    /// Where firmware placed the registers, if it did.
    addresses: Option<FuzzAddresses>,
    /// The guest left since its time was last up.
    heard: bool,
    /// It faults as soon as it looks at the device's memory.
    blind: bool,
}

impl FuzzWorld {
    /// The world of the execution that runs on this thread.
    pub fn new(host: FuzzHost, addresses: Option<FuzzAddresses>) -> Self {
        elsewhere::begin(symbols::resolve);
        Self {
            host,
            regions: Vec::new(),
            addresses,
            heard: false,
            blind: false,
        }
    }

    /// The guest asks for something.
    fn hear(&mut self) {
        self.heard = true;
        if self.blind {
            // It had its turns, and looks at the device after all.
            elsewhere::abandon(true);
        }
    }

    fn region(&self, name: u64) -> Option<&FuzzDma> {
        let at = usize::try_from(name.checked_sub(1)?).ok()?;
        self.regions.get(at)?.as_deref()
    }

    fn allocate(&mut self, len: u64, locate: Locate<'_>) -> Result<[u64; 2], HostError> {
        let len = usize::try_from(len).map_err(|_| HostError::OutOfMemory(usize::MAX))?;
        let region = self.host.alloc_dma(len)?;
        let at = locate(self.host.pointer(&region)).ok_or(HostError::Refused)?;
        self.regions.push(Some(ManuallyDrop::new(region)));
        Ok([self.regions.len() as u64, at])
    }

    fn free(&mut self, name: u64) {
        let at = usize::try_from(name.wrapping_sub(1)).unwrap_or(usize::MAX);
        let freed = self.regions.get_mut(at).and_then(Option::take);
        drop(freed.map(ManuallyDrop::into_inner));
    }

    fn pages(&mut self, pages: u64, way: u64, locate: Locate<'_>) -> Result<[u64; 2], HostError> {
        let pages = narrow(pages)?;
        let (iova, first) = self.host.allocate_pages(pages, direction(way)?)?;
        Ok([iova.0, locate(first).ok_or(HostError::Refused)?])
    }

    /// The driver's accesses to a BAR are its own up to the BAR's end.
    fn is_behind(&self, bar: Bar, offset: u32, width: Width) -> Option<u64> {
        let end = u64::from(offset) + u64::from(width.bytes());
        let size = self.host.bar_size(bar).unwrap_or(0);
        (end > size).then(|| u64::from(offset).saturating_sub(size))
    }

    fn register(&mut self, bar: u8, offset: u32, width: Width, does: &str) -> Option<Bar> {
        self.hear();
        let bar = Bar::new(bar)?;
        if let Some(behind) = self.is_behind(bar, offset, width) {
            elsewhere::faulted(Oracle::WildAccess, || {
                format!("the driver {does} {behind:#x} bytes behind its registers")
            });
        }
        Some(bar)
    }

    /// The guest died: what that says about the driver. Returns only if it says nothing, with why the
    /// driver did not go on.
    pub fn died(&mut self, death: &Death) -> DriverError {
        match death {
            Death::Panicked(text) => panicked(text),
            Death::Exception {
                vector: 14,
                error,
                at,
                address,
                ..
            } => {
                elsewhere::stands_at(*at);
                if self.blind && (MACHINE..MACHINE + MACHINE_LEN).contains(address) {
                    elsewhere::abandon(true);
                }
                let does = match error {
                    error if error & 16 != 0 => "jumps to",
                    error if error & 2 != 0 => "writes to",
                    _ => "reads from",
                };
                elsewhere::faulted(Oracle::WildAccess, || match *address {
                    address if address < NULL => format!("the driver {does} address {address:#x}"),
                    address if GUARD.contains(&address) => {
                        "the driver's stack runs over".to_owned()
                    }
                    _ => format!("the driver {does} an address that is not its own"),
                })
            }
            Death::Exception { vector, at, .. } => {
                elsewhere::stands_at(*at);
                let (oracle, words) = exception(*vector);
                elsewhere::faulted(oracle, || words.to_owned())
            }
            Death::Wild { write, .. } => {
                let does = if *write { "writes to" } else { "reads from" };
                elsewhere::faulted(Oracle::WildAccess, || {
                    format!("the driver {does} an address that is not its own")
                })
            }
            Death::GaveUp(_) => DriverError::Unsupported("its host cannot go on"),
            // Its time is up only where this world says so, which leaves it.
            Death::TimedOut { .. } => elsewhere::abandon(false),
            Death::TripleFault | Death::BusLock | Death::Broke(_) => {
                elsewhere::faulted(Oracle::Crash, || {
                    format!("the driver ends its guest: {death}")
                })
            }
        }
    }
}

/// A panic, from the text that the payload leaves: `panicked at FILE:LINE:COLUMN:`, and the message.
fn panicked(text: &str) -> ! {
    let text = text.strip_prefix("panicked at ").unwrap_or(text);
    let (place, words) = text.split_once('\n').unwrap_or(("", text));
    let bytes = words.strip_prefix("memory allocation of ");
    if let Some((bytes, _)) = bytes.and_then(|rest| rest.split_once(' ')) {
        elsewhere::faulted(Oracle::Crash, || {
            format!("the driver needs {bytes} bytes, or ends the process")
        });
    }
    let mut parts = place.trim_end_matches(':').rsplitn(3, ':').skip(1);
    let line = parts.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    elsewhere::panicked(parts.next().unwrap_or_default(), line, words)
}

/// Exceptions by their numbers (Intel SDM, volume 3A, 7.15).
fn exception(vector: u8) -> (Oracle, &'static str) {
    match vector {
        0 => (Oracle::Crash, "the driver divides as the processor cannot"),
        12 | 13 | 17 => (
            Oracle::WildAccess,
            "the driver accesses an address that no memory has, or not as it must be accessed",
        ),
        _ => (
            Oracle::Crash,
            "the driver runs into an instruction that ends programs",
        ),
    }
}

fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, HostError> {
    T::try_from(value).map_err(|_| HostError::Refused)
}

fn direction(way: u64) -> Result<Direction, HostError> {
    Ok(match way {
        1 => Direction::ToDevice,
        2 => Direction::FromDevice,
        3 => Direction::Both,
        _ => return Err(HostError::Refused),
    })
}

fn bytes(at: u64, len: u64) -> Result<Range<usize>, HostError> {
    let end = at.checked_add(len).ok_or(HostError::Refused)?;
    Ok(narrow(at)?..narrow(end)?)
}

/// A configuration access as the seam allows it.
fn config_access(offset: u64, bytes: u64) -> Result<(u16, Width), HostError> {
    let width = Width::from_bytes(bytes).filter(|_| bytes <= 4 && offset.is_multiple_of(bytes));
    Ok((narrow(offset)?, width.ok_or(HostError::Refused)?))
}

impl World for FuzzWorld {
    fn read(&mut self, bar: u8, offset: u32, width: Width) -> u64 {
        let bar = self.register(bar, offset, width, "reads from");
        bar.map_or(u64::MAX, |bar| self.host.read(bar, offset, width))
    }

    fn write(&mut self, bar: u8, offset: u32, width: Width, value: u64) {
        if let Some(bar) = self.register(bar, offset, width, "writes to") {
            self.host.write(bar, offset, width, value);
        }
    }

    fn serve(
        &mut self,
        service: Service,
        arguments: &[u64; 8],
        locate: Locate<'_>,
    ) -> Result<[u64; 2], HostError> {
        if service != Service::Turn {
            self.hear();
        }
        let [first, second, third, fourth, ..] = *arguments;
        match service {
            Service::MapBar => {
                let none = || HostError::NoSuchBar(usize::try_from(first).unwrap_or(usize::MAX));
                let bar = u8::try_from(first)
                    .ok()
                    .and_then(Bar::new)
                    .ok_or_else(none)?;
                Ok([self.host.map_bar(bar)?.len(), 0])
            }
            Service::ConfigRead => {
                let (offset, width) = config_access(first, second)?;
                Ok([self.host.config_read(offset, width)?.into(), 0])
            }
            Service::ConfigWrite => {
                let (offset, width) = config_access(first, second)?;
                self.host.config_write(offset, width, narrow(third)?)?;
                Ok([0; 2])
            }
            Service::BusMaster => {
                self.host.set_bus_master(first != 0)?;
                Ok([0; 2])
            }
            Service::EnableInterrupts => {
                let given = self.host.enable_interrupts(narrow(first)?)?;
                let kind = match given.kind {
                    InterruptKind::Msix => 0,
                    InterruptKind::Msi => 1,
                    InterruptKind::Intx => 2,
                };
                Ok([kind, given.count.into()])
            }
            Service::AllocDma => self.allocate(first, locate),
            Service::FreeDma => {
                self.free(first);
                Ok([0; 2])
            }
            Service::Map => {
                let mut host = self.host;
                let region = self.region(first).ok_or(HostError::Refused)?;
                let bytes = narrow(second)?..narrow(third)?;
                let mapping = host.map(region, bytes, direction(fourth)?)?;
                Ok([mapping.iova.0, mapping.id])
            }
            Service::Unmap => {
                // What the driver does not hold is for the host to notice.
                self.host.unmap(Mapping {
                    iova: Iova(0),
                    len: 0,
                    id: first,
                });
                Ok([0; 2])
            }
            Service::Relax => {
                self.host.relax()?;
                Ok([0; 2])
            }
            Service::Now => Ok([self.host.now().nanos(), 0]),
            Service::AllocPages => self.pages(first, second, locate),
            Service::FreePages => Ok([self.host.free_pages(Iova(first)).into(), 0]),
            Service::Registers => {
                let addresses = self.addresses.as_ref().ok_or(HostError::Refused)?;
                let found = addresses.registers(first, second);
                let (bar, offset) = found.ok_or(HostError::Refused)?;
                let at = BARS + bar.index() as u64 * BAR_WINDOW + u64::from(offset);
                Ok([at, 0])
            }
            Service::Freed => {
                elsewhere::freed(&bytes(first, second)?);
                Ok([0; 2])
            }
            Service::IsLent => Ok([elsewhere::is_lent(&bytes(first, second)?).into(), 0]),
            Service::Turn => {
                if elsewhere::turn() == Turned::Spent && !elsewhere::is_close() {
                    elsewhere::abandon(false);
                }
                Ok([0; 2])
            }
            // The guest's own affair, which does not come here.
            Service::Next
            | Service::Wait
            | Service::Panic
            | Service::Fault
            | Service::GiveUp
            | Service::Share
            | Service::Unshare => Err(HostError::Refused),
            // A tenant's.
            Service::Ring
            | Service::Await
            | Service::Publish
            | Service::Complain
            | Service::Finished
            | Service::NextTrial
            | Service::SiblingRead
            | Service::SiblingWrite
            | Service::GiveBack => Err(HostError::Refused),
        }
    }

    fn wait(&mut self, vectors: VectorSet, until: Deadline) -> Result<VectorSet, HostError> {
        self.hear();
        let vectors: Vec<Vector> = vectors.iter().collect();
        Ok(match self.host.wait_any(&vectors, until)? {
            Wake::Interrupt(raised) => raised,
            Wake::TimedOut => VectorSet::EMPTY,
        })
    }

    fn clock(&self) -> Option<Time> {
        Some(self.host.now())
    }

    // Nothing in the payload does anything when one arrives.
    fn interrupts(&self) -> bool {
        false
    }

    fn left(&mut self, stack: &dyn Fn(usize) -> Vec<u64>) {
        elsewhere::stands(stack);
    }

    fn share(&mut self, at: u64, bytes: &[u8], way: u64) -> Result<u64, HostError> {
        self.hear();
        let shared = self.host.share_from(narrow(at)?, bytes, direction(way)?)?;
        Ok(shared.iova.0)
    }

    fn unshare(
        &mut self,
        iova: u64,
        len: usize,
        back: Option<&mut [u8]>,
    ) -> Result<bool, HostError> {
        self.hear();
        Ok(self.host.unshare(Iova(iova), len, back))
    }

    fn silent(&mut self) -> Silence {
        if mem::take(&mut self.heard) {
            return Silence::GoesOn;
        }
        if self.blind {
            // It saw nothing of the device meanwhile, and did not want to.
            elsewhere::abandon(false);
        }
        loop {
            match elsewhere::turn() {
                Turned::Moved => return Silence::GoesOn,
                Turned::Still => {}
                Turned::Spent if elsewhere::is_close() => {
                    self.blind = true;
                    return Silence::GoesOnBlind;
                }
                Turned::Spent => elsewhere::abandon(false),
            }
        }
    }
}
