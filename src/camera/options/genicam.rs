//! What the settings say about a GigE Vision or USB3 Vision camera, with its defaults and its bounds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Faults;
use crate::frame::{Region, Size, check_picture_size};

/// The most features that are written; more belong into a user set of the camera.
const MAX_FEATURES: usize = 256;

/// Features that follow from `expose` and `edge`.
const TRIGGERING: [&str; 3] = ["TriggerMode", "TriggerSource", "TriggerActivation"];

/// A GigE Vision or USB3 Vision camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenicamOptions {
    /// Its serial number, the name that was given to it, its address or MAC address, or its full id; there is no
    /// default. `inspectord cameras` lists them.
    pub camera: String,
    /// The pixel format by its standard name, such as `Mono8` or `BayerRG12p`; `auto` takes the best of 8
    /// bits: Bayer or RGB, else `Mono8`, else YUV.
    pub format: String,
    /// The part of the sensor that is read out; absent, the part that the camera is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<Region>,
    /// What makes it expose.
    pub expose: Exposure,
    /// Which end of a signal on its line exposes it.
    pub edge: Edge,
    /// Frames per second of a free-running camera; 0, the default, leaves the camera's own.
    pub rate: f64,
    /// Exposure time in microseconds, with the automatic switched off; absent, the camera's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure_us: Option<f64>,
    /// Gain in the camera's unit, mostly decibel, with the automatic switched off; absent, the camera's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// White balance, with the automatic switched off; absent, the camera's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub white_balance: Option<WhiteBalance>,
    /// Bytes of a network packet; 0, the default, takes the largest that gets through.
    pub packet_size: u32,
    /// Milliseconds without a frame after which a free-running camera counts as lost and is opened again; as for
    /// V4L2, 5,000 lets long exposures end.
    pub stall_ms: u64,
    /// Any further features by name, written before everything else.
    pub features: Features,
}

impl Default for GenicamOptions {
    fn default() -> Self {
        Self {
            camera: String::new(),
            format: "auto".into(),
            sensor: None,
            expose: Exposure::Free,
            edge: Edge::Rising,
            rate: 0.0,
            exposure_us: None,
            gain: None,
            white_balance: None,
            packet_size: 0,
            stall_ms: 5_000,
            features: Features::default(),
        }
    }
}

/// What makes a camera expose; written `free`, `software`, or a line's name such as `Line1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Exposure {
    /// Itself, as fast as it can or as `rate` says.
    #[default]
    Free,
    /// A command for each part: what arrives was exposed after its trigger.
    Software,
    /// A signal on this line of its own, such as a light barrier's.
    Line(String),
}

impl From<String> for Exposure {
    fn from(text: String) -> Self {
        match text.as_str() {
            "free" => Self::Free,
            "software" => Self::Software,
            _ => Self::Line(text),
        }
    }
}

impl From<Exposure> for String {
    fn from(exposure: Exposure) -> Self {
        match exposure {
            Exposure::Free => "free".into(),
            Exposure::Software => "software".into(),
            Exposure::Line(line) => line,
        }
    }
}

/// Which change of a line's level is a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// From low to high.
    #[default]
    Rising,
    /// From high to low.
    Falling,
    /// Both, which is two parts for each signal.
    Any,
}

/// Red and blue against green.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhiteBalance {
    /// Factor for red.
    pub red: f64,
    /// Factor for blue.
    pub blue: f64,
}

/// Features to write: a table where their order does not matter, a list of tables where it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Features {
    /// In the order of their names.
    Table(BTreeMap<String, FeatureValue>),
    /// In this order.
    List(Vec<BTreeMap<String, FeatureValue>>),
}

impl Default for Features {
    fn default() -> Self {
        Self::Table(BTreeMap::new())
    }
}

impl Features {
    /// Each with its value, in the order in which they are to be written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FeatureValue)> {
        let tables = match self {
            Self::Table(table) => std::slice::from_ref(table),
            Self::List(tables) => tables,
        };
        tables.iter().flatten().map(|(name, value)| (name.as_str(), value))
    }
}

/// A feature's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FeatureValue {
    /// On or off; `true` also carries out a command.
    Switch(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Real(f64),
    /// Text, or the name of a choice.
    Text(String),
}

impl fmt::Display for FeatureValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Whole(whole) => whole.fmt(f),
            Self::Real(real) => real.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

impl GenicamOptions {
    pub(super) fn check(&self, faults: &mut Faults) {
        let text = |text: &str| !text.is_empty() && text.len() <= 256 && !text.contains('\0');
        faults.unless(text(&self.camera), "camera", || {
            "is missing: name a camera as `inspectord cameras` lists it".into()
        });
        faults
            .unless(text(&self.format), "format", || "is no pixel format: write \"auto\" or its name".into());
        if let Exposure::Line(line) = &self.expose {
            faults.unless(text(line), "expose", || {
                "is none of \"free\", \"software\" and the name of a line, such as \"Line1\"".into()
            });
        }
        let by_line = matches!(self.expose, Exposure::Line(_));
        faults.unless(by_line || self.edge == Edge::Rising, "edge", || {
            "has no effect here: remove it, or name the line in `expose`".into()
        });
        if let Some(sensor) = self.sensor {
            let size = Size::new(sensor.width, sensor.height);
            let fits = check_picture_size(size).is_ok() && sensor.x.max(sensor.y) <= 1 << 20;
            faults
                .unless(fits, "sensor", || format!("{size} at ({}, {}) is on no sensor", sensor.x, sensor.y));
        }
        faults.rate(self.rate);
        faults.unless(self.rate == 0.0 || self.expose == Exposure::Free, "rate", || {
            "has no effect on a camera that exposes when it is told: remove it, or set expose = \"free\""
                .into()
        });
        let bounded = |value: Option<f64>, most: f64| value.is_none_or(|v| (0.0..=most).contains(&v));
        faults.unless(bounded(self.exposure_us, 60e6), "exposure_us", || {
            "is out of bounds: give up to 60000000".into()
        });
        faults.unless(bounded(self.gain, 1e6), "gain", || {
            "is out of bounds: give a gain in the camera's unit".into()
        });
        let factors = self.white_balance.map_or([1.0; 2], |b| [b.red, b.blue]);
        faults.unless(factors.iter().all(|factor| (0.0..=1000.0).contains(factor)), "white_balance", || {
            "is out of bounds: give factors".into()
        });
        faults.unless(
            self.packet_size == 0 || (576..=65_535).contains(&self.packet_size),
            "packet_size",
            || format!("{} is out of bounds: give 576 to 65535 bytes, or 0", self.packet_size),
        );
        faults.stall(self.stall_ms);
        if let Some((name, _)) = self.features.iter().find(|(name, _)| TRIGGERING.contains(name)) {
            faults.unless(false, "features", || {
                format!("{name} would be overwritten: what exposes the camera is said by `expose` and `edge`")
            });
        }
        let names = self.features.iter().all(|(name, _)| text(name));
        faults.unless(names && self.features.iter().count() <= MAX_FEATURES, "features", || {
            format!("give names and values, at most {MAX_FEATURES}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> GenicamOptions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn features_are_written_in_the_order_of_their_list() {
        let listed = read(
            "features = [{ LineSelector = \"Line1\" }, { LineInverter = true }, { Gamma = 0.5, BinningHorizontal = 2 }]",
        );
        let names: Vec<_> = listed.features.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            names,
            ["LineSelector=\"Line1\"", "LineInverter=true", "BinningHorizontal=2", "Gamma=0.5"]
        );
        let table = read("features = { B = 1, A = 2 }");
        assert_eq!(table.features.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(toml::from_str::<GenicamOptions>(&toml::to_string(&listed).unwrap()), Ok(listed));
    }

    #[test]
    fn a_camera_exposes_by_itself_on_request_or_by_a_line() {
        let expose = |text: &str| read(&format!("expose = \"{text}\"")).expose;
        assert_eq!((expose("free"), expose("software")), (Exposure::Free, Exposure::Software));
        assert_eq!(expose("Line3"), Exposure::Line("Line3".into()));
    }

    #[test]
    fn nonsense_is_a_fault() {
        let options = read(
            "expose = \"software\"\nrate = 5\nexposure_us = -1\npacket_size = 1\nstall_ms = 1\nformat = \"\"\n\
             sensor = { x = 0, y = 0, width = 0, height = 5 }\nedge = \"any\"\n\
             white_balance = { red = 1.5, blue = -2 }\nfeatures = { TriggerMode = \"On\" }",
        );
        let mut faults = Faults(Vec::new());
        options.check(&mut faults);
        let keys: Vec<_> = faults.0.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "camera",
                "format",
                "edge",
                "sensor",
                "rate",
                "exposure_us",
                "white_balance",
                "packet_size",
                "stall_ms",
                "features"
            ]
        );
    }
}
