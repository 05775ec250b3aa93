//! `inspectord history`: recorded verdicts as a table or as JSON, their export with evidence, and their way into the
//! samples that models learn from.
//!
//! In: the store's folder, which a daemon may be using. Out: standard output, or a folder. Changes nothing in the
//! store. Not here: how verdicts are found (`store`).

mod samples;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};
use serde_json::json;
use tracing::warn;

use super::common::SettingsArgs;
use super::report::UsageError;
use crate::frame::CameraId;
use crate::retrain::Kind;
use crate::store::{MAX_LIMIT, Query, Reader};
use crate::verdict::{Decision, Outcome, Verdict};

/// How many verdicts are shown unless more are asked for.
const SHOWN: usize = 50;

/// Shows recorded verdicts, the newest first, or exports them with their evidence.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord history --camera top --since 2h --decision anomalous
  inspectord history --json --limit 1000 | jq .score
  inspectord history accept 019a4c2e-77f1-7b3c-9f0e-0c5d1e2f3a4b
  inspectord history export ./complaint --since 2026-11-02 --until 2026-11-03")]
pub struct Args {
    /// Only verdicts of this camera.
    #[arg(long, global = true)]
    camera: Option<CameraId>,
    /// Only verdicts captured since: a time (2026-11-02T06:00:00Z), a day (2026-11-02), or how long ago (90m, 2h, 7d).
    #[arg(long, global = true, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only verdicts captured before; written as for --since.
    #[arg(long, global = true, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only verdicts with this decision.
    #[arg(long, global = true, value_enum)]
    decision: Option<Decided>,
    /// At most so many, the newest [default: 50; export: all; not for accept and confirm, which are told which].
    #[arg(long, global = true, value_name = "N")]
    limit: Option<usize>,
    /// The store's folder, instead of the one that the settings name.
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Prints one JSON object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Copies verdicts (verdicts.jsonl, the oldest first) and their evidence to a new or empty folder.
    Export {
        /// Where to.
        dir: PathBuf,
    },
    /// Makes the pictures of false alarms samples of good parts, for the next retraining to learn.
    Accept {
        /// The verdicts' ids, or unmistakable beginnings of them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Makes the pictures of confirmed defects known ones, which no later model version may miss.
    Confirm {
        /// The verdicts' ids, or unmistakable beginnings of them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Decided {
    Ok,
    Anomalous,
    Uninspected,
}

impl From<Decided> for Decision {
    fn from(decided: Decided) -> Self {
        match decided {
            Decided::Ok => Self::Ok,
            Decided::Anomalous => Self::Anomalous,
            Decided::Uninspected => Self::Uninspected,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no store, it cannot be read, or the export cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let store = match &args.store {
        Some(store) => store.clone(),
        None => args.settings.load_store()?.path,
    };
    let reader = Reader::open(&store)?;
    let limit = args.limit.unwrap_or(if args.action.is_some() { MAX_LIMIT } else { SHOWN });
    let query = Query {
        camera: args.camera,
        since: args.since,
        until: args.until,
        decision: args.decision.map(Into::into),
        limit,
    };
    let sampled = |ids: &[String], kind| -> anyhow::Result<()> {
        if args.limit.is_some() {
            return Err(UsageError("--limit: leave it out, since the ids say which verdicts".into()).into());
        }
        let retrain = samples::options(args.settings.clone(), args.store.as_deref())?;
        samples::drop_in((&reader, &query), &retrain.path, (ids, kind), args.json)?;
        if !retrain.enabled {
            warn!("`[retrain]` is switched off: nothing takes these samples in until it is switched on");
        }
        Ok(())
    };
    match &args.action {
        Some(Action::Export { dir }) => {
            let exported = export(&reader, &query, dir, args.limit.is_some())?;
            let done = if args.json { exported.json(dir) } else { exported.describe(dir) };
            return writeln!(io::stdout(), "{done}").context("cannot print");
        }
        Some(Action::Accept { ids }) => return sampled(ids, Kind::Normal),
        Some(Action::Confirm { ids }) => return sampled(ids, Kind::Anomalous),
        None => {}
    }
    let verdicts = reader.history(&query)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = if args.json {
        verdicts.iter().try_for_each(|verdict| write_json(&mut out, verdict))
    } else {
        write_table(&mut out, &verdicts, &TimeZone::system())
    };
    printed.and_then(|()| out.flush()).context("cannot print")
}

/// A moment as people write it.
fn moment(text: &str) -> Result<Timestamp, String> {
    let now = Zoned::now();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    let local = |date: civil::DateTime| date.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp());
    if let Ok(moment) = text.parse::<civil::DateTime>() {
        return local(moment).map_err(|e| e.to_string());
    }
    let ago = text.trim_end_matches("ago").trim_end().parse::<jiff::Span>();
    match ago
        .map_err(|e| e.to_string())
        .and_then(|span| now.checked_sub(span.abs()).map_err(|e| e.to_string()))
    {
        Ok(moment) => Ok(moment.timestamp()),
        Err(_) => {
            Err("write a time (2026-11-02T06:00:00Z), a day (2026-11-02), or how long ago (90m, 2h, 7d)"
                .into())
        }
    }
}

fn write_json(out: &mut impl Write, verdict: &Verdict) -> io::Result<()> {
    serde_json::to_writer(&mut *out, verdict)?;
    out.write_all(b"\n")
}

const COLUMNS: [&str; 8] =
    ["CAPTURED", "CAMERA", "SEQ", "DECISION", "SCORE", "LIMIT", "PART", "EVIDENCE OR REASON"];
/// Columns that hold numbers, which are flush right.
const NUMBERS: [bool; 8] = [false, false, true, false, true, true, false, false];

fn row(verdict: &Verdict, zone: &TimeZone) -> [String; 8] {
    let judgement = &verdict.judgement;
    let captured = judgement.captured_at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let (score, limit, remark) = match &judgement.outcome {
        Outcome::Inspected(finding) => {
            let number = |value: f32| format!("{value:.3}");
            let evidence = verdict.evidence.clone().unwrap_or_default();
            (number(finding.score.0), number(finding.threshold.0), evidence)
        }
        Outcome::Uninspected { reason, detail } => {
            (String::new(), String::new(), format!("{reason}: {detail}"))
        }
    };
    let part = judgement.trigger.as_ref().and_then(|trigger| trigger.part_id.clone()).unwrap_or_default();
    let (sequence, decision) = (verdict.sequence.to_string(), verdict.decision().to_string());
    let row = [captured, verdict.camera().to_string(), sequence, decision, score, limit, part, remark];
    // Part ids come from outside; a terminal must not obey them.
    row.map(|cell| cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

fn write_table(out: &mut impl Write, verdicts: &[Verdict], zone: &TimeZone) -> io::Result<()> {
    if verdicts.is_empty() {
        return writeln!(out, "no such verdicts are recorded");
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(verdicts.iter().map(|verdict| row(verdict, zone)));
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &if NUMBERS[column] { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// What an export came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exported {
    verdicts: u64,
    evidence: u64,
    bytes: u64,
    deleted: u64,
}

impl Exported {
    fn json(&self, dir: &Path) -> String {
        let Self { verdicts, evidence, bytes, deleted } = self;
        let done = json!({
            "path": dir, "verdicts": verdicts, "evidence": evidence, "bytes": bytes, "evidence_deleted": deleted,
        });
        done.to_string()
    }

    fn describe(&self, dir: &Path) -> String {
        let Self { verdicts, evidence, bytes, deleted } = self;
        let mib = *bytes as f64 / f64::from(1 << 20);
        let mut text = format!(
            "exported {verdicts} verdicts, {evidence} with evidence ({mib:.1} MiB), to {}",
            dir.display()
        );
        if *deleted > 0 {
            text += &format!("; the evidence of {deleted} more is no longer kept");
        }
        text
    }
}

fn export(reader: &Reader, query: &Query, dir: &Path, limited: bool) -> anyhow::Result<Exported> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?.next().is_some() {
        bail!("{} is not empty: name a new folder for the export", dir.display());
    }
    let path = dir.join("verdicts.jsonl");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut lines = BufWriter::new(file);
    let mut exported = Exported::default();
    let mut add = |verdict: &Verdict| -> anyhow::Result<()> {
        write_json(&mut lines, verdict).with_context(|| format!("cannot write {}", path.display()))?;
        exported.verdicts += 1;
        let (Some(place), Some(folder)) = (&verdict.evidence, reader.evidence(verdict)) else {
            exported.deleted += u64::from(verdict.evidence.is_some());
            return Ok(());
        };
        exported.bytes += copy_folder(&folder, &dir.join(place))?;
        exported.evidence += 1;
        Ok(())
    };
    if limited {
        reader.history(query)?.iter().rev().try_for_each(&mut add)?;
    } else {
        reader.each(query, add)?;
    }
    lines.flush().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(exported)
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<u64> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
        // Only what the store writes; a link could lead anywhere.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let target = to.join(entry.file_name());
        bytes += fs::copy(entry.path(), &target)
            .with_context(|| format!("cannot copy {} to {}", entry.path().display(), target.display()))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Evidence, Options, RecordRequest, Store};
    use crate::verdict::tests::judgement;
    use crate::verdict::{Reason, Trigger};

    fn store(folder: &Path) -> PathBuf {
        let options = Options { path: folder.join("store"), min_free_megabytes: 0, ..Options::default() };
        let (handle, thread) = Store::open(&options, "box").unwrap();
        for score in [0.1, 0.9] {
            let evidence = (score > 0.5).then(|| Evidence {
                picture: vec![1; 10],
                extension: "png",
                heatmap_png: Some(vec![2; 20]),
            });
            let mut judgement = judgement("top", score);
            let part_id = Some("A\u{1b}[2J1".to_owned());
            judgement.trigger = Some(Trigger { part_id, ..Trigger::default() });
            handle.record(RecordRequest { judgement, evidence, ticket: None }).wait().unwrap();
        }
        let mut late = judgement("side", 0.0);
        late.outcome = Outcome::Uninspected { reason: Reason::Deadline, detail: "12 ms late".into() };
        handle.record(RecordRequest { judgement: late, evidence: None, ticket: None }).wait().unwrap();
        thread.close(Duration::from_secs(30)).unwrap();
        options.path
    }

    #[test]
    fn the_table_can_be_read_and_its_cells_cannot_command_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let reader = Reader::open(&store(folder.path())).unwrap();
        let verdicts = reader.history(&Query::default()).unwrap();
        let mut table = Vec::new();
        write_table(&mut table, &verdicts, &TimeZone::UTC).unwrap();
        let table = String::from_utf8(table).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("CAPTURED                 CAMERA  SEQ  DECISION"), "{table}");
        assert!(
            lines[1].contains("side      1  uninspected") && lines[1].ends_with("deadline: 12 ms late"),
            "{table}"
        );
        assert!(
            lines[2].starts_with("2026-01-02 03:04:05.678  top       2  anomalous    0.900  0.500  A"),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'));
    }

    #[test]
    fn an_export_holds_verdicts_and_evidence() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let reader = Reader::open(&store).unwrap();
        for (limit, verdicts) in [(None, 3), (Some(2), 2)] {
            let dir = folder.path().join(format!("export{verdicts}"));
            let query = Query { limit: limit.unwrap_or(MAX_LIMIT), ..Query::default() };
            let exported = export(&reader, &query, &dir, limit.is_some()).unwrap();
            assert_eq!((exported.verdicts, exported.evidence, exported.deleted), (verdicts, 1, 0));
            let told: serde_json::Value = serde_json::from_str(&exported.json(&dir)).unwrap();
            assert_eq!(
                (&told["verdicts"], &told["bytes"]),
                (&verdicts.into(), &exported.bytes.into()),
                "{told}"
            );
            let lines = fs::read_to_string(dir.join("verdicts.jsonl")).unwrap();
            let lines: Vec<Verdict> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len() as u64, verdicts);
            let evidence = lines.iter().find_map(|verdict| verdict.evidence.as_ref()).unwrap();
            assert_eq!(fs::read(dir.join(evidence).join("heatmap.png")).unwrap(), [2; 20]);
            let again = export(&reader, &query, &dir, false).unwrap_err().to_string();
            assert!(again.contains("not empty"), "{again}");
        }
    }

    #[test]
    fn moments_are_written_as_people_do() {
        assert_eq!(moment("2026-11-02T06:00:00Z").unwrap().as_second(), 1_793_599_200);
        assert!(moment("2026-11-02").is_ok());
        assert!(moment("2026-11-02 06:00").is_ok());
        for ago in ["90m", "2h", "7d", "1h 30m", "2 hours ago"] {
            let past = moment(ago).unwrap();
            assert!(past < Timestamp::now(), "{ago}");
        }
        assert!(moment("soon").unwrap_err().contains("how long ago"));
    }
}
