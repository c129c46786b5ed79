//! The runner of all targets of the repository. `cofferdam fuzz` builds it instrumented and starts it.

cofferdam_fuzz_engine::main!(cofferdam_fuzz_targets::ALL);
