use super::*;
use cofferdam_seam::Direction::{Both, FromDevice, ToDevice};
use proptest::prelude::*;

const NOW: Time = Time(1_000);
const LATER: Time = Time(3_000);

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.attach();
    ledger.attach();
    ledger
}

fn live(id: u64, bytes: Range<u64>, way: Direction) -> Live {
    Live { id, bytes, way }
}

/// An address of an I/O virtual page, as translating modes hand them out.
const PAGE: u64 = 0x1000_0000;

#[test]
fn bytes_of_a_mapping_are_sanctioned_for_its_requester_only() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE..PAGE + 100, Both), true);
    let bytes = PAGE + 10..PAGE + 100;
    assert_eq!(ledger.judge(0, &bytes, true, NOW), Verdict::Sanctioned);
    assert_eq!(ledger.judge(1, &bytes, true, NOW), Verdict::Unbacked);
}

#[test]
fn wrong_direction_is_told_apart() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE..PAGE + 100, ToDevice), true);
    let bytes = PAGE..PAGE + 100;
    assert_eq!(ledger.judge(0, &bytes, false, NOW), Verdict::Sanctioned);
    assert_eq!(ledger.judge(0, &bytes, true, NOW), Verdict::WrongDirection);
}

#[test]
fn overrun_and_neighbour_on_the_page_are_out_of_bounds() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE + 64..PAGE + 128, Both), true);
    for bytes in [
        PAGE + 127..PAGE + 129,
        PAGE + 127..PAGE + 9000,
        PAGE..PAGE + 64,
        PAGE + 4095..PAGE + 4096,
    ] {
        let verdict = ledger.judge(0, &bytes, true, NOW);
        assert_eq!(verdict, Verdict::OutOfBounds, "{bytes:x?}");
    }
    let next_page = PAGE + 4096..PAGE + 4097;
    assert_eq!(ledger.judge(0, &next_page, true, NOW), Verdict::Unbacked);
}

#[test]
fn use_after_unmap_tells_how_long_after() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE..PAGE + 100, Both), true);
    assert_eq!(ledger.unmap(0, 1, NOW), Some(PAGE..PAGE + 100));
    let ago = Duration::from_nanos(2_000);
    let late = ledger.judge(0, &(PAGE..PAGE + 100), true, LATER);
    assert_eq!(late, Verdict::UseAfterUnmap { ago });
}

#[test]
fn past_mapping_is_remembered_beside_a_live_one_on_its_page() {
    let mut ledger = ledger();
    ledger.map(0, live(1, 0x9_0000..0x9_0100, Both), false);
    ledger.map(0, live(2, 0x9_0200..0x9_0300, Both), false);
    ledger.unmap(0, 1, NOW);
    let late = ledger.judge(0, &(0x9_0000..0x9_0100), true, LATER);
    assert!(matches!(late, Verdict::UseAfterUnmap { .. }));
    let beside = ledger.judge(0, &(0x9_0180..0x9_0190), true, LATER);
    assert_eq!(beside, Verdict::OutOfBounds);
}

#[test]
fn address_handed_out_anew_is_no_use_after_unmap() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE..PAGE + 100, Both), true);
    ledger.unmap(0, 1, NOW);
    ledger.map(0, live(2, PAGE..PAGE + 10, Both), true);
    let beside = ledger.judge(0, &(PAGE + 50..PAGE + 60), true, LATER);
    assert_eq!(beside, Verdict::OutOfBounds);
}

#[test]
fn memory_that_was_never_mapped_is_foreign() {
    let ledger = ledger();
    let kernel = 64 * FRAME..64 * FRAME + 8;
    let verdict = ledger.judge(0, &kernel, true, NOW);
    let owner = Owner::Kernel;
    assert_eq!(verdict, Verdict::Foreign { owner });
    let beyond = 512 * FRAME..512 * FRAME + 8;
    assert_eq!(ledger.judge(0, &beyond, true, NOW), Verdict::Unbacked);
}

#[test]
fn unmapping_twice_or_for_somebody_else_finds_nothing() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE..PAGE + 100, Both), true);
    assert_eq!(ledger.unmap(1, 1, NOW), None);
    assert!(ledger.unmap(0, 1, NOW).is_some());
    assert_eq!(ledger.unmap(0, 1, NOW), None);
}

#[test]
fn driver_that_is_gone_leaves_only_past_mappings() {
    let mut ledger = ledger();
    ledger.map(0, live(1, PAGE + 4096..PAGE + 4100, Both), true);
    ledger.map(0, live(2, PAGE..PAGE + 100, FromDevice), true);
    let ended = ledger.unmap_all(0, NOW);
    let ended: Vec<_> = ended.into_iter().map(|live| live.bytes).collect();
    assert_eq!(ended, [PAGE..PAGE + 100, PAGE + 4096..PAGE + 4100]);
    assert_eq!(ledger.live_count(0), 0);
    let late = ledger.judge(0, &(PAGE..PAGE + 1), true, LATER);
    assert!(matches!(late, Verdict::UseAfterUnmap { .. }));
}

#[test]
fn past_mappings_beyond_the_limit_are_forgotten_oldest_first() {
    let mut ledger = ledger();
    for nth in 0..=RETIRED_LIMIT as u64 {
        let start = PAGE + nth * FRAME;
        ledger.map(0, live(nth, start..start + 1, Both), true);
        ledger.unmap(0, nth, NOW);
    }
    assert_eq!(ledger.accounts[0].retired.len(), RETIRED_LIMIT);
    let oldest = ledger.judge(0, &(PAGE..PAGE + 1), true, NOW);
    assert_eq!(oldest, Verdict::Unbacked);
}

proptest! {
    /// Whatever overlaps whatever: sanctioned means byte by byte.
    #[test]
    fn sanctioned_exactly_where_every_byte_is_mapped_that_way(
        mappings in prop::collection::vec((0..200_u64, 1..80_u64, 0..3_u8), 0..12),
        start in 0..220_u64,
        len in 1..100_u64,
        write in any::<bool>(),
    ) {
        let base = 0x9_0000;
        let mut ledger = ledger();
        let mut mapped = Vec::new();
        for (id, (start, len, way)) in (0_u64..).zip(mappings) {
            let way = [ToDevice, FromDevice, Both][usize::from(way)];
            let bytes = base + start..base + start + len;
            ledger.map(0, live(id, bytes.clone(), way), false);
            mapped.push((bytes, way));
        }
        let usable = |way: Direction| if write { way.device_writes() } else { way.device_reads() };
        let bytes = base + start..base + start + len;
        let holds = |byte: u64, any_way: bool| mapped
            .iter()
            .any(|(bytes, way)| bytes.contains(&byte) && (any_way || usable(*way)));
        let verdict = ledger.judge(0, &bytes, write, NOW);
        let all = bytes.clone().all(|byte| holds(byte, false));
        prop_assert_eq!(verdict == Verdict::Sanctioned, all);
        let all_ways = bytes.clone().all(|byte| holds(byte, true));
        prop_assert_eq!(verdict == Verdict::WrongDirection, all_ways && !all);
    }
}
