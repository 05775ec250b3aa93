//! publish: under construction.
