//! Who owns which frame of the machine's memory: one table, the same in every placement.
//!
//! Placements differ in what a domain *maps*, never in what it owns, so a corrupted byte has the
//! same victim everywhere.

use cofferdam_seam::SplitMix64;
use core::fmt;
use core::ops::Range;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes in a frame, and in a page of every domain and IOMMU here.
pub const FRAME: u64 = 4096;

/// The owner of a frame.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The hypervisor, where there is one; its frames exist in every placement.
    Hypervisor,
    /// The kernel or root OS.
    Kernel,
    /// The domain that runs the driver.
    Driver,
    /// The first tenant, on the driver's CPU.
    Tenant1,
    /// The second tenant, on the other CPU.
    Tenant2,
    /// Nobody.
    Free,
    /// A tenant that was started in mid-trial. No frame of the map is its own: it gets one that another
    /// tenant gave back.
    Newcomer,
}

impl Owner {
    /// Every owner of frames of the map, in address order.
    pub const ALL: [Self; 6] = [
        Self::Hypervisor,
        Self::Kernel,
        Self::Driver,
        Self::Tenant1,
        Self::Tenant2,
        Self::Free,
    ];

    /// The name used in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hypervisor => "hypervisor",
            Self::Kernel => "kernel",
            Self::Driver => "driver",
            Self::Tenant1 => "tenant1",
            Self::Tenant2 => "tenant2",
            Self::Free => "free",
            Self::Newcomer => "newcomer",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Holds the owner's pattern and is never written by anybody honest: a wild write shows.
    Pattern,
    /// Event words of the domain that serves tenants: tenants and hardware set bits there.
    Events,
    /// The driver's DMA memory.
    DmaPool,
    /// Slots through which the privileged layer copies what does not fill its pages, for the
    /// driver's device. Nobody's data are there but while a transfer is under way.
    Bounce,
    /// A tenant's request ring and its data pages, shared with the layer that serves it.
    Ring,
    /// The driver's side of that tenant's requests where somebody stands between the two: the
    /// message buffer of a driver server, or a VMM's call ring.
    Messages(u8),
}

/// A run of frames of one owner and use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First frame.
    pub first: u64,
    /// Frames.
    pub count: u64,
    /// The owner.
    pub owner: Owner,
    /// What they are for.
    pub purpose: Use,
}

impl Run {
    /// The physical addresses of the run.
    pub const fn bytes(&self) -> Range<u64> {
        self.first * FRAME..(self.first + self.count) * FRAME
    }
}

const fn run(first: u64, count: u64, owner: Owner, purpose: Use) -> Run {
    Run {
        first,
        count,
        owner,
        purpose,
    }
}

/// The frame map: 2 MiB, every frame named.
pub const MAP: [Run; 13] = [
    run(0, 64, Owner::Hypervisor, Use::Pattern),
    run(64, 64, Owner::Kernel, Use::Pattern),
    run(128, 16, Owner::Driver, Use::Pattern),
    run(144, 1, Owner::Driver, Use::Events),
    run(145, 8, Owner::Driver, Use::Messages(1)),
    run(153, 8, Owner::Driver, Use::Messages(2)),
    run(161, 95, Owner::Driver, Use::DmaPool),
    run(256, 16, Owner::Driver, Use::Bounce),
    run(272, 56, Owner::Tenant1, Use::Pattern),
    run(328, 8, Owner::Tenant1, Use::Ring),
    run(336, 56, Owner::Tenant2, Use::Pattern),
    run(392, 8, Owner::Tenant2, Use::Ring),
    run(400, 112, Owner::Free, Use::Pattern),
];

/// Bytes of memory in the machine.
pub const MEMORY: u64 = 512 * FRAME;

/// Where the driver's DMA memory answers on a machine that has it above 4 GiB: so that an address
/// without its upper half is one of the first tenant's.
pub const HIGH_BANK: u64 = (1 << 32) + 272 * FRAME;

/// The address at which a bus finds a frame of the driver's DMA memory in the high bank, or anything
/// else where it is.
pub(crate) fn into_high_bank(phys: u64) -> u64 {
    match run_of(Owner::Driver, Use::DmaPool) {
        Some(pool) if pool.bytes().contains(&phys) => phys - pool.bytes().start + HIGH_BANK,
        _ => phys,
    }
}

/// The address in the frame map of what a bus finds at `bus` where the high bank answers.
pub(crate) fn out_of_high_bank(bus: u64) -> u64 {
    let pool = run_of(Owner::Driver, Use::DmaPool);
    let pool = pool.map_or(0..0, |pool| pool.bytes());
    match bus.checked_sub(HIGH_BANK) {
        Some(offset) if offset < pool.end - pool.start => pool.start + offset,
        _ => bus,
    }
}

/// The run that holds a physical address, if memory answers there.
pub fn run_at(phys: u64) -> Option<&'static Run> {
    MAP.iter().find(|run| run.bytes().contains(&phys))
}

/// The owner of a physical address.
pub fn owner_at(phys: u64) -> Option<Owner> {
    run_at(phys).map(|run| run.owner)
}

/// The run of that owner and use, if the map has one.
pub fn run_of(owner: Owner, purpose: Use) -> Option<&'static Run> {
    MAP.iter()
        .find(|run| run.owner == owner && run.purpose == purpose)
}

/// The eight pattern bytes at `phys` (a multiple of eight): owner and address, mixed, so that a
/// copy of one frame over another shows as well as a constant does.
pub const fn pattern(owner: Owner, phys: u64) -> u64 {
    // A bijection, so no two addresses of one owner share a word.
    SplitMix64::mix(phys ^ ((owner as u64 + 1) << 56))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_names_every_frame_once() {
        let mut next = 0;
        for run in &MAP {
            assert_eq!(run.first, next);
            next += run.count;
        }
        assert_eq!(next * FRAME, MEMORY);
    }

    #[test]
    fn high_bank_is_the_dma_pool_and_truncates_into_the_first_tenant() {
        let pool = run_of(Owner::Driver, Use::DmaPool).unwrap().bytes();
        for phys in [pool.start, pool.start + 5, pool.end - 1] {
            assert_eq!(out_of_high_bank(into_high_bank(phys)), phys);
        }
        assert_eq!(into_high_bank(pool.end), pool.end);
        assert_eq!(owner_at(HIGH_BANK & 0xffff_ffff), Some(Owner::Tenant1));
    }

    #[test]
    fn every_owner_has_pattern_frames() {
        for owner in Owner::ALL {
            assert!(run_of(owner, Use::Pattern).is_some(), "{owner}");
        }
    }
}
