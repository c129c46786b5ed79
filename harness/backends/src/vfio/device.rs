//! A device that is ours: its descriptors, its address space and the ledger of what is mapped.

use crate::vfio::addresses::{Addresses, PAGE};
use crate::vfio::door::{Door, NoCdev, Via};
use crate::vfio::host::VfioHost;
use crate::vfio::kernel::{Area, Kernel, Region};
use crate::vfio::linux::{CdevError, Container, Iommufd, Linux};
use crate::vfio::mapped::Mapped;
use crate::vfio::platform::{Address, Function, Platform, PlatformError};
use cofferdam_machine::{LIVE_LIMIT, Ledger, Live, Verdict};
use cofferdam_seam::{
    Bar, Direction, HostError, InterruptKind, Interrupts, Iova, Mapping, Time, Width,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};
use thiserror::Error;
use vfio_ioctls::VfioError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The command register, and the bits of it a host sets (PCI 3.0, 6.2.2).
const COMMAND: u64 = 0x04;
pub(crate) const MEMORY_SPACE: u16 = 1 << 1;
pub(crate) const BUS_MASTER: u16 = 1 << 2;

/// The status register's bit for a capability list, and the list (PCI 3.0, 6.2.3 and 6.7).
const STATUS: u64 = 0x06;
const CAPABILITY_LIST: u16 = 1 << 4;
const CAPABILITIES: u64 = 0x34;
/// A list that is longer than configuration space has room for goes round.
const CAPABILITY_LIMIT: usize = 48;
/// Power management: its capability ID, and where its control register is (PCI Power Management
/// 1.2, 3.2).
const POWER_MANAGEMENT: u8 = 0x01;
const POWER_CONTROL: u64 = 4;
const POWER_STATE: u16 = 0b11;
const D3_HOT: u16 = 0b11;

/// Vectors a driver can be given: what a [`VectorSet`](cofferdam_seam::VectorSet) holds.
const VECTOR_LIMIT: u16 = 64;

/// There is one requester in this ledger.
const SLOT: usize = 0;

/// Why a device cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// What sysfs says of it, or does not.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Another driver holds it.
    #[error("{address} is held by {driver}, not by vfio-pci; take it first")]
    NotTaken {
        /// The device.
        address: Address,
        /// The driver, or `no driver`.
        driver: String,
    },
    /// The module that maps memory for VFIO is missing.
    #[error("the kernel's VFIO cannot map memory; load it with `modprobe vfio_iommu_type1`")]
    NoType1,
    /// The kernel refused.
    #[error("cannot open {address} through VFIO: {error}")]
    Vfio {
        /// The device.
        address: Address,
        /// Why.
        error: VfioError,
    },
    /// It was to be opened by its own node.
    #[error("cannot open {address} by its own node: {why}")]
    NoCdev {
        /// The device.
        address: Address,
        /// What the kernel lacks.
        why: NoCdev,
    },
    /// The kernel refused to give it by its own node.
    #[error("cannot open {address} by its own node: {error}")]
    Cdev {
        /// The device.
        address: Address,
        /// Why.
        error: CdevError,
    },
}

/// How a device is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of the kernel's ways to the device to take.
    pub via: Via,
    /// Device addresses to map at, less what the platform reserves.
    pub window: Range<u64>,
    /// How long hosts of the device serve: what ends a driver that polls for ever.
    pub horizon: Duration,
    /// Map BARs where the kernel allows it. Otherwise each access is a system call.
    pub map_bars: bool,
    /// The kinds of interrupts to try, in this order.
    pub interrupts: &'static [InterruptKind],
}

impl Default for Options {
    /// 1 MiB to 256 MiB, which the narrowest devices reach (QEMU's edu: 28 bits); an hour.
    fn default() -> Self {
        Self {
            via: Via::default(),
            window: 0x10_0000..0x1000_0000,
            horizon: Duration::from_secs(3600),
            map_bars: true,
            interrupts: &[InterruptKind::Msix, InterruptKind::Msi, InterruptKind::Intx],
        }
    }
}

/// What the kernel refused, for the report; the driver got [`HostError::Infrastructure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub what: &'static str,
    /// The system's error number; 0 if there is none.
    pub code: u32,
    /// In words.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

/// A device that VFIO gave to this process, on its own in an address space. Clones are the same
/// device.
#[derive(Clone)]
pub struct VfioDevice {
    shared: Rc<Shared>,
}

impl VfioDevice {
    /// Opens a device that is bound to `vfio-pci`.
    ///
    /// # Errors
    ///
    /// Says what is missing: the driver, the group, the permission.
    pub fn open(
        platform: &Platform,
        address: Address,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let found = platform.device(address)?;
        if found.driver.as_deref() != Some("vfio-pci") {
            let driver = found.driver.unwrap_or_else(|| "no driver".to_owned());
            return Err(OpenError::NotTaken { address, driver });
        }
        let kernel = open_kernel(platform, &found, options.via)?;
        let reserved = found.group.map(|group| group.reserved).unwrap_or_default();
        Ok(Self::over(kernel, &reserved, options))
    }

    /// A device behind other calls than the system's. No address in `reserved` is used.
    pub fn over(kernel: Box<dyn Kernel>, reserved: &[Range<u64>], options: &Options) -> Self {
        let mut ledger = Ledger::default();
        ledger.attach();
        let power = power_control(&*kernel);
        let door = kernel.door();
        let shared = Shared {
            open: RefCell::new(Some(Open {
                kernel,
                bars: BTreeMap::new(),
                map_bars: options.map_bars,
                kinds: options.interrupts,
                power,
                decoding: false,
                events: Vec::new(),
                kind: None,
                intx_masked: false,
            })),
            books: RefCell::new(Books {
                addresses: Addresses::new(&options.window, reserved),
                ledger,
                live: BTreeMap::new(),
                names: 0,
            }),
            door,
            started: Instant::now(),
            horizon: Time::ZERO + options.horizon,
            failure: RefCell::new(None),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// What a driver asks the world through. A driver that is started again gets another.
    pub fn host(&self) -> VfioHost {
        VfioHost::new(Rc::clone(&self.shared))
    }

    /// Which way it was opened.
    pub fn door(&self) -> Door {
        self.shared.door
    }

    /// Time since the device was opened.
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// What should happen to a DMA of `len` bytes at `at` now, by what is mapped.
    ///
    /// An address space of VFIO's has no physical addresses in it, so that nothing is ever foreign
    /// memory: what was never mapped is unbacked.
    pub fn judge(&self, at: Iova, len: u64, write: bool) -> Verdict {
        self.shared.judge(at, len, write)
    }

    /// The pages of a live mapping.
    pub(crate) fn pages(&self, id: u64) -> Option<Pages> {
        let books = self.shared.books.borrow();
        books.live.get(&id).map(|mapping| mapping.pages.clone())
    }

    /// Sees to it that nothing is ever mapped at that page; whether nothing is.
    pub(crate) fn keep_free(&self, page: Iova) -> bool {
        let mut books = self.shared.books.borrow_mut();
        books.addresses.keep_free(page.0)
    }

    /// An address at which nothing is ever mapped, within what the device reaches.
    pub(crate) fn never_mapped(&self) -> Option<Iova> {
        let mut books = self.shared.books.borrow_mut();
        books.addresses.take(1).map(Iova)
    }

    /// Mappings that are live.
    pub fn mappings(&self) -> usize {
        self.shared.books.borrow().live.len()
    }

    /// The first thing the kernel refused that no driver can be blamed for. From then on hosts
    /// answer [`HostError::Infrastructure`].
    pub fn failure(&self) -> Option<Failure> {
        self.shared.failure.borrow().clone()
    }

    /// Resets the function if it can be reset alone; whether it can.
    ///
    /// # Errors
    ///
    /// [`HostError::Stopped`] if the device was given back, or that the kernel failed.
    pub fn reset(&self) -> Result<bool, HostError> {
        self.shared.with(|open, shared| {
            let done = shared.kernel_did("reset the device", open.kernel.reset())?;
            shared.kernel_did("read the command register", open.look_at_decoding())?;
            Ok(done)
        })
    }

    /// Does what the kernel does when the process dies: closes the device and its address space.
    /// Memory stays as it is, registers read as all ones, hosts answer [`HostError::Stopped`].
    pub fn close(&self) {
        self.shared.close();
    }
}

/// Opens a device the way that was asked for.
fn open_kernel(
    platform: &Platform,
    function: &Function,
    via: Via,
) -> Result<Box<dyn Kernel>, OpenError> {
    let address = function.address;
    let chosen = via.choose(platform.cdev(function));
    if let Some(cdev) = chosen.map_err(|why| OpenError::NoCdev { address, why })? {
        match Linux::<Iommufd>::by_cdev(&cdev) {
            Ok(kernel) => return Ok(Box::new(kernel)),
            // Whoever may not open the nodes may have been given the group.
            Err(error) if via == Via::Automatic && error.is_denied() => {}
            Err(error) => return Err(OpenError::Cdev { address, error }),
        }
    }
    match Linux::<Container>::by_group(&platform.device_path(address)) {
        Ok(kernel) => Ok(Box::new(kernel)),
        Err(VfioError::VfioExtension) => Err(OpenError::NoType1),
        Err(error) => Err(OpenError::Vfio { address, error }),
    }
}

impl fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioDevice").finish_non_exhaustive()
    }
}

/// What hosts, registers and memory of one device share.
pub(crate) struct Shared {
    open: RefCell<Option<Open>>,
    books: RefCell<Books>,
    door: Door,
    started: Instant,
    horizon: Time,
    failure: RefCell<Option<Failure>>,
}

/// The device while it is open. Mapped BARs go before the descriptors: a mapping holds the device.
pub(crate) struct Open {
    bars: BTreeMap<Bar, Vec<Area>>,
    pub(crate) kernel: Box<dyn Kernel>,
    map_bars: bool,
    kinds: &'static [InterruptKind],
    /// Where the power state is in configuration space.
    power: Option<u64>,
    /// Whether the device answers memory accesses. A mapped BAR must not be touched otherwise: the
    /// kernel answers with a signal.
    decoding: bool,
    pub(crate) events: Vec<EventFd>,
    kind: Option<InterruptKind>,
    intx_masked: bool,
}

/// Who may reach what.
struct Books {
    addresses: Addresses,
    ledger: Ledger,
    live: BTreeMap<u64, LiveMapping>,
    /// No mapping or region is ever given a name twice.
    names: u64,
}

struct LiveMapping {
    /// Of whole pages.
    at: u64,
    pages: Pages,
    region: u64,
}

/// Whole pages of a region that a mapping covers. They stay readable after the mapping is gone.
#[derive(Clone)]
pub(crate) struct Pages {
    memory: Rc<Mapped>,
    range: Range<usize>,
}

impl Pages {
    /// What they hold.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.range.len()];
        self.memory.read(self.range.start, &mut bytes);
        bytes
    }
}

impl Open {
    pub(crate) fn config<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.kernel.read(Region::Config, at, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn set_command(&mut self, bit: u16, on: bool) -> io::Result<()> {
        let command = u16::from_le_bytes(self.config(COMMAND)?);
        let command = if on { command | bit } else { command & !bit };
        self.kernel
            .write(Region::Config, COMMAND, &command.to_le_bytes())?;
        self.look_at_decoding()
    }

    /// Finds out whether the device answers memory accesses, after anything that may change it.
    pub(crate) fn look_at_decoding(&mut self) -> io::Result<()> {
        self.decoding = false;
        let command = u16::from_le_bytes(self.config(COMMAND)?);
        let asleep = match self.power {
            Some(at) => u16::from_le_bytes(self.config(at)?) & POWER_STATE == D3_HOT,
            None => false,
        };
        self.decoding = command & MEMORY_SPACE != 0 && !asleep;
        Ok(())
    }

    pub(crate) fn ensure_mapped(&mut self, bar: Bar) -> io::Result<()> {
        if !self.bars.contains_key(&bar) {
            let areas = if self.map_bars {
                self.kernel.map_bar(bar)?
            } else {
                Vec::new()
            };
            self.bars.insert(bar, areas);
        }
        Ok(())
    }

    /// The mapped bytes of that access, and where it is in them.
    fn mapped(&self, bar: Bar, offset: u32, width: Width) -> Option<(&Mapped, usize)> {
        self.bars.get(&bar)?.iter().find_map(|area| {
            let at = u64::from(offset).checked_sub(area.offset)?;
            let at = usize::try_from(at).ok()?;
            let end = at.checked_add(width.bytes() as usize)?;
            (end <= area.bytes.len()).then_some((&area.bytes, at))
        })
    }

    pub(crate) fn load(&self, bar: Bar, offset: u32, width: Width) -> io::Result<u64> {
        if !self.decoding {
            return Ok(width.all_ones());
        }
        if let Some((bytes, at)) = self.mapped(bar, offset, width) {
            return Ok(bytes.load(at, width).unwrap_or(width.all_ones()));
        }
        let mut bytes = [0; 8];
        let (wanted, _) = bytes.split_at_mut(width.bytes() as usize);
        self.kernel.read(Region::Bar(bar), offset.into(), wanted)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn store(&self, bar: Bar, offset: u32, width: Width, value: u64) -> io::Result<()> {
        if !self.decoding {
            return Ok(());
        }
        if let Some((bytes, at)) = self.mapped(bar, offset, width) {
            bytes.store(at, width, value);
            return Ok(());
        }
        let bytes = value.to_le_bytes();
        let (wanted, _) = bytes.split_at(width.bytes() as usize);
        self.kernel.write(Region::Bar(bar), offset.into(), wanted)
    }

    /// Enables up to `wanted` vectors of the best kind that works.
    pub(crate) fn enable_interrupts(&mut self, wanted: u16) -> io::Result<Option<Interrupts>> {
        if let Some(kind) = self.kind.take() {
            self.kernel.disable(kind)?;
            self.events.clear();
        }
        self.intx_masked = false;
        for &kind in self.kinds {
            let most = self.kernel.vectors(kind).min(VECTOR_LIMIT);
            if most == 0 {
                continue;
            }
            let count = wanted.clamp(1, most);
            // A kernel that is short of vectors may still have one.
            for count in [count, 1] {
                let events = (0..count)
                    .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
                    .collect::<Result<Vec<_>, _>>()?;
                if self.kernel.enable(kind, &events).is_ok() {
                    self.events = events;
                    self.kind = Some(kind);
                    return Ok(Some(Interrupts { kind, count }));
                }
            }
        }
        Ok(None)
    }

    /// Lets the pin be heard again, once the driver is back to wait for it.
    pub(crate) fn unmask(&mut self) -> io::Result<()> {
        if self.intx_masked {
            self.kernel.unmask_intx()?;
            self.intx_masked = false;
        }
        Ok(())
    }

    /// Takes what that vector raised; whether it did.
    pub(crate) fn take_event(&mut self, vector: usize) -> bool {
        let raised = self.events[vector].read().is_ok();
        if raised && self.kind == Some(InterruptKind::Intx) {
            self.intx_masked = true;
        }
        raised
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    pub(crate) fn horizon(&self) -> Time {
        self.horizon
    }

    /// Runs what needs the device, if it is ours, well, and in time.
    pub(crate) fn with<T>(
        &self,
        run: impl FnOnce(&mut Open, &Self) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(HostError::Infrastructure(failure.code));
        }
        if self.now() >= self.horizon {
            return Err(HostError::Stopped);
        }
        let mut open = self.open.borrow_mut();
        run(open.as_mut().ok_or(HostError::Stopped)?, self)
    }

    /// Registers have no way to report an error: it is remembered, and every later call of a host
    /// reports it.
    pub(crate) fn registers<T>(
        &self,
        what: &'static str,
        run: impl FnOnce(&Open) -> io::Result<T>,
    ) -> Option<T> {
        let open = self.open.borrow();
        let done = run(open.as_ref()?);
        self.kernel_did(what, done).ok()
    }

    pub(crate) fn kernel_did<T>(
        &self,
        what: &'static str,
        done: io::Result<T>,
    ) -> Result<T, HostError> {
        done.map_err(|error| {
            let code = error.raw_os_error().unwrap_or(0).unsigned_abs();
            let mut failure = self.failure.borrow_mut();
            failure.get_or_insert_with(|| Failure {
                what,
                code,
                error: error.to_string(),
            });
            HostError::Infrastructure(code)
        })
    }

    pub(crate) fn name(&self) -> u64 {
        let mut books = self.books.borrow_mut();
        books.names += 1;
        books.names
    }

    /// Maps `bytes` of a region's memory at pages of their own.
    pub(crate) fn map(
        &self,
        region: u64,
        memory: &Rc<Mapped>,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let pages = bytes.start / PAGE * PAGE..bytes.end.next_multiple_of(PAGE);
        self.with(|open, shared| {
            let mut books = shared.books.borrow_mut();
            if bytes.is_empty() || books.live.len() >= LIVE_LIMIT {
                return Err(HostError::Refused);
            }
            let at = books.addresses.take((pages.len() / PAGE) as u64);
            let at = at.ok_or(HostError::Refused)?;
            let done = open.kernel.map_dma(Iova(at), memory, pages.clone(), way);
            if done.is_err() {
                // Too much pinned, for one: the driver's problem, not the harness's.
                books.addresses.give_back(at);
                return Err(HostError::Refused);
            }
            books.names += 1;
            let id = books.names;
            let iova = Iova(at).offset((bytes.start - pages.start) as u64);
            let live = Live {
                id,
                bytes: iova.0..iova.0 + bytes.len() as u64,
                way,
            };
            books.ledger.map(SLOT, live, true);
            let mapping = LiveMapping {
                at,
                pages: Pages {
                    memory: Rc::clone(memory),
                    range: pages,
                },
                region,
            };
            books.live.insert(id, mapping);
            Ok(Mapping {
                iova,
                len: bytes.len(),
                id,
            })
        })
    }

    /// Takes a mapping back. One that the kernel does not take down keeps its addresses.
    pub(crate) fn unmap(&self, id: u64) {
        let now = self.now();
        let open = self.open.borrow();
        let mut books = self.books.borrow_mut();
        let (Some(open), Some(mapping)) = (&*open, books.live.remove(&id)) else {
            return;
        };
        books.ledger.unmap(SLOT, id, now);
        let done = open
            .kernel
            .unmap_dma(Iova(mapping.at), mapping.pages.range.len());
        if self.kernel_did("take a mapping down", done).is_ok() {
            books.addresses.give_back(mapping.at);
        }
    }

    /// Takes the mappings of a region back.
    pub(crate) fn unmap_region(&self, region: u64) {
        let of_region: Vec<_> = {
            let books = self.books.borrow();
            let mappings = books.live.iter();
            mappings
                .filter(|(_, mapping)| mapping.region == region)
                .map(|(id, _)| *id)
                .collect()
        };
        for id in of_region {
            self.unmap(id);
        }
    }

    fn judge(&self, at: Iova, len: u64, write: bool) -> Verdict {
        let bytes = at.0..at.0.saturating_add(len);
        let books = self.books.borrow();
        match books.ledger.judge(SLOT, &bytes, write, self.now()) {
            Verdict::Foreign { .. } => Verdict::Unbacked,
            verdict => verdict,
        }
    }

    fn close(&self) {
        *self.open.borrow_mut() = None;
        let mut books = self.books.borrow_mut();
        books.live.clear();
        books.ledger.unmap_all(SLOT, self.now());
    }
}

/// Where the power management control register is.
fn power_control(kernel: &dyn Kernel) -> Option<u64> {
    let byte = |at: u64| {
        let mut byte = [0];
        kernel.read(Region::Config, at, &mut byte).ok()?;
        Some(byte[0])
    };
    let mut status = [0; 2];
    kernel.read(Region::Config, STATUS, &mut status).ok()?;
    if u16::from_le_bytes(status) & CAPABILITY_LIST == 0 {
        return None;
    }
    let mut at = u64::from(byte(CAPABILITIES)? & !3);
    for _ in 0..CAPABILITY_LIMIT {
        if at == 0 {
            break;
        }
        if byte(at)? == POWER_MANAGEMENT {
            return Some(at + POWER_CONTROL);
        }
        at = u64::from(byte(at + 1)? & !3);
    }
    None
}
