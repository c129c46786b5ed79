//! The layer that makes a correct driver's world buggy: faults the driver's side commits.
//!
//! It wraps the host, so no driver has a line of it. What concerns mappings (D1, D6) is done where
//! the driver maps; what concerns the driver's own execution (M1, X1, X2) where it takes up a
//! request.

use crate::call::Call;
use crate::link::Link;
use crate::trial::{By, Fault, Target, TrialSpec};
use cofferdam_machine::frames::{FRAME, MEMORY, Use, run_of};
use cofferdam_seam::{
    Bar, Deadline, Direction, DriverHost, HostError, Interrupts, Iova, Mapping, RawDma, Time,
    Vector, Wake, Width,
};
use std::cell::Cell;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// A generator of well-mixed words: SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Mix(pub u64);

impl Mix {
    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound` (which is not 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.word().to_le_bytes())
            .flatten()
            .take(len)
            .collect()
    }
}

/// The physical address a wild access of this trial aims at: in the target owner's pattern frames,
/// a multiple of 64, so that `len` bytes stay inside them; beyond memory for `Unbacked`. `None` for
/// `Neighbour`, which is relative to a mapping.
pub fn aim(target: Target, len: u64, seed: u64) -> Option<u64> {
    let mut mix = Mix(seed ^ 0xa1_4e);
    if target == Target::Unbacked {
        return Some(MEMORY + 0x1000_0000 + mix.below(1024) * FRAME);
    }
    let bytes = run_of(target.owner()?, Use::Pattern)?.bytes();
    let room = (bytes.end - bytes.start).saturating_sub(len) / 64;
    Some(bytes.start + mix.below(room) * 64)
}

/// What the driver's side does wrong in this trial, shared by the host wrapper and the server.
pub struct Sabotage {
    fault: Fault,
    seed: u64,
    link: Rc<Link>,
    /// Only the first incarnation is faulty: a fault strikes once.
    armed: Cell<bool>,
    requests: Cell<u32>,
    mappings: Cell<u32>,
}

/// What the driver does about the request it is about to take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// It serves it.
    Serve,
    /// It gives its device up, resets it and starts over.
    GiveUp,
}

impl Sabotage {
    /// The sabotage of a trial; none unless the driver's side commits its fault.
    pub fn new(spec: &TrialSpec, link: Rc<Link>, first_incarnation: bool) -> Rc<Self> {
        Rc::new(Self {
            fault: spec.fault,
            seed: spec.seed,
            link,
            armed: Cell::new(first_incarnation),
            requests: Cell::new(0),
            mappings: Cell::new(0),
        })
    }

    fn strikes(&self, count: &Cell<u32>, nth: u32) -> bool {
        if !self.armed.get() {
            return false;
        }
        count.set(count.get() + 1);
        let now = count.get() == nth;
        if now {
            self.armed.set(false);
        }
        now
    }

    /// Called before the driver takes up a request.
    pub fn before_request(&self) -> Onward {
        match self.fault {
            Fault::M1 { target, len, nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                self.wild_store(target, len);
            }
            Fault::X1 { nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                panic!("planned crash of the driver before request {nth} (X1)");
            }
            Fault::X2 { raw, ms, nth } if self.strikes(&self.requests, nth) => {
                self.link.call(Call::Mark);
                if raw {
                    loop {
                        std::hint::spin_loop();
                    }
                }
                let until = self.link.deadline(Duration::from_millis(ms.into()));
                while !until.passed(self.link.now()) {
                    self.link.call(Call::Relax);
                }
            }
            Fault::C5 { nth, .. } if self.strikes(&self.requests, nth) => return Onward::GiveUp,
            _ => {}
        }
        Onward::Serve
    }

    /// The driver's CPU stores where it has no business to. If this domain does not map the frame,
    /// the store faults and the domain dies: that is the wall.
    fn wild_store(&self, target: Target, len: u32) {
        let Some(phys) = aim(target, len.into(), self.seed).filter(|phys| *phys < MEMORY) else {
            return;
        };
        let first = self.link.window().pointer(phys);
        for (at, byte) in Mix(self.seed).bytes(len as usize).into_iter().enumerate() {
            // SAFETY: inside the window's reservation: either this domain maps the frame, and no
            // Rust object lives there, or the store faults as meant.
            unsafe { first.add(at).write_volatile(byte) };
        }
    }
}

/// A host whose mappings go wrong once.
pub struct SabotagedHost<H> {
    inner: H,
    sabotage: Rc<Sabotage>,
    /// The mapping that was taken back too early: its own `unmap` has nothing left to do.
    taken_back: Option<u64>,
}

impl<H> SabotagedHost<H> {
    /// Wraps a host.
    pub fn new(inner: H, sabotage: Rc<Sabotage>) -> Self {
        Self {
            inner,
            sabotage,
            taken_back: None,
        }
    }
}

/// Buffers smaller than this are status bytes and headers; the fault wants the data.
const PAYLOAD: usize = 8;

impl<H: DriverHost> DriverHost for SabotagedHost<H> {
    type Mmio = H::Mmio;
    type Dma = H::Dma;

    fn map_bar(&mut self, bar: Bar) -> Result<Self::Mmio, HostError> {
        self.inner.map_bar(bar)
    }

    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, HostError> {
        self.inner.config_read(offset, width)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), HostError> {
        self.inner.config_write(offset, width, value)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), HostError> {
        self.inner.set_bus_master(on)
    }

    fn enable_interrupts(&mut self, wanted: u16) -> Result<Interrupts, HostError> {
        self.inner.enable_interrupts(wanted)
    }

    fn alloc_dma(&mut self, len: usize) -> Result<Self::Dma, HostError> {
        self.inner.alloc_dma(len)
    }

    fn map(
        &mut self,
        region: &Self::Dma,
        bytes: Range<usize>,
        way: Direction,
    ) -> Result<Mapping, HostError> {
        let mapping = self.inner.map(region, bytes, way)?;
        // Rings are mapped both ways or while the driver starts; a request's data one way.
        if way != Direction::FromDevice || mapping.len < PAYLOAD {
            return Ok(mapping);
        }
        match self.sabotage.fault {
            Fault::D1 {
                by: By::Driver,
                target,
                nth,
                ..
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let len = mapping.len as u64;
                let wild =
                    aim(target, len, self.sabotage.seed).map_or(mapping.iova.offset(len), Iova);
                Ok(Mapping {
                    iova: wild,
                    ..mapping
                })
            }
            Fault::D4 {
                by: By::Driver,
                extra,
                nth,
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => Ok(Mapping {
                iova: mapping.iova.offset(extra.into()),
                ..mapping
            }),
            Fault::D6 {
                by: By::Driver,
                nth,
                ..
            } if self.sabotage.strikes(&self.sabotage.mappings, nth) => {
                let Mapping { iova, len, id } = mapping;
                self.inner.unmap(mapping);
                self.taken_back = Some(id);
                Ok(Mapping { iova, len, id })
            }
            _ => Ok(mapping),
        }
    }

    fn unmap(&mut self, mapping: Mapping) {
        if self.taken_back == Some(mapping.id) {
            self.taken_back = None;
        } else {
            self.inner.unmap(mapping);
        }
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

impl<H: RawDma> RawDma for SabotagedHost<H> {
    fn pointer(&self, region: &Self::Dma) -> NonNull<u8> {
        self.inner.pointer(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_machine::frames::owner_at;

    #[test]
    fn wild_accesses_aim_at_the_class_they_name() {
        for seed in 0..200 {
            for target in Target::ALL {
                match (aim(target, 4096, seed), target.owner()) {
                    (Some(phys), Some(owner)) => {
                        assert_eq!(owner_at(phys), Some(owner));
                        assert_eq!(owner_at(phys + 4095), Some(owner));
                    }
                    (Some(phys), None) => assert_eq!(owner_at(phys), None),
                    (None, _) => assert_eq!(target, Target::Neighbour),
                }
            }
        }
    }
}
