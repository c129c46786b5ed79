//! A tenant's device of its own, an edu: whether a fault of the other device reaches it shows in the
//! register that this side alone has any business with.

use crate::world::World;

/// The liveness register: what is written there reads inverted (edu specification, 0x04).
pub const LIVENESS: u32 = 0x04;

/// How the device was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// As it was left.
    Well,
    /// Somebody else changed it.
    Changed,
    /// It does not answer, or has been reset.
    Lost,
}

/// What its owner knows of it.
#[derive(Debug, Default)]
pub struct Sibling {
    /// What was written last, if anything was.
    left: Option<u32>,
    turns: u32,
}

impl Sibling {
    /// Looks how the device is, and leaves another value there.
    pub fn turn(&mut self, world: &mut impl World) -> Found {
        let value = world.sibling_read(LIVENESS);
        let found = self.judge(value);
        self.turns += 1;
        // Neither it nor its inverse is what a device that is gone or was reset reads as.
        let next = 0x5a00_0000 | (self.turns & 0xffff);
        world.sibling_write(LIVENESS, next);
        self.left = Some(next);
        found
    }

    fn judge(&self, value: u32) -> Found {
        match (self.left, value) {
            (None, 0) => Found::Well,
            (_, 0 | u32::MAX) => Found::Lost,
            (Some(left), value) if value == !left => Found::Well,
            _ => Found::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_judged_by_what_was_left_there() {
        let fresh = Sibling::default();
        assert_eq!(fresh.judge(0), Found::Well);
        assert_eq!(fresh.judge(u32::MAX), Found::Lost);
        let used = Sibling {
            left: Some(0x5a00_0001),
            turns: 1,
        };
        assert_eq!(used.judge(!0x5a00_0001), Found::Well);
        assert_eq!(used.judge(0), Found::Lost);
        assert_eq!(used.judge(u32::MAX), Found::Lost);
        assert_eq!(used.judge(0xee), Found::Changed);
    }
}
