//! settings: under construction.
