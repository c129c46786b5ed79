//! virtio-9p under libFuzzer.

#![no_main]

cofferdam_libfuzzer::fuzz!(&cofferdam_fuzz_targets::virtio::p9::P9);
