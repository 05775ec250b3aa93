//! The paper's pretraining: a patch description network learns what a large classifier sees.
//!
//! In: a backbone, folders of pictures of anything, [`Options`]. Out: a teacher, and on the way checkpoints and a log of
//! the loss. Runs on the caller's thread, with one more that prepares pictures ahead. Not here: the backbones
//! (`efficientad::backbone`), progress bars (`cli`).

mod crops;
mod error;
mod log;
mod options;
mod samples;
mod session;
mod step;
mod target;
mod teacher_file;

pub use error::DistillationError;
pub use options::Options;
pub use samples::find_pictures;
pub use session::{Event, Inputs, Outcome, Watch, distill};
pub use teacher_file::write as write_teacher;
