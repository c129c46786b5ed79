//! Which of two twins a driver is.

/// Decides at compile time whether the defective lines are in.
pub(crate) trait Variant {
    /// Whether the defect is there.
    const PLANTED: bool;
}

/// The driver with its defect.
pub(crate) struct Planted;

/// The same driver without it.
pub(crate) struct Fixed;

impl Variant for Planted {
    const PLANTED: bool = true;
}

impl Variant for Fixed {
    const PLANTED: bool = false;
}
