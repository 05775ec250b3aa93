//! What is inside the program, so that nobody has to look for it: the demo's model and the teachers.
//!
//! `models/README.md` says how each was made, from what, and under which licence.

use std::path::Path;

use crate::efficientad::{BundleError, CalibratedModel, PdnSize};

/// The model of the simulated line.
///
/// # Errors
/// It is damaged, which a test precludes.
pub(super) fn demo_model() -> Result<CalibratedModel, BundleError> {
    CalibratedModel::from_bytes(
        Path::new("the demo's model inside this program"),
        include_bytes!("../../models/demo/manifest.json"),
        include_bytes!("../../models/demo/model.safetensors"),
    )
}

/// The content of the teacher's file for networks of `size`.
pub(super) fn teacher(size: PdnSize) -> &'static [u8] {
    match size {
        PdnSize::Tiny => include_bytes!("../../models/teacher-tiny.safetensors"),
        PdnSize::Small => include_bytes!("../../models/teacher-small.safetensors"),
        PdnSize::Medium => include_bytes!("../../models/teacher-medium.safetensors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::Architecture;
    use crate::frame::Size;
    use crate::training::teacher::TeacherSource;

    #[test]
    fn all_that_ships_can_be_used() {
        demo_model().unwrap();
        for size in [PdnSize::Tiny, PdnSize::Small, PdnSize::Medium] {
            let architecture = Architecture::new(size, Size::new(256, 256)).unwrap();
            TeacherSource::bytes(Path::new("teacher"), teacher(size), &architecture).unwrap();
        }
    }
}
