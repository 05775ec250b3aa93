//! A calibrated model made runnable: one [`Inspector`] per engine, and the [`Detector`] that turns its map into a finding.
//!
//! In: a picture of the networks' input size. Out: a finding in pixels of the captured picture, and the full-size map.
//! Every detector belongs to one thread; the CPU engine borrows the workers that all detectors share.
//! Not here: training, cameras, and what happens to a finding.

pub mod cpu;
pub mod cuda;
mod filters;
mod finding;
pub mod measure;
pub mod options;
pub mod reference;
mod resilient;
pub mod untrained;

use thiserror::Error;

use crate::efficientad::{Architecture, CalibratedModel, Calibration, maps};
use crate::frame::{Picture, Region, Size, check_picture_size};
use crate::imaging::{Grid, Mask};
use crate::verdict::{Finding, ModelRef, Threshold};

pub use cpu::Cpu;
pub use cuda::{Cuda, CudaError};
pub use finding::MAX_REGIONS;
pub use options::Options;
pub use reference::Reference;
pub use resilient::{Resilient, engine_fallbacks};

/// A map of anomaly, row by row; higher is worse.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    /// Columns and rows.
    pub size: Size,
    /// `height × width` values, unbounded.
    pub values: Vec<f32>,
}

/// Why an engine gave no map.
#[derive(Debug, Error)]
pub enum InspectorError {
    /// A picture has not the size that the model reads.
    #[error("the model reads pictures of {expected}, got {got}")]
    Input {
        /// What the model reads.
        expected: Size,
        /// What it was given.
        got: Size,
    },
    /// The part of the captured picture that the map is wanted for has no pixels, or more than a picture may have.
    #[error("a map of {0} was asked for, which is no picture's size")]
    View(Size),
    /// The map holds a value that is not a finite number.
    #[error("the model's map is not finite: its weights or its input are damaged")]
    NotFinite,
    /// The mask leaves nothing to be looked at.
    #[error("the camera's mask hides everything that the model can see: show it more")]
    Hidden,
    /// The device has no room now; it may have later.
    #[error("the {engine} engine has no room: {message}")]
    NoRoom {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        message: String,
    },
    /// The device failed; another engine may still work.
    #[error("the {engine} engine failed: {message}")]
    Device {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        message: String,
    },
}

/// Why a model cannot be made runnable.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The device is not there, or has no room for the model.
    #[error("the model cannot be run on {device}: {message}")]
    Device {
        /// Which device.
        device: String,
        /// What it said.
        message: String,
    },
    /// The settings ask for an engine that cannot run on the device.
    #[error("inference settings: `{key}`: {message}")]
    Options {
        /// Which key of `[inference]`.
        key: String,
        /// What is wrong, and the remedy.
        message: String,
    },
}

/// An engine that runs a calibrated EfficientAD model.
pub trait Inspector: Send {
    /// Which engine, on what, with how many threads; for people.
    fn describe(&self) -> String;

    /// The size of the pictures that [`Inspector::infer`] takes.
    fn input(&self) -> Size;

    /// The combined, quantile-normalised map of each picture, unpadded: 56×56 at 256×256 (paper §3.4).
    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError>;

    /// The same, and each map padded and resized to `size`, for engines that do so faster where the map is.
    fn infer_enlarged(
        &mut self,
        pictures: &[&Picture],
        size: Size,
    ) -> Result<Vec<Enlargement>, InspectorError> {
        Ok(self.infer(pictures)?.into_iter().map(|raw| Enlargement::of(raw, size)).collect())
    }
}

/// A raw map, and the same as large as the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Enlargement {
    /// Unpadded, as [`Inspector::infer`] gives it.
    pub raw: AnomalyMap,
    /// At the size that was asked for.
    pub map: AnomalyMap,
    /// The highest value of `map`.
    pub highest: f32,
}

impl Enlargement {
    /// Computed here.
    fn of(raw: AnomalyMap, size: Size) -> Self {
        let (rows, columns) = (raw.size.height as usize, raw.size.width as usize);
        let values = maps::full_size(&raw.values, rows, columns, size);
        let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { raw, map: AnomalyMap { size, values }, highest }
    }
}

/// Refuses pictures that have not the size that the model reads.
pub(crate) fn check_inputs(expected: Size, pictures: &[&Picture]) -> Result<(), InspectorError> {
    match pictures.iter().find(|p| p.size() != expected) {
        Some(picture) => Err(InspectorError::Input { expected, got: picture.size() }),
        None => Ok(()),
    }
}

/// The engine that `options` ask for, with `model` loaded; the seam at which further engines come in.
///
/// # Errors
/// The options contradict themselves, or the device is not there or has no room.
pub fn open_engine(model: &CalibratedModel, options: &Options) -> Result<Box<dyn Inspector>, OpenError> {
    if let Some((key, message)) = options.faults().into_iter().next() {
        return Err(OpenError::Options { key, message });
    }
    let cpu = || -> Box<dyn Inspector> { Box::new(Cpu::new(model, options.thread_count())) };
    let card = |n: usize| {
        let device = options::Device::Cuda(n).to_string();
        Cuda::new(model, n).map_err(|e| OpenError::Device { device, message: e.to_string() })
    };
    match (options.engine, options.device) {
        (options::Engine::Reference, device) => Ok(Box::new(open_reference(model, device)?)),
        (options::Engine::Cuda, options::Device::Cuda(n)) => Ok(Box::new(card(n)?)),
        (options::Engine::Cuda, _) => Ok(Box::new(card(0)?)),
        (options::Engine::Auto, options::Device::Cuda(n)) => {
            Ok(resilient::choose(model, move |model| Cuda::new(model, n).map(boxed), cpu))
        }
        (options::Engine::Auto, options::Device::Auto) => {
            let any = |model: &CalibratedModel| Ok(Cuda::any(model)?.and_then(boxed));
            Ok(resilient::choose(model, any, cpu))
        }
        (options::Engine::Auto | options::Engine::Cpu, _) => Ok(cpu()),
    }
}

fn boxed(engine: Cuda) -> Option<Box<dyn Inspector>> {
    Some(Box::new(engine))
}

fn open_reference(model: &CalibratedModel, asked: options::Device) -> Result<Reference, OpenError> {
    let device = match asked {
        options::Device::Auto | options::Device::Cpu => candle_core::Device::Cpu,
        options::Device::Cuda(n) => candle_core::Device::new_cuda(n)
            .map_err(|e| OpenError::Device { device: asked.to_string(), message: e.to_string() })?,
    };
    Reference::new(model, device, asked.to_string())
}

/// What an inspection brings: the finding, and the map it was drawn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Score, peak and areas, in pixels of the captured picture.
    pub finding: Finding,
    /// The anomaly map at the viewed part's size.
    pub map: AnomalyMap,
}

/// A model that can judge pictures.
pub struct Detector {
    engine: Box<dyn Inspector>,
    model: ModelRef,
    threshold: Threshold,
    calibration: Option<Calibration>,
}

impl Detector {
    /// A detector that holds the engine's maps against `threshold`.
    pub fn new(engine: Box<dyn Inspector>, model: ModelRef, threshold: Threshold) -> Self {
        Self { engine, model, threshold, calibration: None }
    }

    /// The model, run as `options` say, judging by its own threshold.
    ///
    /// # Errors
    /// The options contradict themselves, or the device is not there or has no room.
    pub fn open(model: CalibratedModel, options: &Options) -> Result<Self, OpenError> {
        let engine = open_engine(&model, options)?;
        let calibration = Some(model.manifest().calibration.clone());
        Ok(Self { calibration, ..Self::new(engine, model.model_ref(), model.threshold()) })
    }

    /// The size of the pictures that [`Detector::inspect`] takes.
    pub fn input(&self) -> Size {
        self.engine.input()
    }

    /// Who judges.
    pub fn model(&self) -> &ModelRef {
        &self.model
    }

    /// What the model's normal pictures and scores were like, where that is known.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Scores above it are anomalous.
    pub fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Judges by another threshold from the next picture on.
    pub fn set_threshold(&mut self, threshold: Threshold) {
        self.threshold = threshold;
    }

    /// Which engine, on what, with how many threads; for people.
    pub fn describe(&self) -> String {
        self.engine.describe()
    }

    /// Judges one picture, resized to [`Detector::input`] from the part `viewed` of the captured picture.
    ///
    /// # Errors
    /// As [`Detector::inspect_visible`].
    pub fn inspect(&mut self, prepared: &Picture, viewed: Region) -> Result<Inspection, InspectorError> {
        self.inspect_visible(prepared, viewed, None)
    }

    /// Judges one picture by what the mask of its viewed part leaves visible: score, peak, regions and map.
    ///
    /// # Errors
    /// A map with a value that is not finite is an error, never a finding; so is one of which nothing is visible.
    pub fn inspect_visible(
        &mut self,
        prepared: &Picture,
        viewed: Region,
        mask: Option<&Mask>,
    ) -> Result<Inspection, InspectorError> {
        let size = Size::new(viewed.width, viewed.height);
        check_picture_size(size).map_err(|_| InspectorError::View(size))?;
        let Some(mask) = mask.filter(|mask| mask.size() == size) else {
            return self.inspect_whole(prepared, viewed, size);
        };
        let maps = self.engine.infer(&[prepared])?;
        let mut raw = maps.into_iter().next().expect("an engine returns a map per picture: this is a bug");
        let (rows, columns) = (raw.size.height as usize, raw.size.width as usize);
        // Asked before anything is hidden: damage is damage wherever it shows.
        if !raw.values.iter().all(|value| value.is_finite()) {
            return Err(InspectorError::NotFinite);
        }
        let grid = Grid { rows, columns, padding: Architecture::MAP_PADDING };
        let floor = mask.silence_cells(&mut raw.values, grid).ok_or(InspectorError::Hidden)?;
        let mut values = maps::full_size(&raw.values, rows, columns, size);
        mask.silence(&mut values, floor);
        let map = AnomalyMap { size, values };
        let finding = finding::judge(&map, viewed, self.threshold, self.model.clone())?;
        Ok(Inspection { finding, map })
    }

    /// Where nothing is hidden, the map may be enlarged where it is.
    fn inspect_whole(
        &mut self,
        prepared: &Picture,
        viewed: Region,
        size: Size,
    ) -> Result<Inspection, InspectorError> {
        let enlarged = self.engine.infer_enlarged(&[prepared], size)?;
        let both = enlarged.into_iter().next().expect("an engine returns a map per picture: this is a bug");
        if !both.raw.values.iter().all(|value| value.is_finite()) {
            return Err(InspectorError::NotFinite);
        }
        let finding = finding::judge(&both.map, viewed, self.threshold, self.model.clone())?;
        Ok(Inspection { finding, map: both.map })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pixels;
    use crate::imaging::{self, Areas, Preparation, Prepared, View};

    struct Fixed(Vec<f32>);

    impl Inspector for Fixed {
        fn describe(&self) -> String {
            "fixed".into()
        }

        fn input(&self) -> Size {
            Size::new(256, 256)
        }

        fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
            let map = AnomalyMap { size: Size::new(2, 2), values: self.0.clone() };
            Ok(vec![map; pictures.len()])
        }
    }

    fn detector(values: [f32; 4]) -> Detector {
        let model = ModelRef { name: "m".into(), version: "v".into() };
        Detector::new(Box::new(Fixed(values.to_vec())), model, Threshold(1.0))
    }

    #[test]
    fn a_detector_judges_by_the_full_size_map() {
        let picture = Picture::new(Size::new(256, 256), vec![0; 256 * 256 * 3]).unwrap();
        let viewed = Region { x: 7, y: 3, width: 10, height: 10 };
        let mut detector = detector([0.0, 2.0, 0.0, 0.0]);
        let inspection = detector.inspect(&picture, viewed).unwrap();
        assert_eq!(inspection.finding.peak, [7 + 5, 3 + 4]);
        assert_eq!(inspection.finding.regions.len(), 1);
        assert_eq!(inspection.map.size, Size::new(10, 10));
        detector.set_threshold(Threshold(2.0));
        assert!(detector.inspect(&picture, viewed).unwrap().finding.regions.is_empty());
    }

    #[test]
    fn what_a_mask_hides_makes_no_anomaly() {
        let areas = |ignore| Areas { ignore: vec![ignore], ..Areas::default() };
        let view = |ignore| View { areas: areas(ignore), ..View::default() };
        let picture = Picture::new(Size::new(256, 256), vec![0; 256 * 256 * 3]).unwrap();
        let pixels = Pixels::Encoded(imaging::png(&picture));
        let masked = |ignore| {
            let mut preparation = Preparation::open(&view(ignore), Size::new(256, 256)).unwrap();
            preparation.look(&pixels).unwrap()
        };
        // Of the 10 by 10 cells, those without values around the 2 by 2 included, the worst is the upper right one.
        let mut detector = detector([0.2, 2.0, 0.1, 0.4]);
        let hidden = masked(vec![[128, 0], [256, 0], [256, 128], [128, 128]]);
        let finding = |d: &mut Detector, p: &Prepared| {
            d.inspect_visible(&p.input, p.viewed, p.mask.as_deref()).unwrap()
        };
        let inspection = finding(&mut detector, &hidden);
        assert!(inspection.finding.score.0 < 0.5 && inspection.finding.regions.is_empty());
        let [x, y] = inspection.finding.peak;
        assert!(!hidden.mask.as_ref().unwrap().hides(x, y), "{x} {y}");
        let kept = masked(vec![[0, 0], [100, 0], [100, 256], [0, 256]]);
        let whole = detector.inspect(&picture, kept.viewed).unwrap().finding.score;
        assert_eq!(finding(&mut detector, &kept).finding.score, whole);
        // Nothing that the model can see is left.
        let nothing = masked(vec![[0, 0], [256, 0], [256, 200], [0, 200]]);
        let refused = detector.inspect_visible(&nothing.input, nothing.viewed, nothing.mask.as_deref());
        assert!(matches!(refused, Err(InspectorError::Hidden)));
    }

    #[test]
    fn damage_is_an_error_and_never_ok() {
        let picture = Picture::new(Size::new(256, 256), vec![0; 256 * 256 * 3]).unwrap();
        let viewed = Region { x: 0, y: 0, width: 20, height: 20 };
        let result = detector([0.0, f32::NAN, 0.0, 0.0]).inspect(&picture, viewed);
        assert!(matches!(result, Err(InspectorError::NotFinite)));
        let nothing = Region { width: 0, ..viewed };
        assert!(matches!(detector([0.0; 4]).inspect(&picture, nothing), Err(InspectorError::View(_))));
    }
}
