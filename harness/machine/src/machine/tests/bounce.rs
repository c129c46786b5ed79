//! Bounced mappings.

use super::*;

/// A buffer in the middle of a page, and what lies behind it.
const WITHIN: u64 = 256;
const LEN: usize = 100;

fn bouncing() -> (Machine, RequesterId, PhysAddr) {
    let (machine, id) = mastered(IommuMode::Bounce);
    let page = vec![0x5a; 4096];
    machine.memory().write(pool(), &page).unwrap();
    (machine, id, PhysAddr(pool().0 + WITHIN))
}

fn read(machine: &mut Machine, id: RequesterId, at: Iova, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = machine
        .complex
        .dma_read(id, at, &mut bytes, Purpose::Payload);
    assert_eq!(read, Ok(()));
    bytes
}

#[test]
fn what_the_device_writes_arrives_when_the_mapping_ends() {
    let (mut machine, id, at) = bouncing();
    let mapping = machine.map(id, at, LEN, FromDevice).unwrap();
    assert!(dma_write(&mut machine, id, mapping.iova, 10));
    assert_eq!(byte(&machine, at), 0x5a);

    machine.unmap(id, mapping.id).unwrap();

    assert_eq!(byte(&machine, at), 0xab);
    // What the device left out is what it was.
    assert_eq!(byte(&machine, PhysAddr(at.0 + 10)), 0x5a);
    assert_eq!(machine.counts().bounced_bytes, 200);
}

#[test]
fn device_reads_what_was_there_when_it_was_mapped() {
    let (mut machine, id, at) = bouncing();
    let mapping = machine.map(id, at, LEN, ToDevice).unwrap();
    machine.memory().write(at, &[1; LEN]).unwrap();
    assert_eq!(read(&mut machine, id, mapping.iova, LEN), [0x5a; LEN]);

    machine.unmap(id, mapping.id).unwrap();

    assert_eq!(byte(&machine, at), 1);
    assert_eq!(machine.counts().bounced_bytes, 100);
}

#[test]
fn overrun_stays_in_the_slot() {
    let (mut machine, id, at) = bouncing();
    let mapping = machine.map(id, at, LEN, Both).unwrap();
    assert!(dma_write(&mut machine, id, mapping.iova, 200));
    assert!(dma_write(
        &mut machine,
        id,
        Iova(mapping.iova.0 - WITHIN),
        8
    ));
    let event = last_event(&machine);
    assert_eq!(event.verdict, Verdict::OutOfBounds);
    let slots = run_of(Owner::Driver, Use::Bounce).unwrap().bytes();
    assert!(slots.contains(&event.reached.unwrap().0));

    machine.unmap(id, mapping.id).unwrap();

    assert_eq!(byte(&machine, PhysAddr(at.0 + 99)), 0xab);
    for beside in [pool().0, at.0 - 1, at.0 + 100, at.0 + 199] {
        assert_eq!(byte(&machine, PhysAddr(beside)), 0x5a, "{beside:#x}");
    }
}

#[test]
fn neighbour_tells_nothing_not_even_what_the_slot_held_before() {
    let (mut machine, id, at) = bouncing();
    let earlier = machine.map(id, at, LEN, Both).unwrap();
    assert!(dma_write(&mut machine, id, earlier.iova.offset(100), 100));
    machine.unmap(id, earlier.id).unwrap();
    let mapping = machine.map(id, at, LEN, Both).unwrap();

    let beside = read(&mut machine, id, mapping.iova.offset(100), 100);

    assert_eq!(beside, [0; 100]);
    assert_eq!(machine.counts().leaked_bytes, 0);
}

#[test]
fn strict_lets_a_stray_read_learn_what_lies_beside_a_buffer() {
    let (mut machine, id) = mastered(IommuMode::Strict);
    machine.memory().write(pool(), &[0x5a; 200]).unwrap();
    let mapping = machine.map(id, pool(), LEN, ToDevice).unwrap();
    assert_eq!(
        read(&mut machine, id, mapping.iova.offset(100), 200),
        [[0x5a; 100], [0; 100]].concat()
    );
    assert_eq!(machine.counts().leaked_bytes, 100);
}

#[test]
fn whole_pages_and_coherent_memory_are_not_bounced() {
    let (mut machine, id, _) = bouncing();
    let whole = machine.map(id, pool(), 4096, FromDevice).unwrap();
    let ring = PhysAddr(pool().0 + 4096);
    let ring_mapping = machine.map_coherent(id, ring, 64, Both).unwrap();

    assert!(dma_write(&mut machine, id, whole.iova, 8));
    assert!(dma_write(&mut machine, id, ring_mapping.iova, 8));

    assert_eq!(byte(&machine, pool()), 0xab);
    assert_eq!(byte(&machine, ring), 0xab);
    assert_eq!(machine.counts().bounced_bytes, 0);
}

#[test]
fn pool_without_room_refuses_until_a_mapping_ends() {
    let (mut machine, id, at) = bouncing();
    let room = run_of(Owner::Driver, Use::Bounce).unwrap().count;
    let mappings: Vec<_> = (0..room)
        .map(|_| machine.map(id, at, LEN, Both).unwrap())
        .collect();
    let refused = machine.map(id, at, LEN, Both);
    assert_eq!(refused, Err(MachineError::NoBounceSlot(LEN)));
    assert!(machine.map(id, pool(), 4096, Both).is_ok());
    machine.unmap(id, mappings[3].id).unwrap();
    assert!(machine.map(id, at, LEN, Both).is_ok());
}

#[test]
fn slots_of_a_driver_that_is_gone_are_free_and_copied_for_nobody() {
    let (mut machine, id, at) = bouncing();
    for _ in 0..3 {
        for _ in 0..run_of(Owner::Driver, Use::Bounce).unwrap().count {
            let mapping = machine.map(id, at, LEN, FromDevice).unwrap();
            assert!(dma_write(&mut machine, id, mapping.iova, 8));
        }
        machine.unmap_all(id);
        assert_eq!(byte(&machine, at), 0x5a);
    }
}
