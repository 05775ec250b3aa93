//! `inspectord snapshot`: one picture of a camera, as its detector would see it.
//!
//! Out: a PNG of the upright picture with region and mask drawn, and what was measured on it. Changes nothing; beside a
//! running daemon it finds a live camera in use.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::common::SettingsArgs;
use crate::camera::{self, Next};
use crate::efficientad::CalibratedModel;
use crate::frame::{CameraId, Frame};
use crate::imaging::{self, Preparation};
use crate::settings::Camera;
use crate::training;

/// How long the camera has for a frame.
const PATIENCE: Duration = Duration::from_secs(15);

/// Saves one picture of a camera with its region and mask drawn, and tells how bright and how sharp it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  inspectord snapshot --config ./inspectord.toml --camera top --out top.png

The camera's model need not be there yet. Places are read off in pixels and written as `region`, `polygon` and `ignore`; `ignore_mask` is a picture of the same size.
Only what is inspected keeps its colours: black is outside the region, hatched is hidden by polygon or mask.")]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The camera's name in the settings; may be left out where there is only one.
    #[arg(long, value_name = "NAME")]
    camera: Option<CameraId>,
    /// The PNG to write.
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    /// Writes the picture as it is, upright and with nothing drawn, for example to draw an `ignore_mask` upon.
    #[arg(long)]
    plain: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The camera gives no frame, or one that does not fit its settings.
pub fn run(args: Args) -> anyhow::Result<()> {
    let camera = args.settings.load_camera(args.camera.as_ref())?;
    // Looking comes before training: without a model yet, the size that one would read unless told otherwise.
    let input = if camera.model.exists() {
        CalibratedModel::load(&camera.model)?.architecture().input
    } else {
        training::Options::default().input
    };
    let mut preparation = Preparation::open(&camera.view, input)?;
    let frame = one_frame(&camera)?;
    let prepared = preparation.look(&frame.pixels)?;
    let drawn = if args.plain { prepared.captured.clone() } else { imaging::overlay(&prepared) };
    std::fs::write(&args.out, imaging::png(&drawn))
        .with_context(|| format!("cannot write {}", args.out.display()))?;

    let (size, viewed, measured) = (prepared.captured.size(), prepared.viewed, prepared.measured);
    let hidden = prepared.mask.as_ref().map_or(0.0, |mask| mask.hidden_share());
    let unfit = camera.view.bounds.check(measured).err().map(|unfit| unfit.to_string());
    let mut out = io::stdout().lock();
    if args.json {
        let told = json!({
            "camera": camera.name, "size": size, "region": viewed, "hidden": hidden, "input": input,
            "captured_at": frame.captured_at, "brightness": measured.brightness, "sharpness": measured.sharpness,
            "unfit": unfit,
        });
        return Ok(writeln!(out, "{told}")?);
    }
    writeln!(out, "{}: {size}, saved as {}", camera.name, args.out.display())?;
    let region = format!("{}x{} at ({}, {})", viewed.width, viewed.height, viewed.x, viewed.y);
    writeln!(out, "inspected  {region}, {:.1} % of it hidden; the model reads {input}", hidden * 100.0)?;
    writeln!(out, "measured   brightness {:.1}, sharpness {:.2}", measured.brightness, measured.sharpness)?;
    if camera.view.is_ambiguous(size) {
        writeln!(
            out,
            "note       `region` is the whole picture, so that `train` would not turn it: leave it out"
        )?;
    }
    if let Some(unfit) = unfit {
        writeln!(out, "unfit      {unfit}")?;
    }
    Ok(())
}

fn one_frame(camera: &Camera) -> anyhow::Result<Box<Frame>> {
    let mut opened = camera::open(&camera.name, &camera.source, &camera::none_judged)?;
    opened.expose()?;
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        match opened.next(Duration::from_millis(500))? {
            Next::Frame(frame) => return Ok(frame),
            Next::Nothing => {}
            Next::End => return Err(anyhow!("camera `{}` has no picture: its folder is empty", camera.name)),
        }
    }
    Err(anyhow!("camera `{}` gave no picture within {} s", camera.name, PATIENCE.as_secs()))
}
