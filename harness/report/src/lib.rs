//! Terminal matrix and HTML report of a comparison.
