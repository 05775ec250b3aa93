//! The loss of every step, as CSV beside the teacher: `step,loss,learning_rate`.
//!
//! A resumed distillation drops the lines after its checkpoint, so that every step stands there once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::DistillationError;

const HEADER: &str = "step,loss,learning_rate\n";

/// The log of one distillation.
pub(super) struct LossLog {
    path: PathBuf,
    file: File,
}

impl LossLog {
    /// Where the log of the teacher at `out` lies.
    pub(super) fn path_for(out: &Path) -> PathBuf {
        out.with_extension("loss.csv")
    }

    /// Goes on after `steps` steps, or begins where there are none.
    pub(super) fn open(path: &Path, steps: u64) -> Result<Self, DistillationError> {
        let failed = |action| move |source| DistillationError::Io { action, path: path.to_owned(), source };
        let kept = match fs::read_to_string(path) {
            Ok(text) if steps > 0 => kept(&text, steps),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("read")(e)),
            _ => HEADER.to_owned(),
        };
        fs::write(path, kept).map_err(failed("write"))?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed("write"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds the loss of `step`, counted from 1.
    pub(super) fn add(&mut self, step: u64, loss: f32, rate: f64) -> Result<(), DistillationError> {
        let line = format!("{step},{loss:.6},{rate:.3e}\n");
        let failed = |source| DistillationError::Io { action: "write", path: self.path.clone(), source };
        self.file.write_all(line.as_bytes()).map_err(failed)
    }
}

fn kept(text: &str, steps: u64) -> String {
    let number = |line: &str| line.split(',').next().and_then(|n| n.parse::<u64>().ok());
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = lines.filter(|line| number(line).is_some_and(|n| n <= steps));
    std::iter::once(HEADER).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = LossLog::path_for(&folder.path().join("teacher.safetensors"));
        let mut log = LossLog::open(&path, 0).unwrap();
        for step in 1..=5 {
            log.add(step, 0.5, 1e-4).unwrap();
        }
        drop(log);
        let mut torn = fs::read_to_string(&path).unwrap();
        torn.push_str("6,0.4");
        fs::write(&path, torn).unwrap();
        LossLog::open(&path, 3).unwrap().add(4, 0.25, 1e-5).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let steps: Vec<&str> = text.lines().skip(1).map(|l| l.split(',').next().unwrap()).collect();
        assert_eq!(steps, ["1", "2", "3", "4"]);
        assert!(text.ends_with("4,0.250000,1.000e-5\n"));
        LossLog::open(&path, 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), HEADER);
    }
}
