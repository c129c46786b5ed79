//! Several functions on one fabric: requests from device to device, buses that stand still, links that
//! go down, resets that take neighbours along.

use super::*;
use crate::fabric::Write;
use crate::reset::ResetProgress;
use crate::topology::Place;
use cofferdam_seam::Violation;

const MS: Duration = Duration::from_millis(1);
const NEAR: [Place; 2] = [Place::Switch; 2];
const FAR: [Place; 2] = [Place::Switch, Place::RootPort];

fn two(config: Config, places: [Place; 2]) -> (Machine, [RequesterId; 2]) {
    let mut machine = Machine::new(config, Memory::private().unwrap());
    let ids = places.map(|place| machine.plug_at(Puppet::boxed(&MSIX), place));
    for id in ids {
        master(&mut machine, id);
    }
    (machine, ids)
}

fn on(fabric: FabricKind) -> Config {
    Config {
        fabric,
        ..Config::default()
    }
}

fn read(machine: &mut Machine, id: RequesterId) -> Read {
    machine.mmio_read(id, Bar::ZERO, register::IOVA, Width::Eight)
}

fn write(machine: &mut Machine, id: RequesterId, value: u64) -> Write {
    machine.mmio_write(id, Bar::ZERO, register::IOVA, Width::Eight, value)
}

const ONES: Read = Read::Done(u64::MAX);

/// Lets the first write to the second's registers; what they then hold.
fn peer_write(machine: &mut Machine, [from, to]: [RequesterId; 2]) -> u64 {
    let target = machine.bar_address(to, Bar::ZERO).unwrap();
    dma_write(machine, from, target.offset(register::IOVA.into()), 8);
    get(machine, to, register::IOVA)
}

const WRITTEN: u64 = 0xabab_abab_abab_abab;

#[test]
fn neighbour_on_a_switch_is_reached_in_every_mode_unless_requests_are_redirected() {
    for iommu in IommuMode::ALL {
        for acs in [false, true] {
            let config = Config {
                iommu,
                acs,
                ..Config::default()
            };
            let (mut machine, ids) = two(config, NEAR);

            let held = peer_write(&mut machine, ids);

            let lands = !acs || !iommu.translates();
            assert_eq!(held == WRITTEN, lands, "{iommu:?} {acs}");
            let event = last_event(&machine);
            assert_eq!(event.verdict, Verdict::PeerToPeer);
            assert_eq!(event.landed(), lands);
            assert_eq!(machine.iommu_faults().0.is_empty(), lands);
            assert_eq!(machine.counts().peer_to_peer, 1);
        }
    }
}

#[test]
fn other_root_port_is_judged_by_the_iommu_and_reached_where_requests_are_forwarded() {
    for iommu in IommuMode::ALL {
        for peer_to_peer in [false, true] {
            let config = Config {
                iommu,
                peer_to_peer,
                ..Config::default()
            };
            let (mut machine, ids) = two(config, FAR);
            let held = peer_write(&mut machine, ids);
            let lands = peer_to_peer && !iommu.translates();
            assert_eq!(held == WRITTEN, lands, "{iommu:?} {peer_to_peer}");
        }
    }
}

#[test]
fn functions_on_one_bus_reach_each_other_whatever_is_asked_of_switches() {
    let config = Config {
        acs: true,
        ..on(FabricKind::Pci)
    };
    let (mut machine, ids) = two(config, FAR);
    assert_eq!(peer_write(&mut machine, ids), WRITTEN);
}

#[test]
fn read_from_a_neighbour_brings_its_registers() {
    let (mut machine, [from, to]) = two(Config::default(), NEAR);
    let target = machine.bar_address(to, Bar::ZERO).unwrap();
    assert!(dma(&mut machine, from, target, 16, register::DMA_READ));
    // Beyond the BAR nobody answers.
    let end = target.offset(0x2000 - 8);
    assert!(!dma(&mut machine, from, end, 16, register::DMA_READ));
}

#[test]
fn request_that_comes_back_to_a_function_at_work_finds_nobody() {
    // Arrange: the second, told to write, would write to the first, which is at work.
    let (mut machine, [one, other]) = two(Config::default(), NEAR);
    let [first, second] = [one, other].map(|id| machine.bar_address(id, Bar::ZERO).unwrap());
    set(&mut machine, other, register::IOVA, first.0);
    set(&mut machine, other, register::LEN, 8);

    // Act
    let trigger = second.offset(register::DMA_WRITE.into());
    assert!(dma_write(&mut machine, one, trigger, 8));

    // Assert
    assert_eq!(get(&mut machine, other, register::FAULT), 1);
    assert_eq!(get(&mut machine, one, register::IOVA), trigger.0);
}

#[test]
fn own_registers_are_no_peer() {
    let (mut machine, id) = mastered(IommuMode::Off);
    let own = machine.bar_address(id, Bar::ZERO).unwrap();
    assert!(!dma_write(&mut machine, id, own, 8));
    assert_eq!(last_event(&machine).verdict, Verdict::Unbacked);
}

#[test]
fn kept_grant_stops_everybody_else_until_it_is_given_back() {
    let (mut machine, [one, other]) = two(on(FabricKind::Pci), FAR);
    set(&mut machine, other, register::WAKE_AT, 100);
    let held = Violation::HoldGrant { time: MS };
    assert!(machine.complex.violate(one, held));

    machine.advance(Time(200));
    let until = Some(Time(1_000_000));
    for id in [one, other] {
        let then = Ending::Again;
        assert_eq!(read(&mut machine, id), Read::Waiting { until, then });
        assert_eq!(write(&mut machine, id, 1), Write::Waiting { until });
        assert_eq!(machine.config_waits(id), Some(until));
    }

    machine.advance(Time(1_000_000));
    assert_eq!(write(&mut machine, other, 1), Write::Done);
    assert_eq!(get(&mut machine, other, register::STEPPED_AT), 1_000_000);
    assert_eq!(machine.config_waits(other), None);
}

#[test]
fn locked_function_answers_its_owner_only_and_a_locked_bus_nobody() {
    for (bus, stops) in [(false, [false, true]), (true, [true, true])] {
        let (mut machine, ids) = two(on(FabricKind::Pci), FAR);
        let target = (!bus).then_some(ids[1]);
        let lock = Violation::Lock { target, time: MS };
        assert!(machine.complex.violate(ids[0], lock));
        assert!(!machine.complex.violate(ids[1], lock));
        for (id, stops) in ids.into_iter().zip(stops) {
            let waits = matches!(read(&mut machine, id), Read::Waiting { .. });
            assert_eq!(waits, stops, "{bus}");
        }
    }
}

#[test]
fn reset_of_a_bus_that_stands_still_frees_it_and_takes_the_neighbour_along() {
    let (mut machine, [one, other]) = two(on(FabricKind::Pci), FAR);
    assert_eq!(write(&mut machine, other, 7), Write::Done);
    let time = Duration::from_secs(3600);
    assert!(machine.complex.violate(one, Violation::HoldGrant { time }));

    machine.reset(one);

    assert_eq!(read(&mut machine, other), Read::Done(0));
    let ResetProgress::Waiting { until } = machine.reset_progress(one) else {
        panic!("a bus takes its time");
    };
    assert!(until > Time(1_000_000_000));
    machine.advance(until);
    assert_eq!(machine.reset_progress(one), ResetProgress::Done);
    assert_eq!(machine.counts().neighbours_reset, 1);
}

#[test]
fn lost_link_is_all_ones_until_the_function_was_reset() {
    for fabric in [
        FabricKind::PcieNotimeout,
        FabricKind::Pcie,
        FabricKind::PcieDpc,
    ] {
        let (mut machine, [one, other]) = two(on(fabric), NEAR);
        let down = Violation::LinkDown { time: Some(MS) };
        assert!(machine.complex.violate(one, down));

        assert_eq!(read(&mut machine, one), ONES);
        assert_eq!(write(&mut machine, one, 7), Write::Done);
        assert_eq!(machine.config_read(one, 0, Width::Four), u32::MAX);
        let dma = machine
            .complex
            .dma_write(one, Iova(0), &[1], Purpose::Payload);
        assert_eq!(dma, Err(DmaFault::LinkDown));
        machine.advance(Time(2_000_000));
        assert_eq!(read(&mut machine, one), ONES);
        assert_eq!(read(&mut machine, other), Read::Done(0));
        let (errors, _) = machine.port_errors();
        assert_eq!(errors[0].error, crate::aer::PortError::SurpriseDown);

        machine.reset(one);
        let until = machine.reset_until(one).unwrap();
        machine.advance(until);
        assert_eq!(machine.reset_progress(one), ResetProgress::Done);
        assert_eq!(read(&mut machine, one), Read::Done(0), "{fabric:?}");
    }
}

#[test]
fn device_that_is_gone_cannot_be_reset() {
    let (mut machine, [one, _]) = two(Config::default(), NEAR);
    machine
        .complex
        .violate(one, Violation::LinkDown { time: None });
    machine.reset(one);
    let until = machine.reset_until(one).unwrap();
    machine.advance(until);
    assert_eq!(machine.reset_progress(one), ResetProgress::Failed);
    assert_eq!(read(&mut machine, one), ONES);
}

#[test]
fn contained_port_answers_at_once_after_the_first_timeout() {
    let (mut machine, [one, other]) = two(on(FabricKind::PcieDpc), NEAR);
    let never =
        |machine: &mut Machine| machine.mmio_read(one, Bar::ZERO, register::NEVER, Width::Eight);
    let Read::Waiting { until, then } = never(&mut machine) else {
        panic!("nobody completes it");
    };
    assert_eq!(then, Ending::AllOnes);
    machine.advance(until.unwrap());
    assert_eq!(never(&mut machine), ONES);
    assert_eq!(read(&mut machine, other), ONES);

    machine.reset(one);
    assert_eq!(read(&mut machine, other), Read::Done(0));
}

#[test]
fn starved_writes_wait_and_reads_pass() {
    let (mut machine, [one, _]) = two(Config::default(), FAR);
    let starve = Violation::StarveCredits {
        posted: true,
        time: MS,
    };
    machine.complex.violate(one, starve);
    let until = Some(Time(1_000_000));
    assert_eq!(write(&mut machine, one, 7), Write::Waiting { until });
    assert_eq!(read(&mut machine, one), Read::Done(0));
    machine.advance(Time(1_000_000));
    assert_eq!(write(&mut machine, one, 7), Write::Done);
    assert_eq!(read(&mut machine, one), Read::Done(7));
}

#[test]
fn moved_bar_is_nobodys_on_a_link_and_two_functions_on_a_bus() {
    for (fabric, own, others) in [
        (FabricKind::Pcie, u64::MAX, 0b1100),
        (FabricKind::Pci, u64::MAX, 0b1000),
    ] {
        let (mut machine, [one, other]) = two(on(fabric), NEAR);
        assert_eq!(write(&mut machine, one, 0b1010), Write::Done);
        assert_eq!(write(&mut machine, other, 0b1100), Write::Done);
        let to = machine.bar_address(other, Bar::ZERO).unwrap().0;
        let bar = Bar::ZERO;
        let moved = machine.complex.violate(one, Violation::MoveBar { bar, to });
        assert!(moved);

        assert_eq!(read(&mut machine, one), Read::Done(own), "{fabric:?}");
        assert_eq!(read(&mut machine, other), Read::Done(others), "{fabric:?}");
        machine.reset(one);
        assert_eq!(read(&mut machine, one), Read::Done(0));
    }
}

#[test]
fn function_that_ignores_its_reset_is_reset_with_its_bus() {
    for (fabric, neighbours) in [(FabricKind::Pcie, 0), (FabricKind::Pci, 1)] {
        let (mut machine, [one, other]) = two(on(fabric), NEAR);
        assert_eq!(write(&mut machine, one, 7), Write::Done);
        assert_eq!(write(&mut machine, other, 7), Write::Done);
        assert!(machine.complex.violate(one, Violation::IgnoreReset));

        machine.reset(one);
        assert_eq!(read(&mut machine, one), Read::Done(7));
        while let ResetProgress::Waiting { until } = machine.reset_progress(one) {
            machine.advance(until);
        }

        assert_eq!(machine.reset_progress(one), ResetProgress::Done);
        assert_eq!(read(&mut machine, one), Read::Done(0));
        let counts = machine.counts();
        assert_eq!(counts.disobeyed_resets, 1);
        assert_eq!(counts.neighbours_reset, neighbours, "{fabric:?}");
    }
}
