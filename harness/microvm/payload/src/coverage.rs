//! What instrumented drivers call: LLVM's SanitizerCoverage counts by itself, and the VMM reads the counters,
//! which the linker script keeps together. What a driver compares is told to nobody.

/// A crate's constructor would announce its counters; nobody runs it.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(_: *const u8, _: *const u8) {}

macro_rules! compares {
    ($($name:ident $value:ty),*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(_: $value, _: $value) {}
    )*};
}

compares!(
    __sanitizer_cov_trace_cmp1 u8,
    __sanitizer_cov_trace_cmp2 u16,
    __sanitizer_cov_trace_cmp4 u32,
    __sanitizer_cov_trace_cmp8 u64,
    __sanitizer_cov_trace_const_cmp1 u8,
    __sanitizer_cov_trace_const_cmp2 u16,
    __sanitizer_cov_trace_const_cmp4 u32,
    __sanitizer_cov_trace_const_cmp8 u64
);

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_switch(_: u64, _: *const u64) {}
