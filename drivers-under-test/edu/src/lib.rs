//! Our driver of the edu device: the one others copy from.
