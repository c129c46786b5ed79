//! A PCI function: the configuration space, BARs and interrupts around a device model.

use crate::config_space::{ConfigSpace, Layout};
use crate::msix::{Control, Msix};
use crate::{msi, spec};
use cofferdam_seam::{
    Access, Bar, Budget, Bus, BusPort, Capability, Completion, Device, DmaFault, Doorbells, Iova,
    Meddling, PciIdentity, Pending, Progress, Purpose, RequesterId, Reset, Time, Violation, Width,
};

/// A device model with its configuration space, as the fabric sees it.
///
/// The fabric owns it, routes accesses to it and lends it a [`Bus`]. Every DMA and every message
/// goes out under one requester ID, and none while bus mastering is off.
pub struct PciFunction {
    device: Box<dyn Device>,
    requester: RequesterId,
    space: ConfigSpace,
    layout: Layout,
    msix: Option<Msix>,
    bar_sizes: [u64; 6],
    /// The level the model wants for its INTx pin.
    wanted: bool,
    /// What the hot path asks, derived from the above by `settle`.
    memory: bool,
    master: bool,
    control: Control,
    intx_pending: bool,
    intx_level: bool,
    /// The level the fabric was told last.
    announced: bool,
}

impl PciFunction {
    /// Puts the PCI layer around `device`, in the state after power-on.
    ///
    /// # Panics
    ///
    /// If the model's identity contradicts itself: a BAR whose size is no power of two or that
    /// overlaps another, capabilities that do not fit the space, an MSI-X structure outside its
    /// BAR. That is a defect of the model, found the first time it is plugged in.
    pub fn new(device: Box<dyn Device>, requester: RequesterId) -> Self {
        let identity = device.describe();
        let (space, layout) = ConfigSpace::new(identity);
        let mut bar_sizes = [0; 6];
        for bar in identity.bars {
            bar_sizes[bar.bar.index()] = bar.size;
        }
        let msix = identity
            .capabilities
            .iter()
            .find_map(|capability| match *capability {
                Capability::Msix {
                    vectors,
                    table,
                    pba,
                } => Some(Msix::new(identity, vectors, table, pba)),
                _ => None,
            });
        let mut function = Self {
            device,
            requester,
            space,
            layout,
            msix,
            bar_sizes,
            wanted: false,
            memory: false,
            master: false,
            control: Control::default(),
            intx_pending: false,
            intx_level: false,
            announced: false,
        };
        function.settle();
        function
    }

    /// Puts `device` in the model's place, in the state after power-on. That costs little if it shows the
    /// same identity, which then is one value that both refer to.
    ///
    /// # Panics
    ///
    /// As [`Self::new`].
    pub fn replace(&mut self, device: Box<dyn Device>) {
        if !std::ptr::eq(self.device.describe(), device.describe()) {
            *self = Self::new(device, self.requester);
            return;
        }
        self.device = device;
        self.space.reset_all();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.wanted = false;
        self.announced = false;
        self.settle();
    }

    /// Who it speaks as.
    pub fn requester(&self) -> RequesterId {
        self.requester
    }

    /// The model's identity.
    pub fn identity(&self) -> &PciIdentity {
        self.device.describe()
    }

    /// The model's page of doorbells.
    pub fn doorbells(&self) -> Option<Doorbells> {
        self.device.doorbells()
    }

    /// Reads configuration space. Registers nobody implements read as zero; an access that is
    /// misaligned, wider than four bytes or beyond 4 KiB is no configuration request and reads as
    /// all ones.
    pub fn config_read(&mut self, offset: u16, width: Width) -> u32 {
        if !ConfigSpace::reaches(offset, width) {
            return u32::MAX >> (32 - 8 * width.bytes().min(4));
        }
        let value = self.space.read(offset, width);
        let status = u32::from(spec::status::INTERRUPT);
        match offset {
            _ if !self.intx_pending => value,
            spec::COMMAND if width == Width::Four => value | status << 16,
            spec::STATUS => value | status,
            _ => value,
        }
    }

    /// Reads configuration space as software does once the function is known: like
    /// [`Self::config_read`], but for a device that answers itself.
    pub fn answer_config(&mut self, offset: u16, width: Width, now: Time) -> u32 {
        let honest = self.config_read(offset, width);
        if !ConfigSpace::reaches(offset, width) {
            return honest;
        }
        let answer = self
            .device
            .answer_config(offset, width, self.space.bytes(), now);
        answer.unwrap_or(honest)
    }

    /// Writes configuration space; what [`Self::config_read`] cannot read is not written either.
    ///
    /// May start a function-level reset, which is done when this returns: the device has been
    /// reset, and every register (BARs and command too) is back at its reset value, but for the
    /// few link and payload settings the standard keeps.
    pub fn config_write(&mut self, offset: u16, width: Width, value: u32, bus: &mut dyn Bus) {
        if !ConfigSpace::reaches(offset, width) {
            return;
        }
        self.space.write(offset, width, value);
        if self.starts_flr(offset, width, value) {
            self.reset(Reset::FunctionLevel);
            // A device is stepped after its reset: its timers start anew.
            bus.wake_at(self.requester, bus.now());
        } else {
            self.settle();
            self.send_unmasked(bus);
        }
        self.announce(bus);
    }

    /// Bytes in a BAR; none for a register that is no BAR or the upper half of one.
    pub fn bar_size(&self, bar: Bar) -> Option<u64> {
        let size = self.bar_sizes[bar.index()];
        (size != 0).then_some(size)
    }

    /// The address software put into a BAR; zero after reset.
    pub fn bar_address(&self, bar: Bar) -> Option<u64> {
        let wide = self
            .identity()
            .bars
            .iter()
            .find(|spec| spec.bar == bar)?
            .wide;
        let register = spec::BARS[bar.index()];
        let low = self.space.dword(register) & !spec::bar::FLAGS;
        let high = if wide {
            self.space.dword(register + 4)
        } else {
            0
        };
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// Whether it decodes its BARs.
    pub fn memory_enabled(&self) -> bool {
        self.memory
    }

    /// Whether it may send memory requests.
    pub fn bus_master(&self) -> bool {
        self.master
    }

    /// A non-posted read of a BAR: [`Completion::Unsupported`] while memory decoding is off. The
    /// MSI-X structures answer here, everything else in the model.
    #[inline]
    pub fn read(&mut self, at: Access, bus: &mut dyn Bus) -> Completion {
        if !self.decodes(at) {
            return Completion::Unsupported;
        }
        if let Some(msix) = &self.msix
            && let Some(value) = msix.read(at)
        {
            return Completion::Data(value);
        }
        self.lend(bus, |device, port| device.read(at, port))
    }

    /// A posted write to a BAR; dropped while memory decoding is off. Bits of `value` above the
    /// access's width are ignored.
    #[inline]
    pub fn write(&mut self, at: Access, value: u64, bus: &mut dyn Bus) {
        if !self.decodes(at) {
            return;
        }
        let value = value & at.width().all_ones();
        if let Some(msix) = &mut self.msix
            && msix.write(at, value)
        {
            self.send_unmasked(bus);
            return;
        }
        self.lend(bus, |device, port| device.write(at, value, port));
    }

    /// Lets the model do at most `budget` units of its pending work.
    pub fn step(&mut self, budget: Budget, bus: &mut dyn Bus) -> Progress {
        self.lend(bus, |device, port| device.step(budget, port))
    }

    /// Resets model and function. A message that waited behind a mask is forgotten.
    pub fn reset(&mut self, kind: Reset) {
        self.device.reset(kind);
        match kind {
            Reset::Cold => self.space.reset_all(),
            Reset::FunctionLevel => self.space.reset_function(),
        }
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.wanted = false;
        self.settle();
    }

    /// The level of the INTx pin: what the model wants, unless software disabled the pin or
    /// enabled messages.
    pub fn intx_level(&self) -> bool {
        self.intx_level
    }

    /// The MSI capability, if software enabled it.
    fn msi(&self) -> Option<u16> {
        self.layout.msi.filter(|&at| msi::enabled(&self.space, at))
    }

    #[inline]
    fn decodes(&self, at: Access) -> bool {
        let end = u64::from(at.offset()) + u64::from(at.width().bytes());
        self.memory && end <= self.bar_sizes[at.bar().index()]
    }

    /// Whether a write of that shape sets Initiate Function Level Reset.
    fn starts_flr(&self, offset: u16, width: Width, value: u32) -> bool {
        let Some(capability) = self.layout.flr else {
            return false;
        };
        let [_, high] = spec::pcie::INITIATE_FLR.to_le_bytes();
        let byte = usize::from(capability + spec::pcie::DEVICE_CONTROL + 1);
        let written = byte
            .checked_sub(usize::from(offset))
            .filter(|&byte| byte < width.bytes() as usize);
        written.is_some_and(|byte| value.to_le_bytes()[byte] & high != 0)
    }

    /// Calls the model with a port, then carries out what it asked of its own function. Messages
    /// leave last, so that none overtakes the data it announces.
    #[inline]
    fn lend<R>(
        &mut self,
        bus: &mut dyn Bus,
        call: impl FnOnce(&mut dyn Device, &mut BusPort<'_>) -> R,
    ) -> R {
        let mut pending = Pending::default();
        let mut gate;
        let reach: &mut dyn Bus = if self.master {
            &mut *bus
        } else {
            gate = MasterDisabled(&mut *bus);
            &mut gate
        };
        let mut port = BusPort::new(reach, self.requester, &mut pending);
        let result = call(&mut *self.device, &mut port);
        if !pending.raised.is_empty() || pending.intx.is_some() || pending.meddling.is_some() {
            self.carry_out(pending, bus);
        }
        result
    }

    fn carry_out(&mut self, pending: Pending, bus: &mut dyn Bus) {
        if let Some(meddling) = pending.meddling {
            self.meddle(meddling, bus);
        }
        if let Some(level) = pending.intx {
            self.wanted = level;
            self.settle();
            self.announce(bus);
        }
        if self.control.enabled {
            if let Some(msix) = &mut self.msix {
                msix.post(pending.raised);
            }
            self.send_unmasked(bus);
        } else if let Some(at) = self.msi() {
            for vector in pending.raised.iter() {
                if let Some(message) = msi::message(&self.space, at, vector) {
                    self.send(message, bus);
                }
            }
        }
    }

    fn meddle(&mut self, meddling: Meddling, bus: &mut dyn Bus) {
        match meddling {
            Meddling::BusMaster(on) => {
                self.space.set(spec::COMMAND, spec::command::BUS_MASTER, on);
                self.settle();
            }
            Meddling::MsixTable { field, value } => {
                if let Some(msix) = &mut self.msix {
                    msix.overwrite(field, value);
                }
            }
            Meddling::Message { at, data } => {
                let _ = bus.dma_write(self.requester, at, &data.to_le_bytes(), Purpose::Publish);
            }
        }
    }

    /// Tells the fabric of a new level of the pin.
    fn announce(&mut self, bus: &mut dyn Bus) {
        if self.announced != self.intx_level {
            self.announced = self.intx_level;
            bus.intx(self.requester, self.intx_level);
        }
    }

    /// Sends the MSI-X messages that are pending and not masked.
    fn send_unmasked(&mut self, bus: &mut dyn Bus) {
        while let Some(message) = self.next_message() {
            self.send(message, bus);
        }
    }

    fn next_message(&mut self) -> Option<(Iova, u32)> {
        self.msix.as_mut()?.next_message(self.control)
    }

    /// A message is a memory write like any other, and needs bus mastering like any other; a
    /// posted write has nobody to tell when it is refused.
    fn send(&self, (at, data): (Iova, u32), bus: &mut dyn Bus) {
        if self.master {
            let _ = bus.dma_write(self.requester, at, &data.to_le_bytes(), Purpose::Publish);
        }
    }

    /// Derives from the configuration space what the hot path asks.
    fn settle(&mut self) {
        let command = self.space.word(spec::COMMAND);
        let set = |bit: u16| command & bit != 0;
        self.memory = set(spec::command::MEMORY);
        self.master = set(spec::command::BUS_MASTER);
        self.control = self
            .layout
            .msix
            .map_or_else(Control::default, |at| Control::of(&self.space, at));
        // A function that sends messages does not use its pin (PCI 3.0, 6.8.2.1).
        let messages = self.control.enabled || self.msi().is_some();
        self.intx_pending = self.wanted && self.identity().intx && !messages;
        self.intx_level = self.intx_pending && !set(spec::command::INTX_DISABLE);
    }
}

/// The bus of a function whose bus-master enable bit is off.
struct MasterDisabled<'a>(&'a mut dyn Bus);

impl Bus for MasterDisabled<'_> {
    fn dma_read(
        &mut self,
        _: RequesterId,
        _: Iova,
        into: &mut [u8],
        _: Purpose,
    ) -> Result<(), DmaFault> {
        into.fill(0xff);
        Err(DmaFault::MasterDisabled)
    }

    fn dma_write(&mut self, _: RequesterId, _: Iova, _: &[u8], _: Purpose) -> Result<(), DmaFault> {
        Err(DmaFault::MasterDisabled)
    }

    fn dma_write_translated(&mut self, _: RequesterId, _: Iova, _: &[u8]) -> Result<(), DmaFault> {
        Err(DmaFault::MasterDisabled)
    }

    fn dma_write_as(
        &mut self,
        _: RequesterId,
        _: RequesterId,
        _: Iova,
        _: &[u8],
    ) -> Result<(), DmaFault> {
        Err(DmaFault::MasterDisabled)
    }

    /// Who may not ask for the bus can neither keep nor lock it; the rest needs no bus mastering.
    fn violate(&mut self, by: RequesterId, what: Violation) -> bool {
        let masters = matches!(what, Violation::HoldGrant { .. } | Violation::Lock { .. });
        !masters && self.0.violate(by, what)
    }

    fn now(&self) -> Time {
        self.0.now()
    }

    fn wake_at(&mut self, by: RequesterId, at: Time) {
        self.0.wake_at(by, at);
    }
}
