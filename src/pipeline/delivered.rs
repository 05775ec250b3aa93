//! The files that a camera delivered last. Judged files are known from the store, those still on their way there from here.

use std::collections::{HashSet, VecDeque};

use crate::frame::{FileKey, SourceRef};

/// More than can be on their way.
const KEPT: usize = 1024;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivered(VecDeque<FileKey>);

impl Delivered {
    pub(super) fn remember(&mut self, source: Option<&SourceRef>) {
        if let Some(source) = source {
            if self.0.len() == KEPT {
                self.0.pop_front();
            }
            self.0.push_back(source.key());
        }
    }

    /// Those that are among `files`.
    pub(super) fn among(&self, files: &HashSet<FileKey>) -> impl Iterator<Item = FileKey> {
        self.0.iter().copied().filter(|file| files.contains(file))
    }
}
