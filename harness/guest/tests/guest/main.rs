//! Checks in a real Linux guest. One program, so that guests run side by side.

mod across;
mod boot;
mod nvme;
mod plug;
mod reset;
mod served;
mod vfio;
