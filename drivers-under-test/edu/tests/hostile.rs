//! A device that lies: each lie ends in an error within the deadline, and a fresh probe works.

mod scripted;

use cofferdam_seam::HostError;
use cofferdam_seam::service::{Compute, DriverError};
use driver_edu::Edu;
use scripted::{Host, Lie};
use std::time::Duration;

/// Probes a device that lies from the start.
fn probe_of(lie: Lie) -> (DriverError, Host) {
    let host = Host::new();
    host.0.borrow_mut().lie = lie;
    let error = Edu::probe(host.clone()).err().expect("the lie is found");
    assert!(host.0.borrow().lied > 0);
    (error, host)
}

/// Probes an honest device, which then turns to lying, and asks it for a factorial.
fn factorial_of(lie: Lie) -> (Result<u32, DriverError>, Host, Edu<Host>) {
    let host = Host::new();
    let mut edu = Edu::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = lie;
    let until = host.soon();
    let result = edu.factorial(5, until);
    assert!(host.0.borrow().lied > 0);
    assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
    (result, host, edu)
}

/// The same with a round trip.
fn round_trip_of(lie: Lie) -> (DriverError, Host, Edu<Host>) {
    let host = Host::new();
    let mut edu = Edu::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().lie = lie;
    let until = host.soon();
    let error = edu
        .round_trip(&[1; 8], &mut [0; 8], until)
        .expect_err("the lie is found");
    assert!(host.0.borrow().lied > 0);
    assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
    (error, host, edu)
}

#[test]
fn honest_device_serves() {
    let host = Host::new();
    let mut edu = Edu::probe(host.clone()).expect("an honest device");
    let mut back = [0; 4096];

    assert_eq!(edu.factorial(12, host.soon()), Ok(479_001_600));
    assert_eq!(edu.round_trip(&[7; 4096], &mut back, host.soon()), Ok(()));

    assert_eq!(back, [7; 4096]);
    assert_eq!(host.0.borrow().live(), 0, "mapped only while it runs");
}

#[test]
fn another_device_is_refused() {
    let host = Host::new();
    host.0.borrow_mut().pci_id = 0x1042_1af4;
    assert!(matches!(Edu::probe(host), Err(DriverError::Unsupported(_))));
}

#[test]
fn absent_device_is_refused() {
    let host = Host::new();
    host.0.borrow_mut().pci_id = u32::MAX;
    assert!(matches!(Edu::probe(host), Err(DriverError::Unsupported(_))));
}

#[test]
fn small_bar_is_refused() {
    let host = Host::new();
    host.0.borrow_mut().bar = 0x80;
    assert!(matches!(Edu::probe(host), Err(DriverError::Unsupported(_))));
}

#[test]
fn registers_of_all_ones_fail_the_probe() {
    let (error, _) = probe_of(Lie::AllOnes);
    assert!(matches!(error, DriverError::Unsupported(_)));
}

#[test]
fn wrong_identification_fails_the_probe() {
    let (error, _) = probe_of(Lie::Register(0x00, 0x0100_00ee));
    assert!(matches!(error, DriverError::Unsupported(_)));
}

#[test]
fn dead_liveness_register_fails_the_probe() {
    let (error, _) = probe_of(Lie::Register(0x04, 0));
    assert!(matches!(error, DriverError::Protocol(_)));
}

#[test]
fn device_that_is_never_idle_fails_the_probe_in_time() {
    let (error, host) = probe_of(Lie::Register(0x20, 0x01));
    assert!(matches!(error, DriverError::TimedOut(_)));
    assert!(host.0.borrow().now.nanos() < 1_001_000_000);
}

#[test]
fn busy_device_is_waited_for() {
    let host = Host::new();
    host.0.borrow_mut().busy = 20;
    assert!(Edu::probe(host.clone()).is_ok());
    assert_eq!(host.0.borrow().busy, 0);
}

#[test]
fn unfinished_factorial_times_out() {
    let (result, ..) = factorial_of(Lie::NeverDone);
    assert_eq!(result, Err(DriverError::TimedOut("the factorial")));
}

#[test]
fn lost_interrupt_times_out() {
    let (result, ..) = factorial_of(Lie::LosesInterrupts);
    assert_eq!(result, Err(DriverError::TimedOut("the factorial")));
}

#[test]
fn interrupt_storm_ends_at_the_deadline() {
    let (result, ..) = factorial_of(Lie::Storm);
    assert_eq!(result, Err(DriverError::TimedOut("the factorial")));
}

#[test]
fn interrupt_before_the_result_breaks_the_protocol() {
    let (result, ..) = factorial_of(Lie::Register(0x20, 0x81));
    assert!(matches!(result, Err(DriverError::Protocol(_))));
}

#[test]
fn registers_of_all_ones_break_the_protocol() {
    let (result, ..) = factorial_of(Lie::AllOnes);
    assert!(matches!(result, Err(DriverError::Protocol(_))));
}

#[test]
fn result_of_all_ones_breaks_the_protocol() {
    let (result, ..) = factorial_of(Lie::Register(0x08, u32::MAX));
    assert!(matches!(result, Err(DriverError::Protocol(_))));
}

#[test]
fn unfinished_dma_times_out_and_keeps_its_buffer_until_drop() {
    let (error, host, edu) = round_trip_of(Lie::NeverDone);

    assert_eq!(error, DriverError::TimedOut("the DMA"));
    assert_eq!(host.0.borrow().live(), 1, "the device may still read it");
    assert!(host.0.borrow().master);
    drop(edu);
    assert_eq!(host.0.borrow().live(), 0);
    assert!(!host.0.borrow().master, "the bus is taken away first");
}

#[test]
fn interrupt_before_the_dma_breaks_the_protocol() {
    let (error, ..) = round_trip_of(Lie::EarlyDma);
    assert!(matches!(error, DriverError::Protocol(_)));
}

#[test]
fn broken_driver_refuses_until_probed_again() {
    let (_, host, mut edu) = factorial_of(Lie::NeverDone);
    host.0.borrow_mut().lie = Lie::None;

    let refused = edu.factorial(5, host.soon());
    drop(edu);
    let mut fresh = Edu::probe(host.clone()).expect("the device is well again");
    let served = fresh.factorial(5, host.soon());

    assert!(matches!(refused, Err(DriverError::Protocol(_))));
    assert_eq!(served, Ok(120));
}

#[test]
fn bad_requests_leave_the_driver_well() {
    let host = Host::new();
    let mut edu = Edu::probe(host.clone()).expect("an honest device");

    for (out, back) in [(0, 0), (4097, 4097), (8, 7)] {
        let result = edu.round_trip(&vec![0; out], &mut vec![0; back], host.soon());
        assert!(matches!(result, Err(DriverError::BadRequest(_))));
    }

    assert_eq!(edu.factorial(3, host.soon()), Ok(6));
}

#[test]
fn stopped_machine_is_reported() {
    let host = Host::new();
    let mut edu = Edu::probe(host.clone()).expect("an honest device");
    host.0.borrow_mut().stopped = true;

    let result = edu.factorial(5, host.soon());

    assert_eq!(result, Err(DriverError::Host(HostError::Stopped)));
}

#[test]
fn noise_ends_every_request_in_time() {
    let mut lied = 0;
    let mut served = 0;
    for seed in 1..=300 {
        let host = Host::new();
        let mut edu = Edu::probe(host.clone()).expect("an honest device");
        host.0.borrow_mut().lie = Lie::Noise(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for n in 0..8 {
            let until = host.soon();
            let computed = edu.factorial(n, until);
            assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
            let until = host.soon();
            let sent = edu.round_trip(&[1; 64], &mut [0; 64], until);
            assert!(host.0.borrow().now <= until.0 + Duration::from_micros(5));
            served += u32::from(computed.is_ok()) + u32::from(sent.is_ok());
        }
        drop(edu);
        lied += host.0.borrow().lied;
        assert_eq!(host.0.borrow().live(), 0);
    }
    assert!(lied > 300, "{lied}");
    assert!(served > 100, "{served}");
}
