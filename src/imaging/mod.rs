//! Pictures: from a camera's bytes to what the networks see, and from an anomaly map to what people see.
//!
//! In: [`crate::frame::Pixels`]. Out: [`crate::frame::Picture`], PNG bytes. Pure functions and reusable state, run by
//! whichever thread calls. Not here: networks (`efficientad`, `detector`), hardware (`camera`).

mod decode;
mod jpeg;
mod raw;
mod resize;

pub use decode::{DecodeError, Format, LoadError, decode, decode_bytes, load};
pub use resize::{RegionError, Resizer, check_region};
