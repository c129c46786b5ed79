//! eth-intel under libFuzzer.

#![no_main]

cofferdam_libfuzzer::fuzz!(&cofferdam_fuzz_targets::eth_intel::ETH_INTEL);
