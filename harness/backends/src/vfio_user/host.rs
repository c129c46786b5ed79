//! A driver's way to a served device.

use super::client::{Client, Failure, PAGE, Part};
use crate::pool::{DmaPool, Lease};
use crate::vfio::Mapped;
use cofferdam_machine::frames::MEMORY;
use cofferdam_machine::{Memory, PhysAddr};
use cofferdam_seam::{
    Access, Bar, Deadline, Direction, DmaRegion, DriverHost, HostError, InterruptKind, Interrupts,
    Iova, Mapping, Mmio, RawDma, Time, Vector, VectorSet, Wake, Width,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::time::TimeSpec;
use nix::unistd::ftruncate;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;
use vdevice_pci::spec as pci;
use vdevice_server::spec::{irq, region};

/// The connection failed; why is for [`VfioUserDevice::failure`] to say.
const FAILED: HostError = HostError::Infrastructure(0);

/// Capabilities a list can hold.
const CAPABILITIES: usize = 48;

/// A served device, and the memory it may be lent.
pub struct VfioUserDevice {
    shared: Rc<Shared>,
}

struct Shared {
    client: RefCell<Client>,
    file: OwnedFd,
    pool: DmaPool,
    started: Instant,
    failure: RefCell<Option<Failure>>,
    /// Reads that nobody answered.
    unanswered: Cell<u64>,
    /// Live mappings: of which region, and where.
    mappings: RefCell<BTreeMap<u64, (u64, Iova)>>,
    names: Cell<u64>,
    given: RefCell<Given>,
}

/// The interrupts that were set up.
struct Given {
    kind: InterruptKind,
    events: Vec<EventFd>,
}

impl VfioUserDevice {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// If there is none, or it does not speak vfio-user.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// The device at the other end of a socket, reset.
    ///
    /// # Errors
    /// If it does not speak vfio-user.
    pub fn over(socket: UnixStream) -> io::Result<Self> {
        let sealed = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"driver-memory", sealed)?;
        ftruncate(&file, i64::try_from(MEMORY).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let memory = Memory::shared(file.as_fd())?;
        let mut client = Client::new(socket, memory).map_err(io::Error::other)?;
        client.reset().map_err(io::Error::other)?;
        let shared = Shared {
            client: RefCell::new(client),
            file,
            pool: DmaPool::of_driver(),
            started: Instant::now(),
            failure: RefCell::new(None),
            unanswered: Cell::new(0),
            mappings: RefCell::default(),
            names: Cell::new(0),
            given: RefCell::new(Given {
                kind: InterruptKind::Intx,
                events: Vec::new(),
            }),
        };
        Ok(Self {
            shared: Rc::new(shared),
        })
    }

    /// What a driver of the device asks the world through.
    pub fn host(&self) -> VfioUserHost {
        VfioUserHost {
            shared: Rc::clone(&self.shared),
        }
    }

    /// Time since the connection.
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// Why the connection failed, if it did.
    pub fn failure(&self) -> Option<String> {
        let failure = self.shared.failure.borrow();
        failure.as_ref().map(ToString::to_string)
    }

    /// Register reads that nobody answered.
    pub fn unanswered(&self) -> u64 {
        self.shared.unanswered.get()
    }

    /// Mappings that live.
    pub fn mappings(&self) -> usize {
        self.shared.client.borrow().mappings()
    }
}

impl fmt::Debug for VfioUserDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioUserDevice").finish_non_exhaustive()
    }
}

impl Shared {
    /// A call to the server; none is made once one failed.
    fn with<T>(
        &self,
        call: impl FnOnce(&mut Client) -> Result<T, Failure>,
    ) -> Result<T, HostError> {
        if self.failure.borrow().is_some() {
            return Err(FAILED);
        }
        let done = call(&mut self.client.borrow_mut());
        done.map_err(|failure| {
            self.failure.replace(Some(failure));
            FAILED
        })
    }

    fn now(&self) -> Time {
        let nanos = self.started.elapsed().as_nanos();
        Time(u64::try_from(nanos).unwrap_or(u64::MAX - 1))
    }

    fn name(&self) -> u64 {
        let name = self.names.get() + 1;
        self.names.set(name);
        name
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, HostError> {
        let mut bytes = [0; 4];
        let (wanted, _) = bytes.split_at_mut(width.bytes().min(4) as usize);
        self.with(|client| client.read(region::CONFIG, offset.into(), wanted))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        let bytes = value.to_le_bytes();
        let (wanted, _) = bytes.split_at(width.bytes().min(4) as usize);
        self.with(|client| client.write(region::CONFIG, offset.into(), wanted))
    }

    fn set_command(&self, bit: u16, on: bool) -> Result<(), HostError> {
        let command = self.config_read(pci::COMMAND, Width::Two)?;
        let bit = u32::from(bit);
        let command = if on { command | bit } else { command & !bit };
        self.config_write(pci::COMMAND, Width::Two, command)
    }

    /// Where a capability is; a list that goes in circles ends.
    fn capability(&self, id: u8) -> Result<Option<u16>, HostError> {
        let mut at = self.config_read(pci::CAPABILITIES, Width::One)? & !3;
        for _ in 0..CAPABILITIES {
            let Ok(offset) = u16::try_from(at) else {
                break;
            };
            if !(0x40..0xfc).contains(&offset) {
                break;
            }
            let [found, next, ..] = self.config_read(offset, Width::Four)?.to_le_bytes();
            if found == id {
                return Ok(Some(offset));
            }
            at = u32::from(next & !3);
        }
        Ok(None)
    }

    /// Sets the enable bit of the capability that sends messages of that kind.
    fn enable_messages(&self, kind: InterruptKind) -> Result<(), HostError> {
        let (id, bit) = match kind {
            InterruptKind::Msix => (pci::capability::MSIX, pci::msix::ENABLE),
            InterruptKind::Msi => (pci::capability::MSI, pci::msi::ENABLE),
            InterruptKind::Intx => return Ok(()),
        };
        let Some(at) = self.capability(id)? else {
            return Ok(());
        };
        let control = self.config_read(at + 2, Width::Two)?;
        self.config_write(at + 2, Width::Two, control | u32::from(bit))
    }

    fn unmap(&self, iova: Iova) {
        // What the server does not take back it is not lent either: a failure is remembered.
        let _ = self.with(|client| client.unmap(iova));
    }
}

/// One driver's host.
pub struct VfioUserHost {
    shared: Rc<Shared>,
}

impl fmt::Debug for VfioUserHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioUserHost").finish_non_exhaustive()
    }
}

impl DriverHost for VfioUserHost {
    type Mmio = VfioUserMmio;
    type Dma = VfioUserDma;

    fn map_bar(&mut self, bar: Bar) -> Result<VfioUserMmio, HostError> {
        let index = index(bar);
        let (size, part) = self.shared.with(|client| client.region(index))?;
        if size == 0 {
            return Err(HostError::NoSuchBar(bar.index()));
        }
        self.shared.set_command(pci::command::MEMORY, true)?;
        Ok(VfioUserMmio {
            shared: Rc::clone(&self.shared),
            bar,
            size,
            page: part.and_then(Page::map),
        })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.shared.config_read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.shared.config_write(offset, width, value)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.shared.set_command(pci::command::BUS_MASTER, on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        let kinds = [
            (irq::MSIX, InterruptKind::Msix),
            (irq::MSI, InterruptKind::Msi),
            (irq::INTX, InterruptKind::Intx),
        ];
        for (index, kind) in kinds {
            let there = self.shared.with(|client| client.irqs(index))?;
            // A set of vectors has 64.
            let count = u16::try_from(there.min(64)).unwrap_or(64).min(wanted);
            if count == 0 {
                continue;
            }
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            let events: Result<Vec<_>, Errno> = (0..count)
                .map(|_| EventFd::from_value_and_flags(0, flags))
                .collect();
            let events = events.map_err(|error| HostError::Infrastructure(error as u32))?;
            self.shared.with(|client| {
                // One a message, as QEMU does: a server may take no more.
                for (vector, event) in (0..).zip(&events) {
                    client.attach(index, vector, &[event.as_fd()])?;
                }
                Ok(())
            })?;
            self.shared.enable_messages(kind)?;
            self.shared.given.replace(Given { kind, events });
            return Ok(Interrupts { kind, count });
        }
        Err(HostError::NoVectors(wanted))
    }

    fn alloc_dma(&mut self, len: usize) -> Result<VfioUserDma, HostError> {
        let lease = self.shared.pool.lease(len);
        let lease = lease.ok_or(HostError::OutOfMemory(len))?;
        let client = self.shared.client.borrow();
        let zeroed = client.memory().write(lease.at(), &vec![0; len]);
        zeroed.map_err(|_| HostError::OutOfMemory(len))?;
        Ok(VfioUserDma {
            shared: Rc::clone(&self.shared),
            name: self.shared.name(),
            lease,
            len,
        })
    }

    fn map(
        &mut self,
        region: &VfioUserDma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        HostError::unless_within(&bytes, region.len)?;
        if !Rc::ptr_eq(&region.shared, &self.shared) {
            return Err(HostError::Refused);
        }
        let at = PhysAddr(region.lease.at().0 + bytes.start as u64);
        let len = bytes.len();
        let shared = &self.shared;
        let iova = shared.with(|client| client.map(shared.file.as_fd(), at, len, way))?;
        let id = shared.name();
        shared.mappings.borrow_mut().insert(id, (region.name, iova));
        Ok(Mapping { iova, len, id })
    }

    fn unmap(&mut self, mapping: Mapping) {
        let mapped = self.shared.mappings.borrow_mut().remove(&mapping.id);
        if let Some((_, iova)) = mapped {
            self.shared.unmap(iova);
        }
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        if self.shared.given.borrow().kind == InterruptKind::Intx {
            self.shared.with(Client::unmask_pin)?;
        }
        loop {
            self.shared.with(Client::attend)?;
            let mut raised = VectorSet::EMPTY;
            let given = self.shared.given.borrow();
            for &vector in vectors {
                let event = given.events.get(usize::from(vector.0));
                if event.is_some_and(|event| event.read().is_ok()) {
                    raised.insert(VectorSet::of(vector));
                }
            }
            if !raised.is_empty() {
                return Ok(Wake::Interrupt(raised));
            }
            let now = self.shared.now();
            if until.passed(now) {
                return Ok(Wake::TimedOut);
            }
            let client = self.shared.client.borrow();
            let mut polled = vec![PollFd::new(client.socket(), PollFlags::POLLIN)];
            let awaited = vectors
                .iter()
                .filter_map(|vector| given.events.get(usize::from(vector.0)));
            polled.extend(awaited.map(|event| PollFd::new(event.as_fd(), PollFlags::POLLIN)));
            let left = TimeSpec::from_duration(until.0.since(now));
            match ppoll(&mut polled, Some(left), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(HostError::Infrastructure(error as u32)),
            }
        }
    }

    fn relax(&mut self) -> Result<(), HostError> {
        std::thread::yield_now();
        self.shared.with(Client::attend)
    }

    fn now(&self) -> Time {
        self.shared.now()
    }
}

impl RawDma for VfioUserHost {
    fn pointer(&self, region: &VfioUserDma) -> NonNull<u8> {
        region
            .shared
            .client
            .borrow()
            .memory()
            .pointer(region.lease.at())
    }
}

fn index(bar: Bar) -> u32 {
    u32::try_from(bar.index()).unwrap_or(u32::MAX)
}

/// A page of doorbells that is memory here.
struct Page {
    start: u64,
    mapped: Mapped,
}

impl Page {
    /// Maps it, unless whoever made the file could take it away again: then rings are messages.
    fn map(part: Part) -> Option<Self> {
        let stays = SealFlag::F_SEAL_SHRINK.bits();
        let seals = fcntl(&part.file, FcntlArg::F_GET_SEALS).ok()?;
        let len = fstat(&part.file).ok()?.st_size;
        let end = i64::try_from(part.at.checked_add(PAGE)?).ok()?;
        let mapped = (seals & stays == stays && end <= len)
            .then(|| Mapped::file(&part.file, part.at, usize::try_from(PAGE).ok()?).ok())
            .flatten()?;
        let start = part.start;
        Some(Self { start, mapped })
    }

    /// Whether the register is in it, and was written.
    fn write(&self, at: Access, value: u64) -> bool {
        let inside = u64::from(at.offset()).checked_sub(self.start);
        let Some(inside) = inside.and_then(|inside| usize::try_from(inside).ok()) else {
            return false;
        };
        // What the doorbell tells of is in memory before.
        fence(Ordering::Release);
        self.mapped.store(inside, at.width(), value)
    }
}

/// A BAR of a served device: every access is a message, but for writes to a page that is mapped.
pub struct VfioUserMmio {
    shared: Rc<Shared>,
    bar: Bar,
    size: u64,
    page: Option<Page>,
}

impl Mmio for VfioUserMmio {
    fn read(&self, offset: u32, width: Width) -> u64 {
        let Some(at) = Access::new(self.bar, offset, width, self.size) else {
            return width.all_ones();
        };
        let mut bytes = [0; 8];
        let (wanted, _) = bytes.split_at_mut(width.bytes() as usize);
        let read = self.shared.with(|client| {
            match client.read(index(at.bar()), at.offset().into(), wanted) {
                // No completion came: the machine goes on with all ones.
                Err(Failure::Silent(_)) => Ok(false),
                read => read.map(|()| true),
            }
        });
        match read {
            Ok(true) => u64::from_le_bytes(bytes),
            Ok(false) => {
                self.shared.unanswered.set(self.shared.unanswered.get() + 1);
                width.all_ones()
            }
            Err(_) => width.all_ones(),
        }
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        if let Some(at) = Access::new(self.bar, offset, width, self.size) {
            if self.page.as_ref().is_some_and(|page| page.write(at, value)) {
                return;
            }
            let bytes = value.to_le_bytes();
            let (wanted, _) = bytes.split_at(width.bytes() as usize);
            // A posted write has nobody to tell; the next call to the host fails.
            let _ = self
                .shared
                .with(|client| client.write(index(at.bar()), at.offset().into(), wanted));
        }
    }

    fn len(&self) -> u64 {
        self.size
    }
}

impl fmt::Debug for VfioUserMmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioUserMmio")
            .field("bar", &self.bar)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// DMA memory: frames of a file that the server is lent.
pub struct VfioUserDma {
    shared: Rc<Shared>,
    name: u64,
    lease: Lease,
    len: usize,
}

impl VfioUserDma {
    /// How many of `len` bytes from `at` on are in the region.
    fn within(&self, at: usize, len: usize) -> usize {
        self.len.saturating_sub(at).min(len)
    }

    fn address(&self, at: usize) -> PhysAddr {
        PhysAddr(self.lease.at().0 + at as u64)
    }
}

impl DmaRegion for VfioUserDma {
    fn len(&self) -> usize {
        self.len
    }

    fn read_at(&self, at: usize, into: &mut [u8]) {
        let (inside, beyond) = into.split_at_mut(self.within(at, into.len()));
        beyond.fill(0);
        if !inside.is_empty() {
            // A lease lies in memory.
            let _ = self
                .shared
                .client
                .borrow()
                .memory()
                .read(self.address(at), inside);
        }
    }

    fn write_at(&self, at: usize, from: &[u8]) {
        let inside = &from[..self.within(at, from.len())];
        if !inside.is_empty() {
            // A lease lies in memory.
            let _ = self
                .shared
                .client
                .borrow()
                .memory()
                .write(self.address(at), inside);
        }
    }
}

impl Drop for VfioUserDma {
    fn drop(&mut self) {
        let mut mappings = self.shared.mappings.borrow_mut();
        let mut gone = Vec::new();
        mappings.retain(|_, (region, iova)| {
            let stays = *region != self.name;
            if !stays {
                gone.push(*iova);
            }
            stays
        });
        drop(mappings);
        for iova in gone {
            self.shared.unmap(iova);
        }
    }
}

impl fmt::Debug for VfioUserDma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioUserDma")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
