//! virtio-net under libFuzzer.

#![no_main]

cofferdam_libfuzzer::fuzz!(&cofferdam_fuzz_targets::virtio::net::NET);
