//! What a driver may ask of the world, over different machines.
//!
//! [`mock`] is a machine in this process with a virtual clock: one thread, replayable to the last
//! access, for tests, fuzzing and traces. There is no wall around a driver there: its own stray
//! stores are not caught, only what it makes the device do. [`pool`] hands out DMA memory by
//! physical address, here and wherever else machine memory is mapped. [`vfio`] is a real device
//! behind a real IOMMU, in real time. [`vfio_user`] is a model that somebody else serves. For
//! tests, [`conformance`] has the suites that every driver must pass over every backend, and
//! [`overheard`] prints a device's register accesses.
//!
//! The crate trusts the machine, the kernel and its own caller. It trusts neither driver nor
//! device.

#![deny(unsafe_code)]

pub mod conformance;
pub mod mock;
pub mod overheard;
pub mod pool;
pub mod vfio;
pub mod vfio_user;
