//! Pictures: from a camera's bytes to what the networks see, and from an anomaly map to what people see.
//!
//! In: [`crate::frame::Pixels`]. Out: [`crate::frame::Picture`], PNG bytes. Pure functions and reusable state, run by
//! whichever thread calls. Not here: networks (`efficientad`, `detector`), hardware (`camera`).

mod appearance;
mod bayer;
mod blocks;
mod canvas;
mod decode;
mod encode;
mod error;
mod fitness;
mod font;
mod format;
mod heatmap;
mod jpeg;
mod mask;
mod orient;
mod overlay;
mod palette;
mod prepare;
mod raw;
mod region;
mod resize;
mod samples;
mod sight;

pub use appearance::{Appearance, appearance};
pub use decode::{decode, decode_bytes, load, looks_complete};
pub use encode::{evidence_bytes, png};
pub use error::{DecodeError, LoadError};
pub use fitness::{Bounds, Measured, Unfit};
pub use format::Format;
pub use heatmap::{Heat, HeatmapError, heatmap};
pub use mask::{Areas, Grid, MAX_CORNERS, MAX_POLYGONS, Mask, MaskError, Polygon};
pub use orient::{Flip, Orientation, Rotation};
pub use overlay::overlay;
pub use prepare::{Preparation, PrepareError, Prepared};
pub use region::{RegionError, check_region, crop, whole};
pub use resize::Resizer;
pub use sight::{Seen, Sight, SightError, View};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::frame::Picture;

    pub(super) fn golden_path(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pictures").join(name)
    }

    pub(super) fn golden(name: &str) -> Picture {
        super::load(&golden_path(name)).unwrap()
    }
}
