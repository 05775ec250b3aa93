//! How often a retraining over one set was begun and never came to an end: `work/tries.json`.
//!
//! A process that the kernel ends where memory runs short leaves no word, may take the daemon with it, and would be begun
//! again for ever. Whatever ends in order, or gets as far as a checkpoint, starts the count anew. Not here: what follows
//! (`school`).

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::RetrainError;
use super::files;
use super::home::Home;

/// So many in a row are no accident, as power cuts and reboots are.
pub(super) const MOST: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
struct Tries {
    /// The version of the set.
    set: String,
    begun: u32,
}

fn path(home: &Home) -> PathBuf {
    home.work().join("tries.json")
}

fn read(home: &Home, set: &str) -> u32 {
    let tries = fs::read(path(home)).ok().and_then(|text| serde_json::from_slice::<Tries>(&text).ok());
    tries.filter(|tries| tries.set == set).map_or(0, |tries| tries.begun)
}

/// Notes durably that one over the set of this version begins; `work` is there by then.
pub(super) fn begin(home: &Home, set: &str) -> Result<(), RetrainError> {
    let tries = Tries { set: set.to_owned(), begun: read(home, set).saturating_add(1) };
    let (path, text) =
        (path(home), serde_json::to_vec(&tries).expect("a count is plain data: this is a bug"));
    files::replace(&path, &text).map_err(RetrainError::file("write", &path))
}

/// Notes that it got on, or ended in order.
pub(super) fn forget(home: &Home) {
    // What is left counts one too many, which only costs a command.
    let _may_not_be_there = fs::remove_file(path(home));
}

/// Whether another one is to wait for further samples or a command.
pub(super) fn are_spent(home: &Home, set: &str) -> bool {
    read(home, set) >= MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_given_up_and_further_samples_or_progress_begin_the_count_anew() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        fs::create_dir_all(home.work()).unwrap();
        for _ in 0..MOST {
            assert!(!are_spent(&home, "a"));
            begin(&home, "a").unwrap();
        }
        assert!(are_spent(&home, "a") && !are_spent(&home, "b"));
        forget(&home);
        assert!(!are_spent(&home, "a"));
        forget(&home);
    }
}
