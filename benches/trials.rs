//! Whole trials a second, under leap: what bounds a comparison's size.

use cofferdam_placement::placement::ALL;
use cofferdam_placement::trial::{By, DriverId, Fault, Target, TrialSpec};
use cofferdam_placement::zygote::Zygote;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::path::Path;

fn trials(criterion: &mut Criterion) {
    let program = Path::new(env!("CARGO_BIN_EXE_cofferdam-bench-zygote"));
    let mut zygote = Zygote::launch(program).expect("zygote");
    let mut group = criterion.benchmark_group("trial");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for placement in ALL {
        for (name, fault) in [
            ("clean", Fault::None),
            (
                "wild DMA",
                Fault::D1 {
                    by: By::Device,
                    target: Target::Tenant2,
                    len: 64,
                    nth: 3,
                },
            ),
        ] {
            let spec = TrialSpec::new(placement.placement, DriverId::VirtioBlk, fault);
            group.bench_function(format!("{}/{name}", placement.id), |bencher| {
                bencher.iter(|| zygote.run(&spec).expect("trial"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, trials);
criterion_main!(benches);
