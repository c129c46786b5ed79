//! Where the device keeps its virtio structures: a walk of its capabilities.

use crate::spec::{self, cap, common};
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Bar, DriverHost, HostError, Mmio, Width};
use std::rc::Rc;

/// A stretch of a BAR. Accesses beyond it read all ones and write nowhere.
pub struct Structure<M> {
    mmio: Rc<M>,
    offset: u32,
    len: u32,
}

impl<M> Clone for Structure<M> {
    fn clone(&self) -> Self {
        Self {
            mmio: Rc::clone(&self.mmio),
            ..*self
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a read of a width has no bits above it"
)]
impl<M: Mmio> Structure<M> {
    /// Bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn read(&self, at: u32, width: Width) -> u64 {
        if self.holds(at, width) {
            self.mmio.read(self.offset + at, width)
        } else {
            width.all_ones()
        }
    }

    pub fn write(&self, at: u32, width: Width, value: u64) {
        if self.holds(at, width) {
            self.mmio.write(self.offset + at, width, value);
        }
    }

    pub fn read8(&self, at: u32) -> u8 {
        self.read(at, Width::One) as u8
    }

    pub fn read16(&self, at: u32) -> u16 {
        self.read(at, Width::Two) as u16
    }

    pub fn read32(&self, at: u32) -> u32 {
        self.read(at, Width::Four) as u32
    }

    pub fn write8(&self, at: u32, value: u8) {
        self.write(at, Width::One, value.into());
    }

    pub fn write16(&self, at: u32, value: u16) {
        self.write(at, Width::Two, value.into());
    }

    pub fn write32(&self, at: u32, value: u32) {
        self.write(at, Width::Four, value.into());
    }

    /// Writes a 64-bit field, which the standard allows in two halves only (4.1.3.1).
    pub fn write_halves(&self, at: u32, value: u64) {
        self.write32(at, value as u32);
        self.write32(at + 4, (value >> 32) as u32);
    }

    /// `offset + len` was checked against the BAR, so an access inside cannot overflow.
    fn holds(&self, at: u32, width: Width) -> bool {
        at.checked_add(width.bytes())
            .is_some_and(|end| end <= self.len)
    }
}

/// The structures of one device.
pub struct Structures<M> {
    pub common: Structure<M>,
    pub notify: Structure<M>,
    /// Bytes between two doorbells.
    pub multiplier: u32,
    pub isr: Structure<M>,
    pub device: Option<Structure<M>>,
}

/// What one capability says: unchecked.
#[derive(Clone, Copy)]
struct Location {
    bar: Bar,
    offset: u32,
    len: u32,
}

/// The capabilities that count: the first of each type that makes sense (4.1.4.1).
#[derive(Default)]
struct Found {
    common: Option<Location>,
    notify: Option<(Location, u32)>,
    isr: Option<Location>,
    device: Option<Location>,
}

impl<M: Mmio> Structures<M> {
    /// Finds and maps the structures of a modern virtio device.
    pub fn find<H: DriverHost<Mmio = M>>(host: &mut H) -> Result<Self, DriverError> {
        let found = walk(host)?;
        let mut bars = Bars(Vec::new());
        let missing = DriverError::Unsupported;
        let common = found
            .common
            .ok_or(missing("no common configuration capability"))?;
        let (notify, multiplier) = found.notify.ok_or(missing("no notification capability"))?;
        let isr = found.isr.ok_or(missing("no ISR status capability"))?;
        if multiplier % 2 != 0 {
            return Err(DriverError::Protocol("doorbell multiplier is odd"));
        }
        Ok(Self {
            common: bars.open(host, common, common::LEN, 4)?,
            notify: bars.open(host, notify, 2, 2)?,
            multiplier,
            isr: bars.open(host, isr, spec::ISR_LEN, 1)?,
            device: match found.device {
                Some(device) => Some(bars.open(host, device, 0, 4)?),
                None => None,
            },
        })
    }
}

fn walk<H: DriverHost>(host: &mut H) -> Result<Found, HostError> {
    let mut found = Found::default();
    if host.config_read(spec::PCI_STATUS, Width::Two)? & spec::PCI_HAS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut at = host.config_read(spec::PCI_CAPABILITIES, Width::One)?;
    for _ in 0..spec::PCI_MAX_CAPABILITIES {
        // The two lowest bits are reserved; a pointer into the header ends the list.
        let Some(here) = u16::try_from(at & 0xfc)
            .ok()
            .filter(|at| *at >= spec::PCI_FIRST_CAPABILITY)
        else {
            break;
        };
        let [id, next, len, kind] = host.config_read(here, Width::Four)?.to_le_bytes();
        at = next.into();
        if id != spec::PCI_CAP_VENDOR || len < cap::LEN {
            continue;
        }
        let [bar, ..] = host
            .config_read(here + cap::BAR, Width::Four)?
            .to_le_bytes();
        // Reserved BAR values must be ignored.
        let Some(bar) = Bar::new(bar) else {
            continue;
        };
        let location = Location {
            bar,
            offset: host.config_read(here + cap::OFFSET, Width::Four)?,
            len: host.config_read(here + cap::LENGTH, Width::Four)?,
        };
        match kind {
            cap::COMMON => found.common = found.common.or(Some(location)),
            cap::NOTIFY if len >= cap::NOTIFY_LEN && found.notify.is_none() => {
                let multiplier = host.config_read(here + cap::MULTIPLIER, Width::Four)?;
                found.notify = Some((location, multiplier));
            }
            cap::ISR => found.isr = found.isr.or(Some(location)),
            cap::DEVICE => found.device = found.device.or(Some(location)),
            _ => {}
        }
    }
    Ok(found)
}

/// The BARs mapped so far: structures mostly share one.
struct Bars<M>(Vec<(Bar, Rc<M>)>);

impl<M: Mmio> Bars<M> {
    fn open<H: DriverHost<Mmio = M>>(
        &mut self,
        host: &mut H,
        at: Location,
        least: u32,
        align: u32,
    ) -> Result<Structure<M>, DriverError> {
        let mapped = self.0.iter().find(|(bar, _)| *bar == at.bar);
        let mmio = match mapped {
            Some((_, mmio)) => Rc::clone(mmio),
            None => {
                let mmio = Rc::new(host.map_bar(at.bar)?);
                self.0.push((at.bar, Rc::clone(&mmio)));
                mmio
            }
        };
        let inside = at
            .offset
            .checked_add(at.len)
            .is_some_and(|end| u64::from(end) <= mmio.len());
        if !inside {
            return Err(DriverError::Protocol("a structure lies outside its BAR"));
        }
        if at.len < least || !at.offset.is_multiple_of(align) {
            return Err(DriverError::Protocol("a structure is short or misaligned"));
        }
        Ok(Structure {
            mmio,
            offset: at.offset,
            len: at.len,
        })
    }
}
