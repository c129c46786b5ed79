//! Both we and libFuzzer hear of comparisons: the linker lets ours come first, and go on to libFuzzer's.

use cofferdam_instrument::wrapper::SHARED;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for call in SHARED {
        println!("cargo::rustc-link-arg-bins=-Wl,--wrap={call}");
    }
}
