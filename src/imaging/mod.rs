//! imaging: under construction.
