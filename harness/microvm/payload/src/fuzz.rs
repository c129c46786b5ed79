//! The calls of a payload for fuzzing.

use crate::Loaded;
use alloc::boxed::Box;
use alloc::vec::Vec;
use cofferdam_microvm_abi::page::{DATA_MAX, TO_GUEST};
use cofferdam_microvm_abi::{Call, Driver, Planted};
use cofferdam_microvm_fuzzed::{self as fuzzed, Operation, Refusal, Serve};
use cofferdam_microvm_runtime::page;
use cofferdam_seam::service::DriverError;
use cofferdam_seam::{Deadline, Time};

/// The drivers that only are fuzzed.
pub enum Fuzzed {
    Planted(Box<dyn Serve>),
    Disk(Box<dyn fuzzed::Disk>),
}

/// What says why, leaves it in the page.
const SAID: DriverError = DriverError::Protocol("");

/// Puts a disk of virtio-drivers into service.
pub fn disk(driver: Driver) -> Result<Fuzzed, DriverError> {
    let disk = match driver {
        Driver::VirtioBlkMmio => fuzzed::mmio_disk(),
        _ => fuzzed::pci_disk(),
    };
    disk.map(Fuzzed::Disk).map_err(said)
}

fn said(refusal: Refusal) -> DriverError {
    crate::say(refusal);
    SAID
}

/// Makes a call.
pub fn carry_out(call: Call, loaded: &mut Option<Loaded>) -> Result<u64, DriverError> {
    let argument = |nth: u64| page::word(TO_GUEST + 8 * nth);
    if call == Call::ProbePlanted {
        *loaded = None;
        let driver = fuzzed::planted(argument(1), argument(2) != 0)?;
        *loaded = Some(Loaded::Fuzzed(Fuzzed::Planted(driver)));
        return Ok(0);
    }
    match (call, loaded) {
        (Call::AskPlanted, Some(Loaded::Fuzzed(Fuzzed::Planted(driver)))) => {
            let call = Planted::of(argument(1)).ok_or(DriverError::BadRequest("no such call"))?;
            let until = Deadline(Time(argument(5)));
            let (number, bytes) = (argument(2), argument(3).min(DATA_MAX));
            let room = argument(4).min(DATA_MAX - bytes);
            let data = page::data(bytes + room);
            let (from, into) = data.split_at_mut(bytes as usize);
            let from = Vec::from(&*from);
            // On the heap, so that it is known if it is freed too early.
            let mut answer = Vec::from(&*into);
            let len = ask(&mut **driver, (call, number), &from, &mut answer, until)?;
            into.copy_from_slice(&answer);
            Ok(len as u64)
        }
        (Call::Operate, Some(Loaded::Fuzzed(Fuzzed::Disk(disk)))) => {
            let operation = Operation::ALL.get(argument(1) as usize);
            let operation = operation.ok_or(DriverError::BadRequest("no such operation"))?;
            let (sector, sectors) = (argument(2) as usize, argument(3) as usize);
            let shared = page::data(operation.data(sectors) as u64);
            let mut data = Vec::from(&*shared);
            let length = disk.operate(*operation, sector, sectors, &mut data);
            shared.copy_from_slice(&data);
            Ok(length.map_err(said)?.map_or(0, |length| length as u64))
        }
        _ => Err(DriverError::BadRequest("no such driver is loaded")),
    }
}

fn ask(
    driver: &mut dyn Serve,
    (call, number): (Planted, u64),
    from: &[u8],
    into: &mut [u8],
    until: Deadline,
) -> Result<usize, DriverError> {
    use fuzzed::Call as Ask;
    let call = match call {
        Planted::Factorial => Ask::Factorial(number as u32),
        Planted::RoundTrip => Ask::RoundTrip(from),
        Planted::Read => Ask::Read(number),
        Planted::Write => Ask::Write(number, from),
        Planted::Identify => Ask::Identify,
    };
    driver.call(call, into, until)
}
