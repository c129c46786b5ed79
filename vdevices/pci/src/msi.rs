//! MSI: one address and a run of data values ([1] 6.8.1).

use crate::config_space::{ConfigSpace, Register, register};
use crate::spec::msi;
use cofferdam_seam::{Iova, Vector, Width};

/// Message control's vectors granted, in place.
const ENABLED: u16 = 0b111 << msi::ENABLED_SHIFT;

/// The registers of a function that asks for 2^`log2_vectors` vectors.
pub(crate) fn registers(log2_vectors: u8) -> [Register; 4] {
    let control = msi::WIDE | (u16::from(log2_vectors) << msi::CAPABLE_SHIFT);
    [
        register(
            msi::CONTROL,
            Width::Two,
            control.into(),
            (msi::ENABLE | ENABLED).into(),
        ),
        register(msi::ADDRESS, Width::Four, 0, !0b11),
        register(msi::ADDRESS_HIGH, Width::Four, 0, !0),
        register(msi::DATA, Width::Two, 0, 0xffff),
    ]
}

/// Whether the capability at `at` is enabled.
pub(crate) fn enabled(space: &ConfigSpace, at: u16) -> bool {
    space.word(at + msi::CONTROL) & msi::ENABLE != 0
}

/// Address and data of the message for `vector`; none if software granted fewer vectors, or more
/// than the function asked for.
pub(crate) fn message(space: &ConfigSpace, at: u16, vector: Vector) -> Option<(Iova, u32)> {
    let control = space.word(at + msi::CONTROL);
    let asked = (control >> msi::CAPABLE_SHIFT) & 0b111;
    let granted = (control >> msi::ENABLED_SHIFT) & 0b111;
    let vectors = 1u16 << granted.min(asked);
    if vector.0 >= vectors {
        return None;
    }
    let low = space.dword(at + msi::ADDRESS);
    let high = space.dword(at + msi::ADDRESS_HIGH);
    // The function may change as many low bits of the data as its vectors need ([1] 6.8.1.6).
    let data = (space.word(at + msi::DATA) & !(vectors - 1)) | vector.0;
    Some((Iova(u64::from(high) << 32 | u64::from(low)), data.into()))
}
