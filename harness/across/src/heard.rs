//! A host that writes down what its driver does to the device.

use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, Interrupts, Mapping, Mmio, RawDma, Time,
    Vector, Wake, Width,
};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;

/// Accesses that are kept; a driver that makes more is not followed further.
const KEPT: usize = 65_536;

/// What a driver did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read a register.
    Read(usize, u32, Width),
    /// Wrote a register.
    Write(usize, u32, Width),
    /// Read configuration space.
    ConfigRead(u16, Width),
    /// Wrote configuration space.
    ConfigWrite(u16, Width),
    /// Was asked for something, which ended so.
    Call(String),
}

/// An access, and the value it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The access.
    pub access: Access,
    /// The value.
    pub value: u64,
    /// Where in which mapping the value points, if it may be an address: the mapping's number in the
    /// order they were made, and bytes from its start.
    pub points: Option<(u64, u64)>,
}

impl Heard {
    /// Whether another backend's is the same: by value, or by what the value points to.
    pub fn same_as(&self, other: &Self) -> bool {
        let points = self.points.is_some() && self.points == other.points;
        self.access == other.access && (self.value == other.value || points)
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = |width: &Width| width.bytes() * 8;
        match &self.access {
            Access::Read(bar, at, width) => {
                write!(f, "read {} bits at {bar}:{at:#x} = ", bits(width))?;
            }
            Access::Write(bar, at, width) => {
                write!(f, "write {} bits at {bar}:{at:#x} = ", bits(width))?;
            }
            Access::ConfigRead(at, width) => {
                write!(
                    f,
                    "read {} bits of configuration at {at:#x} = ",
                    bits(width)
                )?;
            }
            Access::ConfigWrite(at, width) => {
                write!(
                    f,
                    "write {} bits of configuration at {at:#x} = ",
                    bits(width)
                )?;
            }
            Access::Call(how) => return f.write_str(how),
        }
        match self.points {
            Some((mapping, offset)) => write!(f, "{:#x} (m{mapping}+{offset:#x})", self.value),
            None => write!(f, "{:#x}", self.value),
        }
    }
}

/// What was heard so far, and the mappings there were.
#[derive(Default)]
pub struct Record {
    heard: Vec<Heard>,
    maps: Vec<Range<u64>>,
}

impl Record {
    /// Takes what was heard.
    pub fn take(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// Writes down how a call ended.
    pub fn call(&mut self, how: String) {
        self.add(Access::Call(how), 0, None);
    }

    fn add(&mut self, access: Access, value: u64, points: Option<(u64, u64)>) {
        if let Some(last) = self.heard.last_mut()
            && matches!(access, Access::Read(..) | Access::ConfigRead(..))
            && last.access == access
        {
            last.value = value;
            return;
        }
        if self.heard.len() < KEPT {
            self.heard.push(Heard {
                access,
                value,
                points,
            });
        }
    }

    /// Where a value points, whole or as the low half of an address. The latest mapping counts.
    fn points(&self, value: u64, width: Width) -> Option<(u64, u64)> {
        let whole = |address: u64| match width {
            Width::Eight => address,
            _ => address & 0xffff_ffff,
        };
        let place = self.maps.iter().rposition(|map| {
            let start = whole(map.start);
            (start..start.saturating_add(map.end - map.start)).contains(&value)
        })?;
        let start = whole(self.maps.get(place)?.start);
        Some((place as u64, value - start))
    }
}

/// A host with an ear.
pub struct Listening<H> {
    inner: H,
    record: Rc<RefCell<Record>>,
}

impl<H> Listening<H> {
    /// Listens to the driver of that host.
    pub fn to(inner: H, record: &Rc<RefCell<Record>>) -> Self {
        let record = Rc::clone(record);
        Self { inner, record }
    }
}

/// A BAR with an ear.
pub struct ListeningMmio<M> {
    inner: M,
    bar: Bar,
    record: Rc<RefCell<Record>>,
}

impl<M: Mmio> Mmio for ListeningMmio<M> {
    fn read(&self, offset: u32, width: Width) -> u64 {
        let value = self.inner.read(offset, width);
        let access = Access::Read(self.bar.index(), offset, width);
        self.record.borrow_mut().add(access, value, None);
        value
    }

    fn write(&self, offset: u32, width: Width, value: u64) {
        let mut record = self.record.borrow_mut();
        let points = record.points(value, width);
        let access = Access::Write(self.bar.index(), offset, width);
        record.add(access, value, points);
        drop(record);
        self.inner.write(offset, width, value);
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl<H: DriverHost> DriverHost for Listening<H> {
    type Mmio = ListeningMmio<H::Mmio>;
    type Dma = H::Dma;

    fn map_bar(&mut self, bar: Bar) -> Result<Self::Mmio, HostError> {
        let inner = self.inner.map_bar(bar)?;
        let record = Rc::clone(&self.record);
        Ok(ListeningMmio { inner, bar, record })
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        let value = self.inner.config_read(offset, width)?;
        let access = Access::ConfigRead(offset, width);
        self.record.borrow_mut().add(access, value.into(), None);
        Ok(value)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        let access = Access::ConfigWrite(offset, width);
        self.record.borrow_mut().add(access, value.into(), None);
        self.inner.config_write(offset, width, value)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.inner.set_bus_master(on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        self.inner.enable_interrupts(wanted)
    }

    fn alloc_dma(&mut self, len: usize) -> Result<H::Dma, HostError> {
        self.inner.alloc_dma(len)
    }

    fn map(
        &mut self,
        region: &H::Dma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let mapping = self.inner.map(region, bytes, way)?;
        let start = mapping.iova.0;
        let end = start.saturating_add(mapping.len as u64);
        self.record.borrow_mut().maps.push(start..end);
        Ok(mapping)
    }

    fn dma_alignment(&self) -> usize {
        self.inner.dma_alignment()
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.inner.unmap(mapping);
    }

    fn wait_any(&mut self, vectors: &[Vector], until: Deadline) -> Result<Wake, HostError> {
        self.inner.wait_any(vectors, until)
    }

    fn relax(&mut self) -> Result<(), HostError> {
        self.inner.relax()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }
}

impl<H: RawDma> RawDma for Listening<H> {
    fn pointer(&self, region: &H::Dma) -> NonNull<u8> {
        self.inner.pointer(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(value: u64, points: Option<(u64, u64)>) -> Heard {
        Heard {
            access: Access::Write(0, 0x28, Width::Eight),
            value,
            points,
        }
    }

    #[test]
    fn addresses_are_the_same_if_they_point_to_the_same() {
        let here = heard(0x1000, Some((2, 0x40)));

        assert!(here.same_as(&heard(0x9000, Some((2, 0x40)))));
        assert!(here.same_as(&heard(0x1000, None)));
        assert!(!here.same_as(&heard(0x9000, Some((2, 0x44)))));
        assert!(!heard(1, None).same_as(&heard(2, None)));
    }

    #[test]
    fn low_half_of_an_address_points_where_the_whole_does() {
        let record = Record {
            maps: std::iter::once(0x1_0000_2000..0x1_0000_3000).collect(),
            ..Record::default()
        };

        assert_eq!(record.points(0x1_0000_2010, Width::Eight), Some((0, 0x10)));
        assert_eq!(record.points(0x2010, Width::Four), Some((0, 0x10)));
        assert_eq!(record.points(0x2010, Width::Eight), None);
    }

    #[test]
    fn register_that_is_polled_counts_once() {
        let mut record = Record::default();
        for value in [1, 1, 3] {
            record.add(Access::Read(0, 0x1c, Width::Four), value, None);
        }

        let heard = record.take();

        assert_eq!((heard.len(), heard[0].value), (1, 3));
    }
}
