//! How a camera's picture is looked at: the keys of a `[[camera]]` section about orientation, region, mask and fitness.
//!
//! In: the keys as written. Out: a validated [`View`]. Not here: whether the camera's picture has such places, which only
//! its frames tell (`imaging`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fault::Faults;
use crate::frame::{MAX_PICTURE_SIDE, Region};
use crate::imaging::{Areas, Bounds, Flip, MAX_CORNERS, MAX_POLYGONS, Orientation, Polygon, Rotation, View};

/// `[camera.picture]`: what a picture must keep within to be judged at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenBounds {
    pub(super) min_brightness: f32,
    pub(super) max_brightness: f32,
    pub(super) min_sharpness: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) frozen: Option<bool>,
}

impl Default for WrittenBounds {
    fn default() -> Self {
        let Bounds { min_brightness, max_brightness, min_sharpness, frozen: _ } = Bounds::default();
        Self { min_brightness, max_brightness, min_sharpness, frozen: None }
    }
}

/// The keys as written.
pub(super) struct WrittenView {
    pub(super) rotate: Rotation,
    pub(super) flip: Flip,
    pub(super) region: Option<Region>,
    pub(super) polygon: Option<Polygon>,
    pub(super) ignore: Vec<Polygon>,
    pub(super) ignore_mask: Option<PathBuf>,
    pub(super) picture: WrittenBounds,
}

impl WrittenView {
    /// The view, with every fault noted; a `live` camera that delivers the same picture twice is frozen.
    pub(super) fn read(self, live: bool, at: &str, faults: &mut Faults) -> View {
        if let Some(region) = self.region {
            check_region(region, at, faults);
        }
        if let Some(polygon) = &self.polygon {
            check_polygon(polygon, &format!("{at}.polygon"), faults);
        }
        if self.ignore.len() > MAX_POLYGONS {
            let message = format!(
                "{} are too many: give at most {MAX_POLYGONS}, or draw an `ignore_mask`",
                self.ignore.len()
            );
            faults.add(&format!("{at}.ignore"), message);
        }
        for (i, polygon) in self.ignore.iter().enumerate() {
            check_polygon(polygon, &format!("{at}.ignore[{i}]"), faults);
        }
        View {
            orientation: Orientation { rotate: self.rotate, flip: self.flip },
            region: self.region,
            areas: Areas { polygon: self.polygon, ignore: self.ignore, ignore_mask: self.ignore_mask },
            bounds: self.picture.read(live, at, faults),
        }
    }
}

impl WrittenBounds {
    fn read(self, live: bool, at: &str, faults: &mut Faults) -> Bounds {
        let Self { min_brightness, max_brightness, min_sharpness, frozen } = self;
        for (key, value) in [("min_brightness", min_brightness), ("max_brightness", max_brightness)] {
            if !(0.0..=255.0).contains(&value) {
                faults
                    .add(&format!("{at}.picture.{key}"), format!("{value} is no brightness: give 0 to 255"));
            }
        }
        if min_brightness > max_brightness {
            let message = "is above max_brightness: no picture could be judged";
            faults.add(&format!("{at}.picture.min_brightness"), message);
        }
        if !(0.0..=2000.0).contains(&min_sharpness) {
            let message = format!("{min_sharpness} is no sharpness: `inspectord snapshot` tells a picture's");
            faults.add(&format!("{at}.picture.min_sharpness"), message);
        }
        Bounds { min_brightness, max_brightness, min_sharpness, frozen: frozen.unwrap_or(live) }
    }
}

fn check_polygon(polygon: &Polygon, key: &str, faults: &mut Faults) {
    if !(3..=MAX_CORNERS).contains(&polygon.len()) {
        faults.add(key, format!("has {} corners: give 3 to {MAX_CORNERS}, each as [x, y]", polygon.len()));
    }
    if let Some([x, y]) = polygon.iter().find(|corner| corner.iter().any(|&c| c > MAX_PICTURE_SIDE)) {
        faults.add(
            key,
            format!("the corner [{x}, {y}] is out of bounds: no picture is larger than {MAX_PICTURE_SIDE}"),
        );
    }
}

fn check_region(region: Region, at: &str, faults: &mut Faults) {
    for (key, side, start) in [("width", region.width, region.x), ("height", region.height, region.y)] {
        let end = u64::from(start) + u64::from(side);
        if side == 0 || end > u64::from(MAX_PICTURE_SIDE) {
            let message = format!(
                "{side} is out of bounds: the region must have an area and end by {MAX_PICTURE_SIDE}"
            );
            faults.add(&format!("{at}.region.{key}"), message);
        }
    }
}
