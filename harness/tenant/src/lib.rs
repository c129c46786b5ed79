//! A tenant: the requests it makes, the ring it makes them in, and what it believes of the answers.
//!
//! The same code runs as a process and in a virtual machine of its own: what it may ask of whatever is
//! around it is a [`World`], and the memory it shares with its server is a [`Shared`]. Left out is what a
//! tenant computes for itself. It trusts its own memory and its world, and no answer.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod io;
mod mix;
pub mod ring;
mod sibling;
mod tenant;
mod world;

pub use io::Io;
pub use mix::Mix;
pub use ring::{Ring, Shared};
pub use sibling::LIVENESS;
pub use tenant::{SECTORS, Task, Tenant, first_sector};
pub use world::{Bell, Complaint, World};
