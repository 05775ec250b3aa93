//! Which pictures a step sees, and how: everything follows from the seed and the step's number.
//!
//! In: folders. Out: batches of views, prepared ahead on a thread of their own. A picture that cannot be read is named
//! and the next one taken in its place, up to a bound. Not here: the view itself (`crops`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::crops::View;
use super::error::DistillationError;
use super::options::Options;
use crate::imaging::{self, Resizer};
use crate::telemetry;

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];
/// Of so many pictures one may be unreadable, and a few in any case.
const ONE_BAD_IN: usize = 20;
const BAD_IN_ANY_CASE: usize = 10;
/// Batches prepared ahead.
const AHEAD: usize = 2;

/// Streams of chance; within each, the generator's stream counts epochs or samples.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Order = 1,
    View = 2,
    Measure = 3,
}

fn chance(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((purpose as u64) << 56 | number);
    rng
}

/// The pictures in `folders` and below, sorted by path; links to folders are not followed.
///
/// # Errors
/// A folder cannot be read, or there is no picture.
pub fn find_pictures(folders: &[PathBuf]) -> Result<Vec<PathBuf>, DistillationError> {
    let mut pictures = Vec::new();
    let mut open = folders.to_vec();
    while let Some(folder) = open.pop() {
        let failed = |source| DistillationError::Io { action: "read", path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = entry.path();
            if kind.is_dir() {
                open.push(path);
            } else if is_picture(&path) {
                pictures.push(path);
            }
        }
    }
    if pictures.is_empty() {
        return Err(DistillationError::Empty { folders: folders.to_vec() });
    }
    pictures.sort();
    // A folder may be named twice, or together with its parent.
    pictures.dedup();
    Ok(pictures)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// Says whether two lists are of the same pictures, by names and sizes: reading all of ImageNet would take too long.
pub(super) fn digest(pictures: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    for path in pictures {
        let bytes = fs::metadata(path).map_or(0, |m| m.len());
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
        hash.update(bytes.to_le_bytes());
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// All samples of a distillation, by number.
pub(super) struct Samples {
    pictures: Vec<PathBuf>,
    options: Options,
    /// The epoch whose order is at hand.
    order: Option<(u64, Vec<u32>)>,
    bad: BTreeSet<usize>,
}

impl Samples {
    pub(super) fn new(pictures: Vec<PathBuf>, options: Options) -> Self {
        Self { pictures, options, order: None, bad: BTreeSet::new() }
    }

    /// The views of `step`.
    pub(super) fn batch(&mut self, step: u64) -> Result<Vec<View>, DistillationError> {
        let batch = self.options.batch as u64;
        let seed = self.options.seed;
        let of = |sample| (self.picture(sample), chance(seed, Purpose::View, sample));
        let drawn: Vec<_> = (step * batch..(step + 1) * batch).map(of).collect();
        self.views(drawn)
    }

    /// View number `n` of those that channels are measured on.
    pub(super) fn measured(&mut self, n: u64) -> Result<Vec<View>, DistillationError> {
        let mut rng = chance(self.options.seed, Purpose::Measure, n);
        let picture = rng.random_range(0..self.pictures.len());
        self.views(vec![(picture, rng)])
    }

    /// Every picture once an epoch, in an order of its own each time.
    fn picture(&mut self, sample: u64) -> usize {
        let count = self.pictures.len() as u64;
        let epoch = sample / count;
        let (_, order) = match self.order.take_if(|(at, _)| *at == epoch) {
            Some(at_hand) => self.order.insert(at_hand),
            None => {
                let mut order: Vec<u32> = (0..count as u32).collect();
                order.shuffle(&mut chance(self.options.seed, Purpose::Order, epoch));
                self.order.insert((epoch, order))
            }
        };
        order[(sample % count) as usize] as usize
    }

    fn views(&mut self, drawn: Vec<(usize, ChaCha8Rng)>) -> Result<Vec<View>, DistillationError> {
        let (pictures, options) = (&self.pictures, &self.options);
        let view = |(first, mut rng): (usize, ChaCha8Rng)| {
            let mut faults = Vec::new();
            for n in 0..pictures.len() {
                let index = (first + n) % pictures.len();
                match imaging::load(&pictures[index]) {
                    Ok(picture) => {
                        let view = View::draw(&picture, options, &mut rng, &mut Resizer::new());
                        return (Some(view), faults);
                    }
                    Err(e) => faults.push((index, telemetry::chain(&e))),
                }
                if faults.len() > limit(pictures.len()) {
                    break;
                }
            }
            (None, faults)
        };
        let made: Vec<_> = drawn.into_par_iter().map(view).collect();
        let mut views = Vec::with_capacity(made.len());
        for (view, faults) in made {
            let last = self.remember(faults)?;
            views.push(view.ok_or_else(|| self.unreadable(last))?);
        }
        Ok(views)
    }

    /// Names new faults, and returns the last.
    fn remember(&mut self, faults: Vec<(usize, String)>) -> Result<String, DistillationError> {
        let mut last = String::new();
        for (index, fault) in faults {
            if self.bad.insert(index) {
                warn!(error = %fault, "picture skipped");
            }
            last = fault;
        }
        if self.bad.len() > limit(self.pictures.len()) {
            return Err(self.unreadable(last));
        }
        Ok(last)
    }

    fn unreadable(&self, last: String) -> DistillationError {
        DistillationError::Unreadable { bad: self.bad.len(), pictures: self.pictures.len(), last }
    }
}

fn limit(pictures: usize) -> usize {
    (pictures / ONE_BAD_IN + BAD_IN_ANY_CASE).min(pictures)
}

/// Batches one after the other, prepared ahead by a thread that ends with this.
pub(super) struct Loader {
    batches: Option<Receiver<Result<Vec<View>, DistillationError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// The batches of the steps from `from` to `to`, without it.
    pub(super) fn start(mut samples: Samples, from: u64, to: u64) -> Result<Self, DistillationError> {
        let (sender, receiver) = sync_channel(AHEAD);
        let work = move || {
            for step in from..to {
                let batch = samples.batch(step);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pictures".into()).spawn(work);
        let thread = thread.map_err(|e| DistillationError::Device(format!("no thread for pictures: {e}")))?;
        Ok(Self { batches: Some(receiver), thread: Some(thread) })
    }

    /// The next batch.
    pub(super) fn next(&mut self) -> Result<Vec<View>, DistillationError> {
        let received = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        received.unwrap_or_else(|| {
            Err(DistillationError::Device("the pictures' thread ended: this is a bug".into()))
        })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            let _panicked_already = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(good: usize, bad: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        for i in 0..good {
            let colour = image::Rgb([i as u8 * 10, 200, 30]);
            image::RgbImage::from_pixel(40, 30, colour).save(below.join(format!("{i}.png"))).unwrap();
        }
        for i in 0..bad {
            fs::write(folder.path().join(format!("bad{i}.JPG")), "no picture").unwrap();
        }
        fs::write(folder.path().join("readme.txt"), "no picture either").unwrap();
        folder
    }

    fn samples(folder: &Path, batch: usize) -> Samples {
        let pictures = find_pictures(&[folder.to_owned()]).unwrap();
        Samples::new(pictures, Options { batch, side: 64, ..Options::default() })
    }

    #[test]
    fn pictures_are_found_below_folders_once() {
        let folder = folder(3, 1);
        let below = folder.path().join("a");
        let pictures = find_pictures(&[folder.path().to_owned(), below.clone()]).unwrap();
        assert_eq!(pictures.len(), 4);
        assert!(pictures.is_sorted());
        let empty = tempfile::tempdir().unwrap();
        let error = find_pictures(&[empty.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("there is no picture") && error.contains(&*empty.path().to_string_lossy()));
        assert!(find_pictures(&[empty.path().join("missing")]).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn every_picture_comes_once_an_epoch_and_steps_repeat() {
        let folder = folder(6, 0);
        let mut samples = samples(folder.path(), 4);
        let mut epoch: Vec<usize> = (6..12).map(|n| samples.picture(n)).collect();
        epoch.sort_unstable();
        assert_eq!(epoch, [0, 1, 2, 3, 4, 5]);
        let (a, b) = (samples.batch(1).unwrap(), samples.batch(2).unwrap());
        assert_eq!(a, samples.batch(1).unwrap());
        assert_ne!(a, b);
    }

    #[test]
    fn unreadable_pictures_are_replaced_until_there_are_too_many() {
        let some = folder(4, 3);
        let mut samples_of_some = samples(some.path(), 7);
        assert_eq!(samples_of_some.batch(0).unwrap().len(), 7);
        assert_eq!(samples_of_some.bad.len(), 3);

        let only_bad = folder(0, 2);
        let error = samples(only_bad.path(), 1).batch(0).unwrap_err().to_string();
        assert!(error.contains("2 of 2 pictures") && error.contains("text file"), "{error}");

        let mostly_bad = folder(2, 30);
        let error = samples(mostly_bad.path(), 16).batch(0).unwrap_err().to_string();
        assert!(error.contains("of 32 pictures"), "{error}");
    }

    #[test]
    fn a_loader_delivers_in_order_and_ends_when_dropped() {
        let folder = folder(3, 0);
        let expected = samples(folder.path(), 2).batch(6).unwrap();
        let mut loader = Loader::start(samples(folder.path(), 2), 5, 1000).unwrap();
        loader.next().unwrap();
        assert_eq!(loader.next().unwrap(), expected);
    }
}
