//! Placements, as the placement crate has them.

use cofferdam_placement::placement::Placement;
use cofferdam_placement::trial::PlacementId;
use std::sync::LazyLock;

/// Every placement, in the order of the report: ours, then those of users' files.
pub static PLACEMENTS: LazyLock<Vec<&'static Placement>> = LazyLock::new(PlacementId::list);

/// The entry of a placement.
pub fn placement(id: PlacementId) -> &'static Placement {
    id.placement()
}

/// The placement of that name.
pub fn placement_named(id: &str) -> Option<PlacementId> {
    PlacementId::named(id)
}
