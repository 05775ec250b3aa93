//! `inspectord calibrate`: renews a model's quantiles and threshold without training it.
//!
//! Out: the same bundle with new quantiles and another threshold in its place; what is usual on its maps stays what training
//! found. Its version follows from its tensors and quantiles, so that another threshold alone leaves it as it is.

use std::path::{Path, PathBuf};

use serde_json::Map;
use tracing::warn;

use super::eyes::{Descendant, Eyes};
use super::progress::Progress;
use super::report::UsageError;
use super::{device, train};
use crate::detector::options::Device;
use crate::efficientad::CalibratedModel;
use crate::training::calibrate::{Usual, calibrate};
use crate::training::dataset::CalibrationPictures;
use crate::training::threshold::{FALSE_POSITIVE_RATE, check_rate};

/// Renews a model's quantiles and threshold without training.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord calibrate --model models/bottle --data new-normals --false-positive-rate 0.0005
  inspectord calibrate --model models/bottle --data frames --camera top --config inspectord.toml

The pictures must be normal ones that the model was not trained on. Where --data is the folder that it was trained on,
those that training held out are taken, and those that it learnt help to tell how scores spread.")]
pub struct Args {
    /// The model bundle; it is replaced when the calibration is complete.
    #[arg(long, value_name = "BUNDLE")]
    model: PathBuf,
    /// The folder of normal pictures.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The share of normal parts that may be called anomalous.
    #[arg(long, value_name = "F", default_value_t = FALSE_POSITIVE_RATE)]
    false_positive_rate: f64,
    #[command(flatten)]
    eyes: Eyes,
    /// The device to run on: auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    device: Device,
    /// Prints progress and outcome as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    check_rate(args.false_positive_rate).map_err(|e| UsageError(format!("--false-positive-rate: {e}")))?;
    refuse_a_version(&args.model)?;
    let model = CalibratedModel::load(&args.model)?;
    let version = model.model_ref().version;
    let descendants = args.eyes.descendants(&args.model, &version);
    for Descendant { camera, active } in &descendants {
        warn!(
            %camera, active,
            "the camera runs a version that was retrained from this model; where the pictures change the model's quantiles, the \
             model runs in its place"
        );
    }
    let training = &model.manifest().training;
    let mut sight = args.eyes.open()?;
    if let (None, Some(view)) = (sight.words(), &training.view) {
        warn!(
            trained_with = view,
            "the model learnt what a camera sees, and these pictures are taken whole: name the camera with --camera"
        );
    }
    let pictures = CalibrationPictures::find(&args.data, training.seed, &training.pictures)?;
    if !pictures.known_unseen {
        warn!("these pictures calibrate the model only if it was not trained on them");
    }
    let device = device::open(args.device)?;
    let mut progress = Progress::new(args.json);
    let mut tell = |done: usize, of: usize| {
        if done == 0 {
            progress.begin("calibrating", 0, of as u64);
        }
        progress.advance(done as u64, "", &Map::new());
        Ok(())
    };
    let seen = (&pictures.normals, &mut sight);
    let usual = Usual::Known(model.normalisation().usual);
    let model = (model.into_trained(), usual);
    let calibrated = calibrate(model, seen, args.false_positive_rate, &device, &mut tell);
    progress.end();
    let model = calibrated?;
    model.save(&args.model)?;
    for Descendant { camera, active } in &descendants {
        if model.model_ref().version == version {
            warn!(
                %camera, active,
                "the camera goes on running its version with the threshold that it has: for another one set the camera's \
                 `threshold`, or retrain with another `retrain.false_positive_rate`"
            );
        } else {
            warn!(%camera, active, "the camera runs this model in place of its version, from its next start on");
        }
    }
    train::outcome(&model, &args.model, args.json)
}

/// A retrained version goes by what is in it: changed, it would be one that nobody knows, and the line would lose it.
fn refuse_a_version(bundle: &Path) -> Result<(), UsageError> {
    let whole = bundle.canonicalize().unwrap_or_else(|_| bundle.to_owned());
    if whole.parent().and_then(Path::file_name).is_none_or(|folder| folder != "versions") {
        return Ok(());
    }
    Err(UsageError(format!(
        "{} is a version that retraining made, and goes by what is in it: copy the folder elsewhere, calibrate the copy, and \
         name that as the camera's `model`",
        bundle.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;
    use crate::verdict::Threshold;

    /// A retrained version goes on running where this says that the model is the same.
    #[test]
    fn another_threshold_alone_makes_no_other_version_and_other_quantiles_do() {
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let model = untrained::model(&tiny, 0);
        let version = model.model_ref().version;
        let calibrated = |add: f32, threshold: f32| {
            let (mut normalisation, mut calibration) =
                (model.normalisation(), model.manifest().calibration.clone());
            normalisation.quantiles.student_teacher.b += add;
            calibration.threshold = Threshold(threshold);
            model.clone().into_trained().calibrate(normalisation, calibration).unwrap().model_ref().version
        };
        assert_eq!(calibrated(0.0, 7.0), version);
        assert_ne!(calibrated(0.1, 1.0), version);
    }

    #[test]
    fn a_retrained_version_is_not_changed_where_it_lies() {
        let root = tempfile::tempdir().unwrap();
        let version = root.path().join("top/versions/3f9a0c");
        std::fs::create_dir_all(&version).unwrap();
        let refused = refuse_a_version(&version).unwrap_err().to_string();
        assert!(refused.contains("3f9a0c") && refused.contains("copy the folder"), "{refused}");
        std::os::unix::fs::symlink(&version, root.path().join("model")).unwrap();
        assert!(refuse_a_version(&root.path().join("model")).is_err());
        assert!(refuse_a_version(&root.path().join("top")).is_ok());
        assert!(refuse_a_version(Path::new("models/none")).is_ok());
    }
}
