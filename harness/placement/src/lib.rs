//! Where a driver lives: protection domains, tenants and the supervisor, as processes with real
//! walls.
//!
//! A trial is a set of processes forked by a [`zygote`]: the hardware (the machine and its device),
//! the supervisor, and the domains of a [`placement`]. Each domain maps exactly the frames its
//! placement grants it, is jailed like every other, and shares one page with the hardware
//! (the port page), through which it asks for everything it cannot do by storing to its own memory.
//!
//! Unsafe code is confined to the process layer: mappings, futexes, forks. Nothing a domain stores
//! is believed by anybody else.

mod boundary;
mod bystander;
pub mod call;
mod carrier;
pub mod crossing;
pub mod data;
mod domain;
pub mod fault;
mod futex;
pub mod guest;
mod hardware;
mod host;
pub mod jail;
mod link;
mod loan;
mod lodger;
mod newcomer;
pub mod own;
pub mod placement;
mod port;
mod probe;
mod resident;
mod ring;
mod sabotage;
mod server;
mod shared;
pub mod storm;
mod supervisor;
mod tenant;
mod tenant_guest;
pub mod trace;
pub mod trial;
mod wire;
pub mod zygote;

pub use hardware::lie_alone;
