//! Criterion benches: pairs, in one run.
