//! How a request's data get to the device: what ablations vary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who carries a request's data between the tenant's memory and the driver's device.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DataPath {
    /// The server copies them to and from the driver, which has them in DMA memory of its own.
    #[default]
    Copy,
    /// The tenant lends the page they are in: the driver's buffer of the request is backed by it, so
    /// that the device moves them itself.
    ZeroCopy,
}

/// How a driver lays out the buffers it lends its device one by one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// As it likes: side by side, if that is how it was written.
    #[default]
    Packed,
    /// Each on pages that it shares with nothing else.
    OneAPage,
}

impl DataPath {
    /// Every way, the usual one first.
    pub const ALL: [Self; 2] = [Self::Copy, Self::ZeroCopy];

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        }
    }

    /// Whether it is the usual one.
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::Copy)
    }
}

impl Packing {
    /// Every layout, the usual one first.
    pub const ALL: [Self; 2] = [Self::Packed, Self::OneAPage];

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::OneAPage => "one-a-page",
        }
    }

    /// Whether it is the usual one.
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::Packed)
    }
}
