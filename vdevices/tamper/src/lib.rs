//! The layer that makes a correct device lie.
