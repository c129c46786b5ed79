//! Checks in a real Linux guest. One program, so that guests run side by side.

mod boot;
mod nvme;
mod served;
mod vfio;
