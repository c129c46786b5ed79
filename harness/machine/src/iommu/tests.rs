use super::*;
use crate::frames::MEMORY;
use cofferdam_seam::Direction::{Both, FromDevice, ToDevice};
use proptest::prelude::*;

const DEVICE: RequesterId = RequesterId::new(1, 0, 0);
const OTHER: RequesterId = RequesterId::new(2, 0, 0);
const FRAME_NUMBER: u64 = 150;

fn iommu(config: &Config) -> Iommu {
    let mut iommu = Iommu::new(config);
    iommu.attach(DEVICE);
    iommu.attach(OTHER);
    iommu
}

fn config(mode: IommuMode) -> Config {
    Config {
        iommu: mode,
        ..Config::default()
    }
}

fn mapped(iommu: &mut Iommu, way: Direction) -> u64 {
    iommu.map(0, FRAME_NUMBER, 1, way).unwrap()
}

#[test]
fn mapping_leads_to_its_frames() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let first = iommu.map(0, FRAME_NUMBER, 3, Both).unwrap();
    let third = iommu.translate(0, first + 2, true, Time::ZERO);
    assert_eq!(third, Ok((FRAME_NUMBER + 2, Path::Mapped)));
    let beyond = iommu.translate(0, first + 3, true, Time::ZERO);
    assert_eq!(beyond, Err(Refusal::NotMapped));
}

#[test]
fn direction_is_enforced_even_after_the_other_one_primed_the_iotlb() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let readable = mapped(&mut iommu, ToDevice);
    let writable = mapped(&mut iommu, FromDevice);
    assert!(iommu.translate(0, readable, false, Time::ZERO).is_ok());
    assert!(iommu.translate(0, writable, true, Time::ZERO).is_ok());
    let write = iommu.translate(0, readable, true, Time::ZERO);
    let read = iommu.translate(0, writable, false, Time::ZERO);
    assert_eq!(write, Err(Refusal::Forbidden));
    assert_eq!(read, Err(Refusal::Forbidden));
}

#[test]
fn mapping_of_one_requester_is_nothing_to_another() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let page = mapped(&mut iommu, Both);
    iommu.translate(0, page, true, Time::ZERO).unwrap();
    let theirs = iommu.translate(1, page, true, Time::ZERO);
    assert_eq!(theirs, Err(Refusal::NotMapped));
}

#[test]
fn strict_unmap_takes_the_primed_entry_with_it() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let page = mapped(&mut iommu, Both);
    iommu.translate(0, page, true, Time::ZERO).unwrap();
    iommu.unmap(0, page..page + 1, Time::ZERO);
    let late = iommu.translate(0, page, true, Time::ZERO);
    assert_eq!(late, Err(Refusal::NotMapped));
    assert_eq!(iommu.invalidations(), 1);
}

#[test]
fn lazy_unmap_leaves_a_primed_entry_until_the_flush() {
    let mut iommu = iommu(&config(IommuMode::Lazy));
    let page = mapped(&mut iommu, Both);
    iommu.translate(0, page, true, Time::ZERO).unwrap();
    iommu.unmap(0, page..page + 1, Time(5));
    let late = iommu.translate(0, page, true, Time(6));
    assert_eq!(late, Ok((FRAME_NUMBER, Path::Stale)));
    assert_eq!(iommu.next_flush(), Some((Time(10_000_005), 0)));
    iommu.flush(0);
    let later = iommu.translate(0, page, true, Time(7));
    assert_eq!(later, Err(Refusal::NotMapped));
}

#[test]
fn lazy_unmap_of_an_entry_nobody_primed_refuses_at_once() {
    let mut iommu = iommu(&config(IommuMode::Lazy));
    let page = mapped(&mut iommu, Both);
    iommu.unmap(0, page..page + 1, Time::ZERO);
    let late = iommu.translate(0, page, true, Time::ZERO);
    assert_eq!(late, Err(Refusal::NotMapped));
}

#[test]
fn stale_entry_that_was_evicted_refuses() {
    let mut iommu = iommu(&Config {
        iotlb_entries: 2,
        ..config(IommuMode::Lazy)
    });
    let page = mapped(&mut iommu, Both);
    iommu.translate(0, page, true, Time::ZERO).unwrap();
    iommu.unmap(0, page..page + 1, Time::ZERO);
    for _ in 0..2 {
        let fresh = mapped(&mut iommu, Both);
        iommu.translate(0, fresh, true, Time::ZERO).unwrap();
    }
    let late = iommu.translate(0, page, true, Time::ZERO);
    assert_eq!(late, Err(Refusal::NotMapped));
}

#[test]
fn lazy_queue_that_is_full_flushes_without_its_timer() {
    let mut iommu = iommu(&config(IommuMode::Lazy));
    let first = mapped(&mut iommu, Both);
    iommu.translate(0, first, true, Time::ZERO).unwrap();
    iommu.unmap(0, first..first + 1, Time::ZERO);
    for nth in 1..256 {
        assert!(iommu.translate(0, first, true, Time::ZERO).is_ok(), "{nth}");
        let page = mapped(&mut iommu, Both);
        iommu.unmap(0, page..page + 1, Time::ZERO);
    }
    assert!(iommu.translate(0, first, true, Time::ZERO).is_err());
    assert_eq!(iommu.invalidations(), 1);
    assert_eq!(iommu.next_flush(), None);
}

/// The figures of Linux: `IOVA_DEFAULT_FQ_SIZE` is 256 and `IOVA_DEFAULT_FQ_TIMEOUT` 10 ms
/// (`drivers/iommu/dma-iommu.c`; there per CPU).
#[test]
fn lazy_window_is_that_of_linux() {
    let config = Config::default();
    assert_eq!(config.lazy_entries, 256);
    assert_eq!(config.lazy_delay, Duration::from_millis(10));
}

#[test]
fn flush_of_one_domain_leaves_the_stale_entries_of_another() {
    let mut iommu = iommu(&config(IommuMode::Lazy));
    let page = mapped(&mut iommu, Both);
    iommu.translate(0, page, true, Time::ZERO).unwrap();
    iommu.unmap(0, page..page + 1, Time::ZERO);
    let theirs = iommu.map(1, FRAME_NUMBER, 1, Both).unwrap();
    iommu.unmap(1, theirs..theirs + 1, Time::ZERO);
    iommu.flush(1);
    assert!(iommu.translate(0, page, true, Time::ZERO).is_ok());
}

#[test]
fn modes_without_translation_let_every_address_pass() {
    for mode in [IommuMode::Off, IommuMode::Passthrough] {
        let mut iommu = iommu(&config(mode));
        for page in [0, 511, 512, u64::MAX / FRAME] {
            let passed = iommu.translate(0, page, true, Time::ZERO);
            assert_eq!(passed, Ok((page, Path::Identity)));
        }
        assert_eq!(iommu.faults(), (&[][..], 0));
    }
}

#[test]
fn fault_log_overflows_into_a_count() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    for page in 0..20 {
        iommu
            .translate(0, page, page % 2 == 0, Time(page))
            .unwrap_err();
    }
    let (records, dropped) = iommu.faults();
    assert_eq!((records.len(), dropped), (16, 4));
    let second = FaultRecord {
        at: Time(1),
        requester: DEVICE,
        page: FRAME,
        write: false,
        why: Refusal::NotMapped,
    };
    assert_eq!(records[1], second);
}

#[test]
fn freed_addresses_come_back_only_after_the_window_went_round() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let first = mapped(&mut iommu, Both);
    iommu.unmap(0, first..first + 1, Time::ZERO);
    let second = mapped(&mut iommu, Both);
    assert_eq!(second, first + 1);
    let rest = WINDOW.end - second - 1;
    iommu.domains[0].cursor += rest;
    assert_eq!(mapped(&mut iommu, Both), first);
    assert_eq!(mapped(&mut iommu, Both), second + 1);
}

#[test]
fn window_that_is_full_refuses() {
    let mut iommu = iommu(&config(IommuMode::Strict));
    let pages = WINDOW.end - WINDOW.start;
    iommu.domains[0].busy.insert(WINDOW.start + 1, WINDOW.end);
    assert_eq!(iommu.map(0, 0, 2, Both), Err(NoIova));
    assert_eq!(iommu.map(0, 0, pages, Both), Err(NoIova));
    assert_eq!(iommu.map(0, 0, 1, Both), Ok(WINDOW.start));
    assert_eq!(iommu.map(0, 0, 1, Both), Err(NoIova));
}

/// What a driver and a device do, in any order.
#[derive(Clone, Debug)]
enum Step {
    Map {
        frame: u64,
        count: u64,
        way: Direction,
    },
    /// One of the mappings ever made, live or not.
    Unmap {
        nth: prop::sample::Index,
    },
    /// A page of one of the mappings ever made, live or not.
    Dma {
        nth: prop::sample::Index,
        page: u64,
        write: bool,
    },
    /// A page anywhere.
    Wild {
        page: u64,
        write: bool,
    },
    Pass {
        nanos: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let way = prop_oneof![Just(ToDevice), Just(FromDevice), Just(Both)];
    let step = prop_oneof![
        3 => (0..500_u64, 1..4_u64, way)
            .prop_map(|(frame, count, way)| Step::Map { frame, count, way }),
        2 => any::<prop::sample::Index>().prop_map(|nth| Step::Unmap { nth }),
        6 => (any::<prop::sample::Index>(), 0..4_u64, any::<bool>())
            .prop_map(|(nth, page, write)| Step::Dma { nth, page, write }),
        1 => (prop_oneof![0..512_u64, WINDOW, any::<u64>()], any::<bool>())
            .prop_map(|(page, write)| Step::Wild { page, write }),
        1 => (0..4_000_000_u64).prop_map(|nanos| Step::Pass { nanos }),
    ];
    prop::collection::vec(step, 0..120)
}

/// A mapping as the test remembers it.
struct Known {
    pages: Range<u64>,
    frame: u64,
    way: Direction,
    live: bool,
    /// Since it was unmapped, no invalidation has completed.
    queued: bool,
    /// Pages the device used while it was live, since the last flush.
    primed: Vec<u64>,
}

impl Known {
    /// The whole domain was invalidated.
    fn flushed(&mut self) {
        self.queued = false;
        self.primed.clear();
    }

    fn allows(&self, write: bool) -> bool {
        if write {
            self.way.device_writes()
        } else {
            self.way.device_reads()
        }
    }
}

/// Plays the steps and compares every answer with what the standard's words allow.
fn play(config: &Config, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut iommu = iommu(config);
    let mut now = Time::ZERO;
    let mut known: Vec<Known> = Vec::new();
    for step in steps {
        let (page, write) = match step {
            Step::Map { frame, count, way } => {
                let first = iommu.map(0, frame, count, way).unwrap();
                let pages = first..first + count;
                prop_assert!(pages.start >= WINDOW.start && pages.end <= WINDOW.end);
                prop_assert!(pages.start >= MEMORY / FRAME);
                for other in known.iter().filter(|known| known.live || known.queued) {
                    let apart = pages.end <= other.pages.start || other.pages.end <= pages.start;
                    prop_assert!(apart, "{pages:?} was handed out while in use");
                }
                known.push(Known {
                    pages,
                    frame,
                    way,
                    live: true,
                    queued: false,
                    primed: Vec::new(),
                });
                continue;
            }
            Step::Unmap { nth } => {
                if known.is_empty() {
                    continue;
                }
                let nth = nth.index(known.len());
                if !known[nth].live {
                    continue;
                }
                iommu.unmap(0, known[nth].pages.clone(), now);
                known[nth].live = false;
                known[nth].queued = config.iommu == IommuMode::Lazy;
                let queued = known.iter().filter(|known| known.queued).count();
                if queued >= config.lazy_entries {
                    known.iter_mut().for_each(Known::flushed);
                }
                continue;
            }
            Step::Pass { nanos } => {
                now = now + Duration::from_nanos(nanos);
                if let Some((due, slot)) = iommu.next_flush()
                    && due <= now
                {
                    iommu.flush(slot);
                    known.iter_mut().for_each(Known::flushed);
                }
                continue;
            }
            Step::Dma { nth, page, write } => {
                if known.is_empty() {
                    continue;
                }
                (known[nth.index(known.len())].pages.start + page, write)
            }
            Step::Wild { page, write } => (page, write),
        };
        let answer = iommu.translate(0, page, write, now);
        let here = |known: &&mut Known| known.pages.contains(&page);
        let mut here: Vec<_> = known.iter_mut().filter(here).collect();
        if let Some(live) = here.iter_mut().find(|known| known.live) {
            if live.allows(write) {
                let frame = live.frame + (page - live.pages.start);
                prop_assert_eq!(answer, Ok((frame, Path::Mapped)));
                live.primed.push(page);
            } else {
                prop_assert_eq!(answer, Err(Refusal::Forbidden));
            }
        } else if let Ok((frame, path)) = answer {
            // Only a primed entry whose invalidation is still to come, and only where it led.
            prop_assert_eq!(path, Path::Stale);
            let source = here.iter().find(|known| known.queued);
            let source = source.expect("a stale entry belongs to a queued mapping");
            prop_assert!(config.iommu == IommuMode::Lazy);
            prop_assert!(source.primed.contains(&page));
            prop_assert!(source.allows(write));
            prop_assert_eq!(frame, source.frame + (page - source.pages.start));
        } else {
            prop_assert_eq!(answer, Err(Refusal::NotMapped));
            let small = known.iter().map(|known| known.primed.len()).sum::<usize>();
            let held = small <= config.iotlb_entries;
            let page_primed =
                |known: &Known| known.queued && known.allows(write) && known.primed.contains(&page);
            // Where nothing can have been evicted, a primed entry must still be there.
            prop_assert!(!(held && known.iter().any(page_primed)));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn strict_reaches_mapped_pages_and_no_others(steps in steps(), iotlb_entries in 0..8_usize) {
        play(&Config { iotlb_entries, ..config(IommuMode::Strict) }, steps)?;
    }

    #[test]
    fn lazy_reaches_unmapped_pages_only_through_primed_entries(
        steps in steps(),
        iotlb_entries in prop_oneof![0..8_usize, Just(1024)],
        lazy_entries in 1..6_usize,
    ) {
        let config = Config { iotlb_entries, lazy_entries, ..config(IommuMode::Lazy) };
        play(&config, steps)?;
    }
}
