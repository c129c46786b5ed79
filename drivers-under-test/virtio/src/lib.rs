//! Adapter of the unmodified virtio-drivers crate.
