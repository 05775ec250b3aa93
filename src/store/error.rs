//! What can go wrong in the store, said so that an operator knows the remedy.
//!
//! A full or failing disk while running is no error here: records wait and are retried, and `Health` says so.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the store did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the store.
    #[error(
        "the store {path} is in use by {holder}: stop that one first, or give this one a folder of its own in [store] path"
    )]
    Locked {
        /// The store's folder.
        path: PathBuf,
        /// `process 1234`, as far as it is known.
        holder: String,
    },
    /// The folder cannot be made, read or written.
    #[error(
        "the store folder {path} cannot be used: {source}; it must be a folder that this user may write to, on a disk that \
         works, and a service's on another disk needs ReadWritePaths= in its unit"
    )]
    Unusable {
        /// The store's folder, or what is in its way.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder was written by a later version of this program.
    #[error(
        "{path} has journal format {got}, and this program knows formats up to {known}: use the newer program again, or another folder"
    )]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its format.
        got: u32,
        /// The newest format known here.
        known: u32,
    },
    /// There is no store there to be read.
    #[error("there is no store at {path}: name the folder that [store] path names")]
    Missing {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}: {source}; is the disk failing, or may this user not use it?")]
    File {
        /// In words: `read`, `list`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk cannot read what was recorded.
    #[error(
        "the disk cannot read recorded verdicts; it is asked again, for two minutes: look at the disk (smartctl), and copy the store"
    )]
    Unreadable,
    /// The operating system gives no more threads.
    #[error("the operating system refuses the store another thread; raise TasksMax or stop other programs")]
    Thread(#[source] io::Error),
    /// More is asked to be kept open or recorded than there are bounds for.
    #[error("{what} of {got} exceeds the bound of {limit}: {remedy}")]
    TooLarge {
        /// What exceeds.
        what: &'static str,
        /// How large it is.
        got: usize,
        /// How large it may be.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The store has no room for more work now.
    #[error("the store is busy: {waiting} records wait to be written; is the disk full, failing or slow?")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The store was closed before everything was on disk.
    #[error("the store was closed with {records} records not written: {reason}")]
    Unwritten {
        /// How many.
        records: usize,
        /// What the disk said.
        reason: String,
    },
}

impl StoreError {
    /// A [`StoreError::File`], for use with `map_err`.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}
