//! A tenant's empty request through each placement's crossing, next to a bare ping-pong between two
//! processes that wait the same way: spin with spin, sleep with sleep.

use cofferdam_placement::crossing::{Rounds, Waiting};
use cofferdam_placement::placement::ALL;
use cofferdam_placement::zygote::{Zygote, ZygoteError};
use criterion::{Criterion, criterion_group, criterion_main};
use std::path::Path;
use std::time::Duration;

/// Round trips of one measurement, at least: forking the domains is not what is measured.
const LEAST: u32 = 200;

fn crossing(criterion: &mut Criterion) {
    let program = Path::new(env!("CARGO_BIN_EXE_cofferdam-bench-zygote"));
    let mut zygote = Zygote::launch(program).expect("zygote");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for waiting in [Waiting::Spin, Waiting::Sleep] {
        let mut group = criterion.benchmark_group(format!("crossing/{waiting:?}"));
        group
            .sample_size(20)
            .measurement_time(Duration::from_secs(4));
        let mut pair = |name: &str, measure: &mut dyn FnMut(Rounds) -> Result<u64, ZygoteError>| {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let count = u32::try_from(iterations).unwrap_or(u32::MAX).max(LEAST);
                    let took = measure(Rounds { waiting, count }).expect("measured");
                    Duration::from_nanos(took).mul_f64(iterations as f64 / f64::from(count))
                });
            });
        };
        pair("bare", &mut |rounds| zygote.ping_pong(rounds));
        for placement in ALL {
            // Whoever polls needs a core.
            let parties = placement.parties();
            if waiting == Waiting::Spin && parties > cores {
                let id = placement.id;
                eprintln!("crossing/Spin/{id}: skipped: {parties} domains poll, {cores} cores");
                continue;
            }
            pair(placement.id, &mut |rounds| {
                zygote.crossing(placement.placement, rounds)
            });
        }
        group.finish();
    }
}

criterion_group!(benches, crossing);
criterion_main!(benches);
