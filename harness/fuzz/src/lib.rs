//! Fuzzing drivers from the device side.
//!
//! An input is a typed [`program`]: what the workload asks of the driver, and what the device does
//! about it. The [`executor`] runs it: a fresh [`world`] around an honest device model that the program
//! tampers with (or around no model at all), the driver on a stack of its own, and the [`oracle`]s
//! that watch both. What they notice becomes a [`finding`]: minimised, named by where in the driver
//! it happens, and written so that it survives the process.
//!
//! A driver joins by a [`target`]: some fifty lines. Generators ([`generate`]) and mutators ([`mutate`])
//! know the types of a program and what the driver reads; which program is tried next is the business of an
//! engine, and this crate knows none.
//!
//! It models one PCI function with memory BARs, an IOMMU that is exact to the byte, and one CPU.
//! Left out: what the `machine` crate models of fabrics, timeouts and other functions, and drivers
//! with threads of their own. It trusts the device model and the adapter; neither the driver nor the
//! program. A wild access of the driver that the processor reports is a finding, and the driver is
//! left where it stands; a wild store that reaches the harness ends the process, which a campaign
//! survives.

//! # What an execution costs
//!
//! `cofferdam fuzz-bench`, 300,000 executions of each kind, three runs, all oracles but AddressSanitizer, one
//! core of a virtual machine (Intel Xeon) with other load; medians.
//!
//! | target | without LibAFL, a second | with LibAFL, a second |
//! |---|---|---|
//! | virtio-blk | 62,200 | 58,500 |
//! | virtio-net | 112,800 | 113,100 |
//! | virtio-blk-pci | 27,100 | 25,800 |
//! | virtio-net-pci | 32,700 | 23,000 |
//!
//! Since then waits that go round are left early, and counters and callbacks cost less. By the CPU time of
//! 300,000 executions without LibAFL, findings included, better of two on a loaded host, a second, before and
//! after: virtio-blk 56,900 and 69,800, virtio-net 102,500 and 146,000, nvme-driver 32,700 and 36,400, edu
//! 166,300 and 186,900. eth-intel's campaigns went different ways (21,700 and 18,500); of its honest workload it
//! was 29,900 and 33,500.
//!
//! Of virtio-blk (virtio-net) before that, by `perf record`: the driver and its adapter take 23% (22%) of the time, what the
//! compiler added to them 13% (15%), the world, its host and the stack switch 23% (24%), the ledger and the
//! other oracles 7% (4%), the device model 8% (7%), copies and the heap 12% (12%), coverage 7% (4%), mutation
//! 3% (5%), LibAFL nothing that shows. A block workload makes more requests in an execution than a net one.

#![deny(unsafe_code)]

pub mod answers;
pub mod arena;
pub mod campaign;
mod coroutine;
pub mod elsewhere;
pub mod executor;
mod fault;
pub mod finding;
pub mod frames;
pub mod generate;
pub mod host;
mod lies;
mod memory;
pub mod minimize;
pub mod mutate;
pub mod oracle;
pub mod program;
pub mod random;
mod sanitized;
mod script;
pub mod served;
pub mod target;
pub mod trace;
mod watch;
pub mod witness;
pub mod world;
