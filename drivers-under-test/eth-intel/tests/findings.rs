//! What FINDINGS.md says of eth-intel, seen to happen: the crate's parts under the least of runtimes,
//! with an honest device unless a test says otherwise.

use cofferdam_backends::mock::{MockHost, MockMachine};
use cofferdam_instrument::platform::{DMA, Entered, MMIO, Session, address_of};
use cofferdam_instrument::trap::Way;
use cofferdam_machine::config::Config;
use cofferdam_machine::{Machine, Memory};
use cofferdam_seam::service::{DriverError, Net};
use cofferdam_seam::{Bar, Deadline, Direction, DriverHost, Mmio, Vector, Wake};
use dma_api::{DeviceDma, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection, DmaDomainId};
use driver_eth_intel::EthIntel;
use rdif_eth::{
    DmaBuffer, NetDevice, NetHardIrqResult, NetIrqSnapshot, NetPollGroupParts, NetRearmResult,
};
use std::alloc::Layout;
use std::num::NonZeroU64;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;
use vdevice_e1000::{E1000, E1000Config};

/// Descriptors in each of the crate's rings.
const RING: usize = 256;

/// A machine with one honest device in it.
fn mock() -> (MockMachine, MockHost) {
    let memory = Memory::private().expect("2 MiB of memory");
    let mut machine = Machine::new(Config::default(), memory);
    let id = machine.plug(Box::new(E1000::new(E1000Config::default())));
    let machine = MockMachine::new(machine);
    let host = machine.host(id);
    (machine, host)
}

/// The crate's parts, and what they run on. Fields go in this order.
struct Bare {
    group: NetPollGroupParts,
    dma: DeviceDma,
    _entered: Entered,
    session: Rc<Session<MockHost>>,
    machine: MockMachine,
}

impl Bare {
    fn new() -> Self {
        let (machine, mut host) = mock();
        let len = host.map_bar(Bar::ZERO).expect("BAR 0").len();
        host.enable_interrupts(1).expect("a vector");
        host.set_bus_master(true).expect("the command register");
        let session = Rc::new(Session::new(host, Way::Faults));
        let entered = Entered::new(&session);
        let info = DmaDeviceInfo::new(
            DmaDomainId::Translated(NonZeroU64::MIN),
            DmaCoherency::Coherent,
            DmaConstraints::new(u64::MAX),
        );
        let dma = DeviceDma::new(info, &DMA);
        let len = usize::try_from(len).expect("128 KiB");
        let device = eth_intel::E1000::new(address_of(Bar::ZERO), len, dma.clone(), &MMIO);
        let parts = Box::new(device.expect("an honest device")).into_parts();
        let mut parts = parts.expect("memory for two rings");
        Self {
            group: parts.poll_groups.pop().expect("one group"),
            dma,
            _entered: entered,
            session,
            machine,
        }
    }

    /// A buffer of that capacity.
    fn buffer(&self, len: usize) -> DmaBuffer {
        let layout = Layout::from_size_align(len, 16).expect("a layout");
        let both = DmaDirection::Bidirectional;
        let pool = self.dma.contiguous_buffer_pool(layout, both, 1);
        let buffer = self.session.one_way(Direction::Both, || pool.alloc());
        let Ok(buffer) = DmaBuffer::new(buffer.expect("memory"), len) else {
            panic!("the buffer is shorter than it was asked for");
        };
        buffer
    }

    /// A buffer that holds a frame to the partner.
    fn frame(&self, len: usize) -> DmaBuffer {
        let mut buffer = self.buffer(2048);
        buffer.set_len(len).expect("shorter than the buffer");
        let own = E1000Config::default().address;
        let frame = [&[0x02; 6][..], &own, &vec![0x5a; len - 12]].concat();
        buffer.write_with_cpu(|bytes| bytes.copy_from_slice(&frame));
        buffer
    }

    /// Lets the device do all it has to do.
    fn settle(&self) {
        let until = Deadline::after(self.machine.now(), Duration::from_millis(1));
        let _ = self.session.host().wait_any(&[], until);
    }
}

#[test]
fn first_round_of_the_transmit_ring_is_given_back_and_the_second_is_not() {
    let mut bare = Bare::new();
    let mut spare = bare.frame(60);
    for round in 0..RING {
        bare.group.queues.tx.submit(spare).expect("a free ring");
        bare.settle();
        spare = bare.group.queues.tx.reclaim().expect("it was sent");
        let more = bare.group.queues.tx.reclaim();
        assert!(more.is_none(), "round {round}");
    }

    bare.group.queues.tx.submit(spare).expect("a free ring");
    bare.settle();
    let sent = bare.session.host().map_bar(Bar::ZERO).expect("BAR 0");
    let late = bare.group.queues.tx.reclaim();

    // TDH: the device has sent it.
    assert_eq!(sent.read32(0x3810), 1);
    assert!(late.is_none(), "the buffer is not given back");
    // Nor when asked again, until the stale descriptors of a whole round have been passed over.
    let asked = (1..RING).find(|_| bare.group.queues.tx.reclaim().is_some());
    assert_eq!(asked, Some(RING - 1));
}

#[test]
fn runtime_that_keeps_to_the_contract_cannot_send_after_a_round_of_the_ring() {
    let (machine, host) = mock();
    let mut net = EthIntel::probe(host).expect("an honest device");
    let frame = [&[0x02; 6][..], &net.address(), &[0x5a; 48]].concat();
    let mut sent = 0;

    let failed = loop {
        let until = Deadline::after(machine.now(), Duration::from_millis(10));
        if let Err(error) = net.send(&frame, until) {
            break error;
        }
        net.receive(&mut [0; 60], until).expect("the echo");
        sent += 1;
        assert!(sent < 2 * RING, "it goes on sending");
    };

    assert_eq!(failed, DriverError::TimedOut("a frame to be sent"));
    assert!(sent >= RING, "{sent} frames");
}

#[test]
fn frame_is_overlooked_once_the_receive_ring_was_found_empty_after_a_round() {
    let mut bare = Bare::new();
    let mut buffer = bare.buffer(2048);
    for round in 0..RING {
        bare.group.queues.rx.submit(buffer).expect("a free ring");
        let frame = bare.frame(60);
        bare.group.queues.tx.submit(frame).expect("a free ring");
        bare.settle();
        let completion = bare.group.queues.rx.reclaim().expect("the echo");
        buffer = completion.buffer;
        // As a runtime does, before it refills the ring.
        assert!(bare.group.queues.rx.reclaim().is_none(), "round {round}");
        drop(bare.group.queues.tx.reclaim());
    }

    let at = buffer.bus_addr();
    bare.group.queues.rx.submit(buffer).expect("a free ring");
    let frame = bare.frame(60);
    bare.group.queues.tx.submit(frame).expect("a free ring");
    bare.settle();

    let machine = bare.machine.machine();
    let (events, more) = machine.dma_events();
    let landed = events
        .iter()
        .rev()
        .any(|event| event.iova.0 == at && event.write);
    assert!(landed || more > 0);
    drop(machine);
    assert!(bare.group.queues.rx.reclaim().is_none(), "it is overlooked");
}

#[test]
fn short_receive_buffer_is_accepted_and_overrun() {
    let mut bare = Bare::new();
    let buffer = bare.buffer(64);
    let at = buffer.bus_addr();
    bare.group.queues.rx.submit(buffer).expect("it is accepted");
    let frame = bare.frame(1514);
    bare.group.queues.tx.submit(frame).expect("a free ring");
    bare.settle();

    let completion = bare.group.queues.rx.reclaim().expect("the echo");

    assert_eq!(completion.buffer.capacity(), 64);
    assert_eq!(completion.packet_len, 1514);
    let machine = bare.machine.machine();
    let (events, _) = machine.dma_events();
    let overrun = events
        .iter()
        .find(|event| event.iova.0 == at && event.write);
    assert_eq!(overrun.map(|event| event.moved), Some(1514));
}

#[test]
fn change_of_the_link_is_taken_for_nobodys_interrupt() {
    let mut bare = Bare::new();
    let armed = bare.group.irq_control.rearm_and_check(0);
    assert_eq!(armed.expect("armed"), NetRearmResult::Idle);
    let until = Deadline::after(bare.machine.now(), Duration::from_millis(1));

    let woken = bare.session.host().wait_any(&[Vector(0)], until);
    let handled = bare.group.irq_endpoints[0].handle_irq();

    assert!(matches!(woken, Ok(Wake::Interrupt(_))), "LSC is unmasked");
    assert_eq!(handled, NetHardIrqResult::Spurious);
}

#[test]
fn causes_that_appear_while_the_handler_runs_are_thrown_away() {
    let mut bare = Bare::new();
    bare.settle();
    let registers = bare.session.host().map_bar(Bar::ZERO).expect("BAR 0");
    registers.read32(0xc0);
    bare.group.irq_control.rearm_and_check(0).expect("armed");
    bare.group
        .queues
        .rx
        .submit(bare.buffer(2048))
        .expect("a free ring");
    // Sent after 12 us, back after 12 more: the handler's reads of ICR, 0.8 us each, are put around
    // the second.
    let frame = bare.frame(60);
    bare.group.queues.tx.submit(frame).expect("a free ring");
    let until = Deadline::after(bare.machine.now(), Duration::from_nanos(22_900));
    let _ = bare.session.host().wait_any(&[], until);

    let handled = bare.group.irq_endpoints[0].handle_irq();
    let rearmed = bare.group.irq_control.rearm_and_check(0).expect("armed");

    assert_eq!(handled, NetHardIrqResult::Schedule(NetIrqSnapshot::TX));
    assert_eq!(rearmed, NetRearmResult::Idle, "as if there were no frame");
    assert!(bare.group.queues.rx.reclaim().is_some(), "there is one");
}

#[test]
fn parts_that_are_dropped_leave_the_device_to_memory_that_is_freed() {
    let mut bare = Bare::new();
    bare.settle();
    let frame = bare.frame(60);
    bare.group.queues.tx.submit(frame).expect("a free ring");

    let Bare {
        group,
        _entered,
        session,
        machine,
        ..
    } = bare;
    drop(group);
    let until = Deadline::after(machine.now(), Duration::from_millis(1));
    let _ = session.host().wait_any(&[], until);

    assert!(machine.machine().counts().stray_blocked > 0);
}

/// Does nothing unless it runs in the child of the next test.
#[test]
fn child_uses_a_queue_after_the_interrupt_control() {
    if std::env::var_os("COFFERDAM_TEST_CHILD").is_none() {
        return;
    }
    let bare = Bare::new();
    let frame = bare.frame(60);
    let NetPollGroupParts {
        mut queues,
        irq_control,
        ..
    } = bare.group;
    drop(irq_control);
    // Safe code, and a store through a dangling pointer.
    let _ = queues.tx.submit(frame);
}

#[test]
fn queue_outlives_its_registers() {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_uses_a_queue_after_the_interrupt_control"])
        .env("COFFERDAM_TEST_CHILD", "1")
        .output()
        .expect("a child of this test");
    assert_eq!(output.status.signal(), Some(11), "{}", output.status);
}
