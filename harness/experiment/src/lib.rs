//! Fault catalogue, plan, trials and statistics.
