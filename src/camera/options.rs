//! What the settings say about one camera's source, with its defaults and its bounds.
//!
//! In: the `[camera.source]` table. Out: faults by key path. Not here: opening anything, the camera's name, model and
//! trigger (`settings`).

mod genicam;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::frame::{Size, check_picture_size};

pub use genicam::{Edge, Exposure, FeatureValue, Features, GenicamOptions, WhiteBalance};

/// The most frames a second that may be asked for; beyond it a wish is a typing error.
pub(super) const MAX_RATE: f64 = 10_000.0;

/// Where a camera's frames come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Options {
    /// Picture files in a folder, as another program drops them or as a recording to be played again.
    Folder(FolderOptions),
    /// A webcam or capture card of this box.
    V4l2(V4l2Options),
    /// A GigE Vision or USB3 Vision camera.
    Genicam(GenicamOptions),
    /// A drawn production line, for the demo and for tests.
    Simulated(SimulatedOptions),
}

/// How a folder is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FolderMode {
    /// Waits for files to be dropped in and takes each once it has stopped growing, oldest first.
    #[default]
    Watch,
    /// Plays the files by name and then ends.
    Replay,
}

/// A folder as a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FolderOptions {
    /// The folder; there is no default. Files in folders below it are not read.
    pub path: PathBuf,
    /// Whether to wait for new files (`watch`, the default) or to play those there are (`replay`).
    pub mode: FolderMode,
    /// Frames per second, at most; 0, the default, delivers as fast as the pipeline asks.
    pub rate: f64,
    /// Whether a replay starts anew at its end, for endurance runs; its files are then judged again and again.
    pub repeat: bool,
    /// Milliseconds between two looks at a watched folder. A file is taken when two looks found it alike, so that
    /// 250, the default, adds a quarter to half a second; raise it where a network share suffers from being listed.
    pub look_every_ms: u64,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self { path: PathBuf::new(), mode: FolderMode::Watch, rate: 0.0, repeat: false, look_every_ms: 250 }
    }
}

/// A layout of pixels to ask a V4L2 camera for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum V4l2Format {
    /// The best the camera has at the size and rate asked for: uncompressed before MJPEG, colour before grey.
    #[default]
    Auto,
    /// RGB, 8 bits a channel.
    Rgb,
    /// BGR, 8 bits a channel.
    Bgr,
    /// YUV 4:2:2, brightness first.
    Yuyv,
    /// YUV 4:2:2, colour first.
    Uyvy,
    /// YUV 4:2:0 in two planes.
    Nv12,
    /// One colour a pixel, 8 to 12 bits, of industrial cameras without a processor of their own.
    Bayer,
    /// JPEG frames: the only way to large pictures at full rate over USB 2.
    Mjpeg,
    /// Brightness, 8 to 16 bits, of monochrome cameras.
    Grey,
}

/// A Video4Linux camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V4l2Options {
    /// `/dev/videoN`, a path or a name below `/dev/v4l/by-id` (which stays the same when cameras are replugged), or
    /// a name below `/dev/v4l/by-path` (which names the socket); there is no default. `inspectord cameras` lists them.
    pub device: String,
    /// The picture's size, `WIDTHxHEIGHT`; absent, the largest that the camera has at
    /// the rate asked for.
    #[serde(with = "size_text", skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The layout of pixels.
    pub format: V4l2Format,
    /// Frames per second; 0, the default, takes the camera's highest at that size.
    pub rate: f64,
    /// Milliseconds without a frame after which the camera counts as lost and is opened again. The default, 5,000,
    /// lets slow cameras start and long exposures end.
    pub stall_ms: u64,
}

impl Default for V4l2Options {
    fn default() -> Self {
        Self { device: String::new(), size: None, format: V4l2Format::Auto, rate: 0.0, stall_ms: 5_000 }
    }
}

/// The drawn production line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedOptions {
    /// Which line: the same seed draws the same parts with the same defects.
    pub seed: u64,
    /// Parts per second; 0 draws as fast as the pipeline asks. The default, 4, can be followed by eye.
    pub rate: f64,
    /// The share of parts with a planted defect, 0 to 1. The default, 0.08, shows one every few seconds.
    pub defect_rate: f64,
    /// The picture's size, `WIDTHxHEIGHT`, 64x64 to 4096x4096; parts are drawn to fill it.
    #[serde(with = "size_text_required")]
    pub size: Size,
    /// The number of the first part; after a restart, a later number goes on instead of repeating.
    pub first: u64,
    /// How many parts come before the line ends; 0, the default, never ends.
    pub parts: u64,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self { seed: 1, rate: 4.0, defect_rate: 0.08, size: Size::new(320, 320), first: 0, parts: 0 }
    }
}

impl Options {
    /// Whether frames come from it by themselves; one that exposes on request needs a trigger for each.
    pub fn delivers_unasked(&self) -> bool {
        !matches!(self, Self::Genicam(GenicamOptions { expose: Exposure::Software, .. }))
    }

    /// Whether every frame is a part of its own, since a signal of the line exposed it.
    pub fn exposes_by_line(&self) -> bool {
        matches!(self, Self::Genicam(GenicamOptions { expose: Exposure::Line(_), .. }))
    }

    /// Whether frames come from hardware: what is not taken now is gone, and no two are alike.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::V4l2(_) | Self::Genicam(_))
    }

    /// Every fault, as the key's path inside the section and what is wrong with it.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Faults(Vec::new());
        match self {
            Self::Folder(o) => o.check(&mut faults),
            Self::V4l2(o) => o.check(&mut faults),
            Self::Genicam(o) => o.check(&mut faults),
            Self::Simulated(o) => o.check(&mut faults),
        }
        faults.0
    }
}

struct Faults(Vec<(String, String)>);

impl Faults {
    fn unless(&mut self, fine: bool, key: &str, message: impl FnOnce() -> String) {
        if !fine {
            self.0.push((key.to_owned(), message()));
        }
    }

    fn rate(&mut self, rate: f64) {
        self.unless((0.0..=MAX_RATE).contains(&rate), "rate", || {
            format!("{rate} is no rate: give frames per second, 0 to {MAX_RATE}; 0 means no limit")
        });
    }

    fn stall(&mut self, stall_ms: u64) {
        self.unless((200..=600_000).contains(&stall_ms), "stall_ms", || {
            format!("{stall_ms} is out of bounds: give 200 to 600000 milliseconds")
        });
    }
}

impl FolderOptions {
    fn check(&self, faults: &mut Faults) {
        faults.unless(!self.path.as_os_str().is_empty(), "path", || {
            "is missing: name the folder that the pictures are dropped into".into()
        });
        faults.rate(self.rate);
        faults.unless(!(self.repeat && self.mode == FolderMode::Watch), "repeat", || {
            "only a replay can repeat: set mode = \"replay\" or repeat = false".into()
        });
        faults.unless((10..=600_000).contains(&self.look_every_ms), "look_every_ms", || {
            format!("{} is out of bounds: give 10 to 600000 milliseconds", self.look_every_ms)
        });
    }
}

impl V4l2Options {
    fn check(&self, faults: &mut Faults) {
        faults.unless(!self.device.is_empty(), "device", || {
            "is missing: name a camera as `inspectord cameras` lists it".into()
        });
        if let Some(Err(e)) = self.size.map(check_picture_size) {
            faults.unless(false, "size", || e.to_string());
        }
        faults.rate(self.rate);
        faults.stall(self.stall_ms);
    }
}

impl SimulatedOptions {
    fn check(&self, faults: &mut Faults) {
        faults.rate(self.rate);
        faults.unless((0.0..=1.0).contains(&self.defect_rate), "defect_rate", || {
            format!("{} is no share: give 0 to 1, for example 0.08", self.defect_rate)
        });
        let side = |s: u32| (64..=4096).contains(&s);
        faults.unless(side(self.size.width) && side(self.size.height), "size", || {
            format!("{} cannot be drawn: sides must be 64 to 4096", self.size)
        });
    }
}

/// A size as people write it, or none.
mod size_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::frame::Size;

    pub(super) fn serialize<S: Serializer>(size: &Option<Size>, to: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => to.collect_str(size),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Size>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|t| t.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A size as people write it.
pub(super) mod size_text_required {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::frame::Size;

    pub(in crate::camera) fn serialize<S: Serializer>(size: &Size, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(size)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_source_is_read_as_written() {
        let options = read("kind = \"v4l2\"\ndevice = \"/dev/video0\"\nsize = \"640x480\"").unwrap();
        let expected = V4l2Options {
            device: "/dev/video0".into(),
            size: Some(Size::new(640, 480)),
            ..V4l2Options::default()
        };
        assert_eq!(options, Options::V4l2(expected));
        assert_eq!(read(&toml::to_string(&options).unwrap()).unwrap(), options);
    }

    #[test]
    fn what_nobody_defined_is_refused() {
        assert!(read("kind = \"folder\"\npath = \"/x\"\nrat = 3").unwrap_err().contains("rat"));
        assert!(read("kind = \"webcam\"").unwrap_err().contains("webcam"));
        assert!(read("kind = \"simulated\"\nsize = \"big\"").unwrap_err().contains("WIDTHxHEIGHT"));
    }

    #[test]
    fn all_faults_come_at_once() {
        let options =
            FolderOptions { rate: -1.0, repeat: true, look_every_ms: 0, ..FolderOptions::default() };
        let keys: Vec<_> = Options::Folder(options).faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["path", "rate", "repeat", "look_every_ms"]);
        assert_eq!(Options::Simulated(SimulatedOptions::default()).faults(), []);
        let wild = SimulatedOptions { defect_rate: f64::NAN, rate: f64::INFINITY, ..Default::default() };
        assert_eq!(Options::Simulated(wild).faults().len(), 2);
    }
}
