//! MSI-X: a table of messages and an array of pending bits, both in a BAR ([1] 6.8.2).

use crate::config_space::{ConfigSpace, Register, register};
use crate::spec::{self, msix};
use cofferdam_seam::{Access, Bar, Iova, MsixLocation, PciIdentity, Vector, VectorSet, Width};

/// Bytes of the pending bits of up to 64 vectors: one quadword.
const PBA_BYTES: u32 = 8;

/// The registers of a function with that table.
pub(crate) fn registers(vectors: u16, table: MsixLocation, pba: MsixLocation) -> [Register; 3] {
    assert!(
        (1..=64).contains(&vectors),
        "an MSI-X table of {vectors} entries, not 1 to 64"
    );
    let place = |location: MsixLocation| {
        assert!(
            location.offset.is_multiple_of(8),
            "MSI-X structure at {:#x}, not a multiple of 8",
            location.offset
        );
        let index = (spec::BARS[location.bar.index()] - spec::BARS[0]) / 4;
        location.offset | u32::from(index)
    };
    [
        register(
            msix::CONTROL,
            Width::Two,
            (vectors - 1).into(),
            (msix::ENABLE | msix::FUNCTION_MASK).into(),
        ),
        register(msix::TABLE, Width::Four, place(table), 0),
        register(msix::PBA, Width::Four, place(pba), 0),
    ]
}

/// What software has set in message control.
#[derive(Clone, Copy, Default)]
pub(crate) struct Control {
    /// MSI-X enable.
    pub enabled: bool,
    /// Function mask.
    masked: bool,
}

impl Control {
    /// The control of the capability at `at`.
    pub fn of(space: &ConfigSpace, at: u16) -> Self {
        let control = space.word(at + msix::CONTROL);
        Self {
            enabled: control & msix::ENABLE != 0,
            masked: control & msix::FUNCTION_MASK != 0,
        }
    }
}

/// A place the PCI layer decodes inside one of the device's BARs.
#[derive(Clone, Copy)]
struct Window {
    bar: Bar,
    start: u32,
    bytes: u32,
}

impl Window {
    fn new(at: MsixLocation, bytes: u32, identity: &PciIdentity) -> Self {
        let size = identity.bars.iter().find(|bar| bar.bar == at.bar);
        assert!(
            size.is_some_and(|bar| u64::from(at.offset) + u64::from(bytes) <= bar.size),
            "MSI-X structure at {:#x} of BAR {} lies outside it",
            at.offset,
            at.bar.index()
        );
        Self {
            bar: at.bar,
            start: at.offset,
            bytes,
        }
    }

    /// Bytes from the window's start, if the access goes into it. Window and access are aligned
    /// to eight bytes and to the width, so an access never straddles the edge.
    fn position(&self, at: Access) -> Option<u32> {
        let position = at.offset().wrapping_sub(self.start);
        (at.bar() == self.bar && position < self.bytes).then_some(position)
    }
}

/// One entry: address, address high, data, vector control.
type Entry = [u32; 4];

/// After reset every vector is masked ([1] 6.8.2.9).
const RESET: Entry = [0, 0, 0, msix::MASKED];
/// Bits of an entry that software may change.
const WRITABLE: Entry = [!0b11, !0, !0, msix::MASKED];

/// The table and the pending bits.
pub(crate) struct Msix {
    table: Window,
    pba: Window,
    entries: Vec<Entry>,
    pending: VectorSet,
}

impl Msix {
    /// Structures of that size at those places.
    pub fn new(
        identity: &PciIdentity,
        vectors: u16,
        table: MsixLocation,
        pba: MsixLocation,
    ) -> Self {
        Self {
            table: Window::new(table, u32::from(vectors) * msix::ENTRY, identity),
            pba: Window::new(pba, PBA_BYTES, identity),
            entries: vec![RESET; usize::from(vectors)],
            pending: VectorSet::EMPTY,
        }
    }

    /// All masked, nothing pending.
    pub fn reset(&mut self) {
        self.entries.fill(RESET);
        self.pending = VectorSet::EMPTY;
    }

    /// The value, if the access goes to the table or the pending bits.
    #[inline]
    pub fn read(&self, at: Access) -> Option<u64> {
        if let Some(position) = self.table.position(at) {
            let low = self.dword(position);
            let high = self.dword(position + 4);
            return Some(part(low, high, position, at.width()));
        }
        let position = self.pba.position(at)?;
        let bits = self.pending.0;
        Some((bits >> (8 * position)) & at.width().all_ones())
    }

    /// Whether the access was for the table or the pending bits. Software must write whole
    /// doublewords ([1] 6.8.2); narrower writes do nothing.
    #[inline]
    pub fn write(&mut self, at: Access, value: u64) -> bool {
        let Some(position) = self.table.position(at) else {
            return self.pba.position(at).is_some();
        };
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        if at.width() >= Width::Four {
            self.set_dword(position, u32::from_le_bytes([a, b, c, d]));
        }
        if at.width() == Width::Eight {
            self.set_dword(position + 4, u32::from_le_bytes([e, f, g, h]));
        }
        true
    }

    fn dword(&self, position: u32) -> u32 {
        let entry = self.entries.get((position / msix::ENTRY) as usize);
        entry.map_or(0, |entry| entry[(position / 4 % 4) as usize])
    }

    fn set_dword(&mut self, position: u32, value: u32) {
        let field = (position / 4 % 4) as usize;
        if let Some(entry) = self.entries.get_mut((position / msix::ENTRY) as usize) {
            entry[field] = value & WRITABLE[field];
        }
    }

    /// Overwrites a double word of every entry.
    pub fn overwrite(&mut self, field: u8, value: u32) {
        for entry in &mut self.entries {
            if let Some(word) = entry.get_mut(usize::from(field)) {
                *word = value;
            }
        }
    }

    /// Notes that `vectors` are to be sent. Those the table does not have are ignored.
    pub fn post(&mut self, vectors: VectorSet) {
        let all = u64::MAX >> (64 - self.entries.len());
        self.pending.insert(VectorSet(vectors.0 & all));
    }

    /// Removes and returns the next message that nothing masks.
    pub fn next_message(&mut self, control: Control) -> Option<(Iova, u32)> {
        if !control.enabled || control.masked {
            return None;
        }
        let vector = self.pending.iter().find(|vector| {
            let entry = self.entries.get(usize::from(vector.0));
            entry.is_some_and(|entry| entry[3] & msix::MASKED == 0)
        })?;
        self.pending.take(VectorSet::of(vector));
        Some(self.message(vector))
    }

    fn message(&self, Vector(index): Vector) -> (Iova, u32) {
        let [low, high, data, _] = self.entries[usize::from(index)];
        (Iova(u64::from(high) << 32 | u64::from(low)), data)
    }
}

/// The bytes an access of `width` at `position` picks out of the doublewords there.
fn part(low: u32, high: u32, position: u32, width: Width) -> u64 {
    let both = u64::from(high) << 32 | u64::from(low);
    (both >> (8 * (position % 4))) & width.all_ones()
}
