//! Placements, as the placement crate has them.

use cofferdam_placement::placement::Placement;
use cofferdam_placement::trial::PlacementId;

pub use cofferdam_placement::placement::ALL as PLACEMENTS;

/// The entry of a placement.
pub fn placement(id: PlacementId) -> &'static Placement {
    id.placement()
}

/// The placement of that name.
pub fn placement_named(id: &str) -> Option<PlacementId> {
    PLACEMENTS
        .iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(id))
        .map(|entry| entry.placement)
}
