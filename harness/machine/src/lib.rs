//! The computer a device is plugged into.

pub mod config;
pub mod frames;
