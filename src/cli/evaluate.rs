//! `inspectord evaluate`: how good a model is on a labelled set.
//!
//! Out: figures for people, or one JSON object; heat maps where asked for. Not here: metrics (`training::metrics`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::eyes::Eyes;
use super::judging::{Judge, Runner, write_heatmap};
use super::progress::Progress;
use crate::imaging::Seen;
use crate::training::dataset::{GOOD, Labelled, Sample};
use crate::training::evaluate::{Evaluation, Judged, evaluate};

/// Measures a model's accuracy and latency on a labelled set.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  inspectord evaluate --model models/bottle --data mvtec/bottle --maps /tmp/maps

--data is laid out as MVTec AD is: test/good, test/<defect> and, where known, ground_truth/<defect>/<name>_mask.png.")]
pub struct Args {
    /// The model bundle.
    #[arg(long, value_name = "BUNDLE")]
    model: PathBuf,
    /// The labelled set.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Writes the heat map of every picture below this folder.
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    #[command(flatten)]
    eyes: Eyes,
    #[command(flatten)]
    runner: Runner,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let set = Labelled::find(&args.data)?;
    let mut judge = Judge::open(&args.model, args.runner)?;
    // With --json, standard output belongs to the figures.
    let mut progress = Progress::new(false);
    progress.begin("evaluating", 0, set.samples.len() as u64);
    let mut done = 0;
    let threshold = judge.threshold();
    let mut sight = args.eyes.open()?;
    let result = evaluate(&set, threshold, &mut sight, |sample, seen| {
        let judged = judge_sample(&mut judge, sample, seen, args.maps.as_deref());
        done += 1;
        progress.advance(done, "", &serde_json::Map::new());
        judged
    });
    progress.end();
    let figures = result?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        write!(out, "{}", table(&figures))?;
    }
    Ok(())
}

fn judge_sample(
    judge: &mut Judge,
    sample: &Sample,
    seen: &Seen,
    maps: Option<&Path>,
) -> anyhow::Result<Judged> {
    use anyhow::Context as _;
    let (inspection, timings) =
        judge.inspect(seen).with_context(|| format!("{} cannot be judged", sample.path.display()))?;
    if let Some(folder) = maps {
        let kind = sample.defect.as_deref().unwrap_or(GOOD);
        let name = sample.path.with_extension("png");
        write_heatmap(&folder.join(kind).join(name.file_name().unwrap_or_default()), seen, &inspection)?;
    }
    Ok(Judged {
        score: inspection.finding.score.0,
        map: inspection.map.values,
        milliseconds: f64::from(timings.total),
    })
}

fn table(e: &Evaluation) -> String {
    let share = |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{:.2} %", 100.0 * v));
    let mut text = format!("{} pictures\n", e.images);
    if e.hidden > 0 {
        text += &format!("{} of them count for nothing, since the mask hides their defects\n", e.hidden);
    }
    for (name, value) in [
        ("image AUROC", e.image_auroc),
        ("average precision", e.image_ap),
        ("best F1", e.image_f1_max),
        ("pixel AUROC", e.pixel_auroc),
        ("AU-PRO to 0.30", e.aupro_30),
        ("AU-PRO to 0.05", e.aupro_05),
    ] {
        text += &format!("{name:>20}  {:>9}\n", share(value));
    }
    text += &format!("at the threshold of {:.4}\n", e.threshold);
    text += &format!("{:>20}  {:>9}\n", "false positives", share(e.false_positive_rate));
    text += &format!("{:>20}  {:>9}\n", "detected", share(e.detection_rate));
    for (kind, figures) in &e.per_defect {
        let (rate, auroc) = (share(Some(figures.detection_rate)), share(figures.image_auroc));
        text += &format!("{kind:>20}  {rate:>9} of {} pictures, AUROC {auroc}\n", figures.images);
    }
    text + &format!("latency {:.1} ms (median), {:.1} ms (99 %)\n", e.latency_ms.p50, e.latency_ms.p99)
}
