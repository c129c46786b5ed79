//! What it costs to catch a register access of a driver that uses a pointer, next to the same access of
//! the registers behind it: by the compiler's callbacks, and by a fault.
//!
//! The callbacks are called here as instrumented code does: a load's before it, a store's before it and
//! carried out at the next. The registers do nothing, which leaves the trap alone.

use cofferdam_instrument::trap::{self, Way, Window};
use cofferdam_seam::{Mmio, Width};
use criterion::{Criterion, criterion_group, criterion_main};
use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

unsafe extern "C" {
    safe fn __sanitizer_cov_load4(address: usize);
    safe fn __sanitizer_cov_store4(address: usize);
}

/// Registers that hold what was written last.
#[derive(Default)]
struct Latch(Cell<u64>);

impl Mmio for Latch {
    fn read(&self, _: u32, _: Width) -> u64 {
        self.0.get()
    }
    fn write(&self, _: u32, _: Width, value: u64) {
        self.0.set(value);
    }
    fn len(&self) -> u64 {
        4096
    }
}

/// A register by its pointer, as drivers have it.
struct Register {
    at: *mut u32,
    announced: bool,
    _window: Window,
}

impl Register {
    fn new(way: Way) -> Self {
        let window = Window::new(Rc::new(Latch::default()), way).expect("a window");
        Self {
            at: window.pointer().as_ptr().cast(),
            announced: way == Way::Callbacks,
            _window: window,
        }
    }

    fn read(&self) -> u32 {
        if self.announced {
            __sanitizer_cov_load4(self.at as usize);
        }
        // SAFETY: the window's first register, which nobody holds a reference to.
        unsafe { self.at.read_volatile() }
    }

    fn write(&self, value: u32) {
        if self.announced {
            __sanitizer_cov_store4(self.at as usize);
        }
        // SAFETY: as in `read`.
        unsafe { self.at.write_volatile(value) };
        trap::settle();
    }
}

fn caught(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("register access by pointer");
    let bare: Rc<dyn Mmio> = Rc::new(Latch::default());
    group.bench_function("read/registers alone", |bencher| {
        bencher.iter(|| black_box(&bare).read32(0));
    });
    group.bench_function("write/registers alone", |bencher| {
        bencher.iter(|| black_box(&bare).write32(0, black_box(7)));
    });
    for (name, way) in [("callbacks", Way::Callbacks), ("faults", Way::Faults)] {
        let register = Register::new(way);
        register.write(5);
        assert_eq!(register.read(), 5, "{name} reach the registers");
        group.bench_function(format!("read/{name}"), |bencher| {
            bencher.iter(|| black_box(&register).read());
        });
        group.bench_function(format!("write/{name}"), |bencher| {
            bencher.iter(|| black_box(&register).write(black_box(7)));
        });
    }
    group.finish();
}

criterion_group!(benches, caught);
criterion_main!(benches);
