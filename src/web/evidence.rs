//! A verdict's picture and heat map, as they are or as a small PNG for the page.
//!
//! The store says where a verdict's evidence lies; only files that it writes there are read. Small ones are drawn one at
//! a time, so that a page cannot take the cores from inspection.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use uuid::Uuid;

use super::View;
use super::answer::Answer;
use crate::frame::{CameraId, Size};
use crate::imaging::{self, Resizer};
use crate::telemetry::chain;

/// The longer side of a small picture.
const SMALL: u32 = 480;

/// Taken by whoever draws a small picture.
static DRAWING: Mutex<()> = Mutex::new(());

/// Which of a verdict's pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the camera delivered it.
    Picture,
    /// With the heat map over it.
    Heatmap,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "picture" => Some(Self::Picture),
            "heatmap" => Some(Self::Heatmap),
            _ => None,
        }
    }

    fn stem(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Heatmap => "heatmap",
        }
    }
}

/// Which picture of which verdict is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) camera: CameraId,
    pub(super) sequence: u64,
    pub(super) kind: Kind,
    pub(super) small: bool,
    /// The verdict's id, which alone names it for ever: a store that was replaced counts from 1 again.
    pub(super) id: Option<Uuid>,
}

pub(super) fn answer(view: &View, asked: &Asked) -> Answer {
    let found = found(view, asked);
    // Without the id it may be another part's tomorrow.
    if asked.id.is_some() { found.lasting() } else { found }
}

fn found(view: &View, &Asked { ref camera, sequence, kind, small, id }: &Asked) -> Answer {
    let gone = || Answer::not_found("there is no such evidence, or not any more");
    let store = &view.watched.store;
    let verdict = match store.replay(camera, (sequence, sequence), 1) {
        Ok(verdicts) => verdicts.into_iter().next(),
        Err(error) => return Answer::text(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    };
    let verdict = verdict.filter(|verdict| id.is_none_or(|id| id == verdict.id));
    let file = verdict.and_then(|verdict| store.evidence(&verdict)).and_then(|folder| find(&folder, kind));
    let Some(file) = file else { return gone() };
    if small {
        return drawn_small(&file)
            .unwrap_or_else(|why| Answer::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let content_type = match file.extension().and_then(|extension| extension.to_str()) {
        Some("png") => "image/png",
        Some("jpg") => "image/jpeg",
        Some("bmp") => "image/bmp",
        Some("tif" | "tiff") => "image/tiff",
        _ => "application/octet-stream",
    };
    match File::open(&file) {
        Ok(open) => Answer::file(content_type, open),
        Err(_deleted) => gone(),
    }
}

/// The file of `kind` in an evidence folder, whatever its extension.
fn find(folder: &Path, kind: Kind) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == kind.stem()))
}

fn drawn_small(file: &Path) -> Result<Answer, String> {
    let _one_at_a_time = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let picture = imaging::load(file).map_err(|error| chain(&error))?;
    let Size { width, height } = picture.size();
    let longer = width.max(height);
    if longer <= SMALL {
        return Ok(Answer::new("image/png", imaging::png(&picture)));
    }
    let side = |side: u32| (u64::from(side) * u64::from(SMALL) / u64::from(longer)).max(1) as u32;
    let small = Resizer::new().resize(&picture, Size::new(side(width), side(height)));
    let small = small.map_err(|error| chain(&error))?;
    Ok(Answer::new("image/png", imaging::png(&small)))
}
