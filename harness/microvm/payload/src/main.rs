//! What runs inside a micro-VM: one driver, and the loop that calls it; or a tenant.
//!
//! The drivers are the same crates as everywhere else; the payload is the host under them and the
//! service over them. It trusts the VMM, which is its only way to anything. A driver may do with this guest
//! whatever it likes: what the guest says is nobody's trusted input.
//!
//! Built for the ordinary target, without the standard library and without unwinding: a panic, an
//! exception or a loop ends the guest, and the VMM says which it was.

#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod bytes;
#[cfg(feature = "fuzz")]
mod coverage;
#[cfg(feature = "fuzz")]
mod fuzz;
#[cfg_attr(feature = "fuzz", path = "arena.rs")]
mod heap;
mod sabotage;
mod tenant;
mod virtio;

use alloc::boxed::Box;
use cofferdam_microvm_abi::page::{FROM_GUEST, TO_GUEST};
use cofferdam_microvm_abi::{Call, Driver, failure, refusal};
use cofferdam_microvm_runtime::host::GuestHost;
use cofferdam_microvm_runtime::page;
use cofferdam_seam::service::{Block, Compute, DriverError};
use cofferdam_seam::{Deadline, HostError, Time};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use virtio::PciBlk;

/// The driver that was probed last.
enum Loaded {
    Disk(Box<dyn Block>),
    Computer(Box<dyn Compute>),
    #[cfg(feature = "fuzz")]
    Fuzzed(fuzz::Fuzzed),
}

/// Runs at level 3, on the driver's stack, for ever.
extern "C" fn main() -> ! {
    heap::start();
    let mut loaded = None;
    loop {
        page::next();
        let result = Call::of(page::word(TO_GUEST))
            .ok_or(DriverError::BadRequest("unknown call"))
            .and_then(|call| carry_out(call, &mut loaded));
        match result {
            Ok(value) => {
                page::set_word(FROM_GUEST, 0);
                page::set_word(FROM_GUEST + 8, value);
            }
            Err(error) => fail(error),
        }
    }
}

/// Makes a call; its result.
fn carry_out(call: Call, loaded: &mut Option<Loaded>) -> Result<u64, DriverError> {
    let argument = |nth: u64| page::word(TO_GUEST + 8 * nth);
    let until = |nth| Deadline(Time(argument(nth)));
    match call {
        Call::Probe => {
            *loaded = None;
            let driver =
                Driver::of(argument(1)).ok_or(DriverError::BadRequest("unknown driver"))?;
            let driver = probe(driver)?;
            let size = match &driver {
                Loaded::Disk(disk) => disk.capacity(),
                Loaded::Computer(computer) => computer.round_trip_limit() as u64,
                #[cfg(feature = "fuzz")]
                Loaded::Fuzzed(_) => 0,
            };
            *loaded = Some(driver);
            Ok(size)
        }
        Call::Read => {
            disk(loaded)?.read(argument(1), page::data(argument(2)), until(3))?;
            Ok(0)
        }
        Call::Write => {
            disk(loaded)?.write(argument(1), page::data(argument(2)), until(3))?;
            Ok(0)
        }
        Call::Factorial => {
            let n = u32::try_from(argument(1));
            let n = n.map_err(|_| DriverError::BadRequest("n is beyond 32 bits"))?;
            Ok(computer(loaded)?.factorial(n, until(2))?.into())
        }
        Call::RoundTrip => {
            let data = page::data(argument(1));
            let out = Box::<[u8]>::from(&*data);
            computer(loaded)?.round_trip(&out, data, until(2))?;
            Ok(0)
        }
        Call::Remove => {
            *loaded = None;
            Ok(0)
        }
        Call::Store => {
            sabotage::store(argument(1), argument(2), argument(3));
            Ok(0)
        }
        Call::Plant => {
            sabotage::plant(argument(1), page::data(argument(2)));
            Ok(0)
        }
        Call::Lock => {
            sabotage::lock(argument(1) != 0, argument(2));
            Ok(0)
        }
        Call::Tenant => tenant::live(core::array::from_fn(|nth| argument(1 + nth as u64))),
        Call::Crash => panic!("planned death"),
        Call::Spin => sabotage::spin(),
        Call::Overflow => Ok(sabotage::overflow(argument(1))),
        Call::Exhaust => sabotage::exhaust(),
        Call::Nop => Ok(0),
        #[cfg(feature = "fuzz")]
        Call::ProbePlanted | Call::AskPlanted | Call::Operate => fuzz::carry_out(call, loaded),
        #[cfg(not(feature = "fuzz"))]
        Call::ProbePlanted | Call::AskPlanted | Call::Operate => Err(NOT_FUZZED),
    }
}

/// What only a payload for fuzzing has.
#[cfg(not(feature = "fuzz"))]
const NOT_FUZZED: DriverError = DriverError::BadRequest("this payload is not for fuzzing");

#[cfg(not(feature = "fuzz"))]
fn probe(driver: Driver) -> Result<Loaded, DriverError> {
    Ok(match driver {
        Driver::Edu => Loaded::Computer(Box::new(driver_edu::Edu::probe(GuestHost)?)),
        Driver::Nvme => Loaded::Disk(Box::new(driver_nvme::Nvme::probe(GuestHost)?)),
        Driver::VirtioBlk => Loaded::Disk(Box::new(PciBlk::probe(GuestHost)?)),
        Driver::VirtioBlkPci | Driver::VirtioBlkMmio => return Err(NOT_FUZZED),
    })
}

#[cfg(feature = "fuzz")]
fn probe(driver: Driver) -> Result<Loaded, DriverError> {
    Ok(match driver {
        Driver::Edu => Loaded::Computer(cofferdam_microvm_fuzzed::edu()?),
        Driver::Nvme => Loaded::Disk(cofferdam_microvm_fuzzed::nvme()?),
        Driver::VirtioBlk => Loaded::Disk(Box::new(PciBlk::probe(GuestHost)?)),
        Driver::VirtioBlkPci | Driver::VirtioBlkMmio => Loaded::Fuzzed(fuzz::disk(driver)?),
    })
}

fn disk(loaded: &mut Option<Loaded>) -> Result<&mut dyn Block, DriverError> {
    match loaded {
        Some(Loaded::Disk(disk)) => Ok(&mut **disk),
        _ => Err(DriverError::BadRequest("no disk is driven here")),
    }
}

fn computer(loaded: &mut Option<Loaded>) -> Result<&mut dyn Compute, DriverError> {
    match loaded {
        Some(Loaded::Computer(computer)) => Ok(&mut **computer),
        _ => Err(DriverError::BadRequest(
            "nothing that computes is driven here",
        )),
    }
}

/// Leaves an error as a call's result.
fn fail(error: DriverError) {
    let (code, reason) = match error {
        DriverError::TimedOut(reason) => (failure::TIMED_OUT, reason),
        DriverError::Unsupported(reason) => (failure::UNSUPPORTED, reason),
        DriverError::Protocol(reason) => (failure::PROTOCOL, reason),
        DriverError::BadRequest(reason) => (failure::BAD_REQUEST, reason),
        DriverError::Io => (failure::IO, ""),
        DriverError::Host(error) => {
            let (code, values) = match error {
                HostError::NoSuchBar(bar) => (refusal::NO_SUCH_BAR, [bar, 0, 0]),
                HostError::OutOfMemory(len) => (refusal::OUT_OF_MEMORY, [len, 0, 0]),
                HostError::OutOfRegion { start, end, len } => {
                    (refusal::OUT_OF_REGION, [start, end, len])
                }
                HostError::Refused => (refusal::REFUSED, [0; 3]),
                HostError::NoVectors(wanted) => (refusal::NO_VECTORS, [wanted.into(), 0, 0]),
                HostError::Stopped => (refusal::STOPPED, [0; 3]),
                HostError::Infrastructure(code) => (refusal::INFRASTRUCTURE, [code as usize, 0, 0]),
            };
            for (at, value) in (1..).zip(values) {
                page::set_word(FROM_GUEST + 8 * at, value as u64);
            }
            (failure::HOST + code, "")
        }
    };
    // Whoever gives none has said it already.
    if !reason.is_empty() {
        page::set_text(reason.as_bytes());
    }
    page::set_word(FROM_GUEST, code);
}

/// A message, as far as it fits.
struct Message {
    bytes: [u8; 512],
    len: usize,
}

/// Leaves in the page what somebody says.
fn say(what: impl fmt::Display) {
    let mut message = Message {
        bytes: [0; 512],
        len: 0,
    };
    // Writing to it cannot fail.
    let _ = write!(message, "{what}");
    page::set_text(&message.bytes[..message.len]);
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = &mut self.bytes[self.len..];
        let len = text.len().min(rest.len());
        rest[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    say(info);
    page::panicked()
}
