//! What the device said in an execution that is not true, as far as it bears on who is to blame for what
//! comes of it.

use crate::program::Mode;
use crate::target::Target;
use cofferdam_seam::Purpose;
use std::ops::Range;

/// The lies of one execution so far.
#[derive(Clone, Debug, Default)]
pub struct Lies {
    /// There was one: where the device then goes is not the driver's fault alone.
    any: bool,
    /// One lets the driver believe that more is over than is, or that the device is another: then the
    /// driver may have taken back what the model still uses.
    ahead: bool,
    /// One may have changed what the device reads as the driver's orders: it goes anywhere then.
    astray: bool,
    /// The device kept data back, or changed them.
    withheld: bool,
    /// In this call it said that it wrote less than it did: so much, at least once.
    understated: Option<u64>,
    /// It lied in another way, which may let the driver think that data were sent.
    misled: bool,
    /// Where a completion says how much was written.
    written: Option<Range<usize>>,
}

impl Lies {
    /// None yet. A hostile device sends what it likes from the start.
    pub fn none(target: &dyn Target, mode: Mode) -> Self {
        Self {
            misled: mode == Mode::Hostile,
            written: target.written(),
            ..Self::default()
        }
    }

    /// A call of the workload begins.
    pub fn enter(&mut self) {
        self.understated = None;
    }

    /// A register, or configuration space, answers what the model did not.
    pub fn answered(&mut self) {
        self.any = true;
        self.misled = true;
        self.ahead = true;
    }

    /// Memory changes that the driver shares with the device.
    pub fn poked(&mut self) {
        self.answered();
        self.astray = true;
    }

    /// Whether to say `said` there in a completion may make the driver take another request for over:
    /// one that lies about its length only comes when its own is.
    pub fn names_another(&self, said: &Range<usize>) -> bool {
        let length = self.written.clone().unwrap_or_default();
        said.start < length.start || length.end < said.end
    }

    /// A write of the device says something else than the model meant: `said`, unless it is dropped or
    /// repeated elsewhere. Ahead if it may let the driver believe that more is over than is.
    pub fn wrote(
        &mut self,
        why: Purpose,
        honest: &[u8],
        said: Option<&[u8]>,
        ahead: bool,
        repeated: bool,
    ) {
        self.any = true;
        self.ahead |= ahead;
        self.astray |= repeated || why == Purpose::Descriptor;
        match (why, said) {
            (Purpose::Payload, _) => self.withheld = true,
            (Purpose::Completion, Some(said)) => match self.understatement(honest, said) {
                Some(less) => {
                    let least = self.understated.map_or(less, |known| known.min(less));
                    self.understated = Some(least);
                }
                None => self.misled = true,
            },
            _ => self.misled = true,
        }
    }

    /// The length that a completion says, if that is all that is wrong with it, and it is too small.
    fn understatement(&self, honest: &[u8], said: &[u8]) -> Option<u64> {
        let written = self.written.clone()?;
        let length = |entry: &[u8]| {
            let mut wide = [0; 8];
            let bytes = entry.get(written.clone())?;
            wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(u64::from_le_bytes(wide))
        };
        let mut apart = honest.iter().zip(said).enumerate();
        let only = apart.all(|(at, (one, other))| one == other || written.contains(&at));
        let less = length(said)?;
        (only && less < length(honest)?).then_some(less)
    }

    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether a request that the driver does not sanction is the device's own doing: to a place that
    /// was mapped `once`, or anywhere.
    pub fn excuse(&self, once: impl FnOnce() -> bool) -> bool {
        self.astray || self.ahead && once()
    }

    /// Whether a driver that returns `len` bytes, some of which are missing, should have known: it was
    /// told of fewer, or nobody told it that they were sent.
    pub fn leave_blame_for_missing(&self, len: usize) -> bool {
        let told = self.understated.is_some_and(|said| said < len as u64);
        !self.misled && (!self.withheld || told)
    }
}
