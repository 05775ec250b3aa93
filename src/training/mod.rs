//! training: under construction.
