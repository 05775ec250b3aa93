//! `[retrain]`: where samples and versions lie, when a retraining begins, and what a new version must show.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::detector::options::Device;
use crate::training::threshold::{FALSE_POSITIVE_RATE, check_rate};

/// How samples become new model versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether the daemon looks after samples and versions at all.
    pub enabled: bool,
    /// The folder of samples and versions; where it is not named, `retrain` beside the store's.
    #[serde(skip_serializing_if = "is_not_named")]
    pub path: PathBuf,
    /// New normal samples after which a retraining begins by itself; 0 leaves it to commands.
    pub new_samples: usize,
    /// Minutes without a further sample after which it begins with fewer; 0 never.
    pub quiet_minutes: u64,
    /// Training steps of a retraining.
    pub steps: u64,
    /// Adam's learning rate in a retraining, above 0 and at most 1.
    pub learning_rate: f64,
    /// Training steps of one from scratch, `inspectord retrain --full`.
    pub full_steps: u64,
    /// Seconds of training that a power cut or a restart may cost.
    pub checkpoint_seconds: u64,
    /// What it trains and tries on. Not the card that inspects, whose time it would take without a bound.
    pub device: Device,
    /// Processor threads that it may use, and with `idle` processors that it stays on.
    pub threads: usize,
    /// Whether it runs only when nobody else wants the processor.
    pub idle: bool,
    /// A folder of pictures of anything else, as for `inspectord train`; without one, they are made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<PathBuf>,
    /// The share of normal parts that may be called anomalous, above 0 and at most 0.5.
    pub false_positive_rate: f64,
    /// By how much the share of planted defects that are found may fall, 0–1.
    pub margin: f64,
    /// Versions that are kept.
    pub keep_versions: usize,
    /// Frames that were `ok` kept per camera, on which a new version runs in shadow.
    pub recent_frames: usize,
    /// Seconds between two of them.
    pub recent_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::new(),
            new_samples: 20,
            quiet_minutes: 10,
            steps: 500,
            learning_rate: 5e-4,
            full_steps: 5_000,
            checkpoint_seconds: 60,
            device: Device::Cpu,
            threads: 1,
            idle: true,
            penalty: None,
            false_positive_rate: FALSE_POSITIVE_RATE,
            margin: 0.05,
            keep_versions: 5,
            recent_frames: 120,
            recent_seconds: 120,
        }
    }
}

fn is_not_named(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Options {
    /// Takes a relative path from `base`, and none from where the store lies.
    pub fn anchor(&mut self, base: &Path, store: &Path) {
        self.path =
            if is_not_named(&self.path) { store.with_file_name("retrain") } else { base.join(&self.path) };
        if let Some(penalty) = &mut self.penalty {
            *penalty = base.join(&*penalty);
        }
    }

    /// All that is wrong: key, and what to do.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut unless = |fine: bool, key: &str, message: &str| {
            if !fine {
                faults.push((key.to_owned(), message.to_owned()));
            }
        };
        let trains = !matches!(self.device, Device::Cuda(_)) || cfg!(feature = "cuda");
        unless(
            trains,
            "device",
            "this build cannot train on cards: use cpu or auto, or a build with the feature cuda",
        );
        unless(self.new_samples <= 100_000, "new_samples", "is out of bounds: give 0 to 100000 samples");
        unless(self.quiet_minutes <= 10_080, "quiet_minutes", "is out of bounds: give 0 to 10080 minutes");
        for (key, steps) in [("steps", self.steps), ("full_steps", self.full_steps)] {
            unless((1..=1_000_000).contains(&steps), key, "is out of bounds: give 1 to 1000000 steps");
        }
        let rate = self.learning_rate > 0.0 && self.learning_rate <= 1.0;
        unless(rate, "learning_rate", "is out of bounds: give more than 0 and at most 1, such as 0.0002");
        let checkpoint = self.checkpoint_seconds <= 3_600;
        unless(checkpoint, "checkpoint_seconds", "is out of bounds: give 0 to 3600 seconds");
        unless((1..=256).contains(&self.threads), "threads", "is out of bounds: give 1 to 256 threads");
        if let Err(e) = check_rate(self.false_positive_rate) {
            unless(false, "false_positive_rate", &e.to_string());
        }
        unless((0.0..=1.0).contains(&self.margin), "margin", "is no share: give 0 to 1, such as 0.05");
        let versions = (2..=1_000).contains(&self.keep_versions);
        unless(versions, "keep_versions", "is out of bounds: give 2 to 1000; one to run, one to go back to");
        unless(self.recent_frames <= 10_000, "recent_frames", "is out of bounds: give 0 to 10000 frames");
        unless(self.recent_seconds <= 86_400, "recent_seconds", "is out of bounds: give 0 to 86400 seconds");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_beside_the_store_unless_the_settings_say_where() {
        let (base, store) = (Path::new("/etc/inspectord"), Path::new("/var/lib/inspectord/store"));
        let path = |written: &str| {
            let mut options = Options { path: written.into(), ..Options::default() };
            options.anchor(base, store);
            options.path
        };
        assert_eq!(path(""), Path::new("/var/lib/inspectord/retrain"));
        assert_eq!(path("samples"), Path::new("/etc/inspectord/samples"));
        assert_eq!(path("/srv/samples"), Path::new("/srv/samples"));
    }

    #[test]
    fn defaults_are_sound_and_all_faults_are_told_at_once() {
        assert_eq!(Options::default().faults(), []);
        let wrong = Options {
            steps: 0,
            threads: 0,
            false_positive_rate: 2.0,
            margin: f64::NAN,
            keep_versions: 1,
            ..Options::default()
        };
        let keys: Vec<String> = wrong.faults().into_iter().map(|f| f.0).collect();
        assert_eq!(keys, ["steps", "threads", "false_positive_rate", "margin", "keep_versions"]);
        let on_a_card = Options { device: Device::Cuda(0), ..Options::default() }.faults();
        assert_eq!(on_a_card.is_empty(), cfg!(feature = "cuda"), "{on_a_card:?}");
    }
}
