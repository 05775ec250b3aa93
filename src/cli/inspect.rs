//! `inspectord inspect`: verdicts for single pictures.
//!
//! Out: one line a picture, for people or as JSON; heat maps where asked for.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::eyes::Eyes;
use super::judging::{Judge, Runner, write_heatmap};
use super::report::Told;
use crate::detector::Inspection;
use crate::imaging::Sight;
use crate::telemetry::chain;
use crate::verdict::{AnomalousRegion, Decision, Outcome};

/// Judges single pictures.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  inspectord inspect --model models/bottle --heatmap /tmp/maps part1.png part2.png

Exit codes: 0 every picture was judged, whatever the verdict; 1 one could not be, and its line says why.")]
pub struct Args {
    /// The model bundle.
    #[arg(long, value_name = "BUNDLE")]
    model: PathBuf,
    /// Writes the heat map of every picture into this folder.
    #[arg(long, value_name = "DIR")]
    heatmap: Option<PathBuf>,
    #[command(flatten)]
    eyes: Eyes,
    #[command(flatten)]
    runner: Runner,
    /// Prints one JSON object a picture.
    #[arg(long)]
    json: bool,
    /// PNG, JPEG, BMP or TIFF files.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// One picture's line.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Judged {
        path: &'a Path,
        score: f32,
        threshold: f32,
        decision: Decision,
        peak: [u32; 2],
        regions: Vec<AnomalousRegion>,
        timings_ms: TimingsMs,
    },
    Failed {
        path: &'a Path,
        error: String,
    },
}

/// Where the time went, in milliseconds.
#[derive(Serialize)]
struct TimingsMs {
    load: f32,
    prepare: f32,
    infer: f32,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut judge = Judge::open(&args.model, args.runner)?;
    let mut sight = args.eyes.open()?;
    let mut heatmaps = args.heatmap.as_deref().map(Heatmaps::new);
    let mut failed = false;
    for path in &args.images {
        let line = judge_file((&mut judge, &mut sight), path, heatmaps.as_mut()).unwrap_or_else(|error| {
            failed = true;
            Line::Failed { path, error: chain(error.as_ref()) }
        });
        print(&line, args.json)?;
    }
    if failed { Err(Told { settings: false }.into()) } else { Ok(()) }
}

fn judge_file<'a>(
    (judge, sight): (&mut Judge, &mut Sight),
    path: &'a Path,
    heatmaps: Option<&mut Heatmaps>,
) -> anyhow::Result<Line<'a>> {
    let began = Instant::now();
    let seen = sight.load(path)??;
    let load = began.elapsed().as_secs_f32() * 1e3;
    let (inspection, timings) = judge.inspect(&seen)?;
    if let Some(heatmaps) = heatmaps {
        write_heatmap(&heatmaps.path_for(path), &seen, &inspection)?;
    }
    let Inspection { finding, .. } = inspection;
    Ok(Line::Judged {
        path,
        score: finding.score.0,
        threshold: finding.threshold.0,
        decision: Outcome::Inspected(finding.clone()).decision(),
        peak: finding.peak,
        regions: finding.regions,
        timings_ms: TimingsMs { load, prepare: timings.prepare, infer: timings.infer },
    })
}

fn print(line: &Line, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match line {
        line if json => writeln!(out, "{}", serde_json::to_string(line)?)?,
        Line::Judged { path, score, threshold, decision, peak: [x, y], regions, .. } => {
            let path = path.display();
            write!(out, "{decision:<10} {score:8.4} (threshold {threshold:.4})  {path}")?;
            match regions.len() {
                0 => writeln!(out)?,
                1 => writeln!(out, "  worst at {x},{y}")?,
                n => writeln!(out, "  {n} areas, worst at {x},{y}")?,
            }
        }
        Line::Failed { path, error } => {
            out.flush()?;
            writeln!(io::stderr().lock(), "error: {} was not inspected: {error}", path.display())?;
        }
    }
    Ok(())
}

/// Names for heat maps, of which no two are alike even where pictures' are.
struct Heatmaps<'a> {
    folder: &'a Path,
    taken: HashSet<PathBuf>,
}

impl<'a> Heatmaps<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, taken: HashSet::new() }
    }

    fn path_for(&mut self, picture: &Path) -> PathBuf {
        let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
        let name = |n: usize| match n {
            1 => self.folder.join(format!("{stem}.png")),
            n => self.folder.join(format!("{stem}-{n}.png")),
        };
        let free = (1..).map(name).find(|path| !self.taken.contains(path));
        let free = free.expect("numbers do not run out: this is a bug");
        self.taken.insert(free.clone());
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_one_name_get_a_heat_map_each() {
        let mut heatmaps = Heatmaps::new(Path::new("maps"));
        let names = ["a/1.jpg", "b/1.png", "b/2.png"].map(|p| heatmaps.path_for(Path::new(p)));
        assert_eq!(names, ["maps/1.png", "maps/1-2.png", "maps/2.png"].map(PathBuf::from));
    }
}
