//! What the demo shows: where to look, one line per part, and the score at the end.
//!
//! Colours and the moving last line only on a terminal; plain lines elsewhere. Not here: counting (`score_card`).

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use super::score_card::{Mark, ScoreCard};
use crate::telemetry;
use crate::verdict::{Finding, Judgement, Outcome};

/// Width of the score's bar, in characters; the threshold stands in its middle.
const BAR: usize = 24;

/// Standard output, dressed for people.
pub(super) struct Screen {
    colours: bool,
}

/// Where things are, for the opening text.
pub(super) struct Signposts<'a> {
    pub(super) broker: String,
    pub(super) embedded: bool,
    pub(super) prefix: &'a str,
    pub(super) store: &'a Path,
    pub(super) page: SocketAddr,
    pub(super) engine: String,
    pub(super) model: String,
    /// This program, as it was called.
    pub(super) program: String,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { colours: telemetry::colours(&io::stdout()) }
    }

    /// Says what is about to happen and where to watch it.
    pub(super) fn welcome(&self, at: &Signposts<'_>) {
        let (host, port) = at.broker.rsplit_once(':').unwrap_or((&at.broker, "1883"));
        let broker = if at.embedded { "embedded, for this demo only" } else { "yours" };
        self.line(&format!(
            "\n{title}\n\n\
             A simulated line makes parts, some with a planted defect. A model trained on good parts alone\n\
             inspects each one, and its verdict goes to disk first and then to the broker.\n\n\
             {model:>11}  {} on {}\n\
             {b:>11}  {}:{} ({broker})\n\
             {look:>11}  http://{page}/\n\
             {watch:>11}  mosquitto_sub -h {host} -p {port} -t '{prefix}/#' -v\n\
             {alarms:>11}  mosquitto_sub -h {host} -p {port} -t '{prefix}/+/alarm'\n\
             {history:>11}  {program} history --store {store}\n\
             {evidence:>11}  {store}/evidence/  (picture and heat map of every part that is not ok)\n\
             {stop:>11}  Ctrl-C, for the score\n",
            at.model,
            at.engine,
            host,
            port,
            title = self.bold("inspectord demo"),
            model = "model",
            b = "broker",
            look = "look",
            page = at.page,
            watch = "watch",
            alarms = "alarms",
            history = "history",
            evidence = "evidence",
            stop = "stop",
            prefix = at.prefix,
            program = at.program,
            store = at.store.display(),
        ));
    }

    /// One line for one part.
    pub(super) fn part(&self, number: u64, judgement: &Judgement, mark: &Mark) {
        let (verdict, bar, score) = match &judgement.outcome {
            Outcome::Inspected(Finding { score, threshold, .. }) => {
                let word = judgement.outcome.decision().to_string();
                (word, self.bar(score.0, threshold.0, mark), format!("{:6.2}", score.0))
            }
            Outcome::Uninspected { reason, .. } => {
                (format!("uninspected ({reason})"), String::new(), String::new())
            }
        };
        let note = match mark {
            Mark::Passed => String::new(),
            Mark::Caught(defect) => self.paint(GREEN, &format!("caught: {defect}")),
            Mark::Missed(defect) => self.paint(RED, &format!("MISSED: {defect}")),
            Mark::FalseAlarm => self.paint(YELLOW, "false alarm"),
            Mark::Uninspected => self.paint(YELLOW, "not inspected"),
        };
        let milliseconds = judgement.timings.infer;
        self.line(&format!("{number:>6}  {verdict:<10} {score}  {bar}  {milliseconds:>5.1} ms  {note}"));
    }

    /// The score at the end.
    pub(super) fn farewell(&self, card: &ScoreCard, published: &str, store: &Path) {
        self.line(&format!(
            "\n{}\n\n{card}\n\n{published}\nEvidence and history stay in {}\n",
            self.bold("the score"),
            store.display()
        ));
    }

    fn bar(&self, score: f32, threshold: f32, mark: &Mark) -> String {
        let middle = BAR / 2;
        let share = if threshold > 0.0 { score / threshold } else { 0.0 };
        let filled = ((share * middle as f32).round().clamp(0.0, BAR as f32)) as usize;
        let cell = |i: usize| match (i == middle, i < filled) {
            (true, _) => '│',
            (false, true) => '█',
            (false, false) => '·',
        };
        let bar: String = (0..BAR).map(cell).collect();
        match mark {
            Mark::Passed => self.paint(DIM, &bar),
            Mark::Caught(_) => self.paint(GREEN, &bar),
            Mark::Missed(_) => self.paint(RED, &bar),
            Mark::FalseAlarm | Mark::Uninspected => self.paint(YELLOW, &bar),
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A reader who went away (`| head`) ends the text, not the demo.
    fn line(&self, text: &str) {
        let _reader_gone = writeln!(io::stdout(), "{text}");
    }
}

const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "1;32";
const YELLOW: &str = "1;33";
