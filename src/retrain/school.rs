//! The `retrain` thread: takes samples in, begins a retraining where one is due, hears it and notes its end.
//!
//! In: dropped files, orders. Out: the set, and one child process at a time on this box. Ends when asked to stop, the
//! child with a checkpoint. Not here: which version runs (`keeper`).

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;
use tracing::{debug, error, info, warn};

use super::child::{Retraining, Said};
use super::due::Situation;
use super::error::RetrainError;
use super::home::{Home, Turn};
use super::hooks::{Hooks, News, Ordered};
use super::intake::Intake;
use super::learnt::Ending;
use super::options::Options;
use super::set::SampleSet;
use super::subject::Subject;
use super::tries;
use super::waiting::Waiting;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;

/// How often samples and the child are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often a folder of samples is listed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long samples are taken in before the child and the orders have their turn.
const LOOK_TAKES: Duration = Duration::from_secs(1);
/// How long a retraining waits for one that somebody else began.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);

const NEVER_ENDED: &str = "a retraining was begun three times and never came to an end, as where memory runs short: \
                           give the box more, or choose a smaller model, and retrain by command";

/// A camera that may learn.
struct Pupil {
    subject: Subject,
    home: Home,
    intake: Intake,
    news: News,
    /// The set over which a retraining failed.
    failed: Option<String>,
    ordered: bool,
    /// The retraining under way was ordered.
    by_order: bool,
    /// It has to wait until then.
    not_before: Option<Instant>,
    waiting: Waiting,
    /// Something may have changed since it was looked at.
    fresh: bool,
    complained: bool,
    /// That its set cannot be read has been told.
    unreadable: bool,
}

impl Pupil {
    fn new(subject: Subject, options: &Options) -> Self {
        let home = Home::new(&options.path, &subject.camera);
        let intake = Intake::new(&home, &subject.view, LOOK_EVERY);
        Self {
            subject,
            home,
            intake,
            news: News::default(),
            failed: None,
            ordered: false,
            by_order: false,
            not_before: None,
            waiting: Waiting::default(),
            fresh: true,
            complained: false,
            unreadable: false,
        }
    }

    /// Takes samples in, for a while; complains once about what keeps failing.
    fn take_in(&mut self, stop: &Shutdown) {
        let began = Instant::now();
        match self.intake.look(Duration::ZERO, &|| stop.requested() || began.elapsed() >= LOOK_TAKES) {
            Ok(taken) => {
                self.fresh |= taken.any();
                self.complained = false;
            }
            Err(error) if !self.complained => {
                warn!(camera = %self.subject.camera, error = chain(&error), "samples cannot be taken; trying again");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    fn situation(&mut self) -> Result<(Situation, String), RetrainError> {
        let (pending, version) = self.waiting.look(&self.home)?;
        let failed = self.failed.as_ref().is_some_and(|failed| *failed == version);
        let unfinished = self.home.is_unfinished();
        Ok((Situation { pending, unfinished, failed, ordered: self.ordered }, version))
    }
}

/// See the module.
pub(super) struct School {
    options: Options,
    pupils: Vec<Pupil>,
    hooks: Hooks,
    orders: Receiver<Ordered>,
    stop: Shutdown,
    /// The retraining under way, and whose it is.
    child: Option<(usize, Retraining)>,
}

impl School {
    pub(super) fn new(
        options: Options,
        subjects: Vec<Subject>,
        hooks: Hooks,
        orders: Receiver<Ordered>,
        stop: Shutdown,
    ) -> Self {
        let pupils = subjects.into_iter().map(|subject| Pupil::new(subject, &options)).collect();
        Self { options, pupils, hooks, orders, stop, child: None }
    }

    /// Runs until asked to stop.
    pub(super) fn run(mut self) {
        while !self.stop.sleep(TICK) {
            self.hear_orders();
            self.pupils.iter_mut().for_each(|pupil| pupil.take_in(&self.stop));
            self.attend();
            if self.child.is_none() {
                self.begin_what_is_due();
            }
        }
        if let Some((_, retraining)) = self.child.take() {
            retraining.stop();
        }
    }

    fn hear_orders(&mut self) {
        let under_way = self.child.as_ref().map(|(at, _)| *at);
        for (camera, _, answer) in self.orders.try_iter().collect::<Vec<_>>() {
            let Some(at) = self.pupils.iter().position(|p| p.subject.camera == camera) else { continue };
            if under_way == Some(at) {
                answer(Err("a retraining of this camera is under way".into()));
            } else {
                self.pupils[at].ordered = true;
                answer(Ok(None));
            }
        }
    }

    fn begin_what_is_due(&mut self) {
        for at in 0..self.pupils.len() {
            let Some((situation, mended)) = self.situation(at) else { continue };
            let pupil = &mut self.pupils[at];
            let count = situation.pending.count;
            if std::mem::take(&mut pupil.fresh) && count > 0 || mended {
                pupil.news = News { phase: "waiting".into(), new_samples: count, ..News::default() };
                (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
            }
            let waits = pupil.not_before.is_some_and(|until| Instant::now() < until);
            // What somebody else is at is not unfinished, and leaves nothing to learn.
            if !waits
                && situation.is_due(&self.options, Timestamp::now())
                && !Turn::is_taken(&self.options.path)
            {
                return self.begin(at, count);
            }
        }
    }

    /// How it stands with a camera, and whether that could not be known before. What keeps it from being known, or from being
    /// tried again, is told once.
    fn situation(&mut self, at: usize) -> Option<(Situation, bool)> {
        let pupil = &mut self.pupils[at];
        let (mut situation, set) = match pupil.situation() {
            Ok(known) => known,
            Err(error) if pupil.unreadable => {
                debug!(camera = %pupil.subject.camera, error = chain(&error), "the sample set still cannot be read");
                return None;
            }
            Err(error) => {
                pupil.unreadable = true;
                let why = chain(&error);
                warn!(camera = %pupil.subject.camera, error = why, "the sample set cannot be read");
                self.tell_failure(at, why);
                return None;
            }
        };
        let mended = std::mem::take(&mut pupil.unreadable);
        if !situation.failed && tries::are_spent(&pupil.home, &set) {
            situation.failed = true;
            pupil.failed = Some(set);
            warn!(camera = %pupil.subject.camera, times = tries::MOST, "a retraining never came to an end; it waits for further samples or a command");
            self.tell_failure(at, NEVER_ENDED.into());
        }
        Some((situation, mended))
    }

    fn begin(&mut self, at: usize, new_samples: usize) {
        let pupil = &mut self.pupils[at];
        let camera = pupil.subject.camera.clone();
        pupil.by_order = std::mem::take(&mut pupil.ordered);
        info!(%camera, new_samples, "retraining begins");
        pupil.news = News { phase: "training".into(), new_samples, ..News::default() };
        (self.hooks.tell)(&camera, pupil.news.clone());
        match Retraining::start((self.hooks.command)(&camera)) {
            Ok(retraining) => self.child = Some((at, retraining)),
            Err(refused) => self.failed(at, format!("the retraining's process cannot be started: {refused}")),
        }
    }

    /// Hears the child, and notes its end.
    fn attend(&mut self) {
        let Some((at, retraining)) = &mut self.child else { return };
        let at = *at;
        // Asked first, so that nothing is said after it.
        let ended = retraining.ended();
        let said: Vec<Said> = retraining.said().collect();
        let mut last = None;
        for said in said {
            match said {
                Said::Progress { phase, done, of, seconds_left } => {
                    let pupil = &mut self.pupils[at];
                    pupil.news = News { phase, done, of, seconds_left, ..pupil.news.clone() };
                    (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
                }
                end => last = Some(end),
            }
        }
        match (last, ended) {
            (None, None) => {}
            (Some(Said::Done { ending, report }), _) => {
                self.child = None;
                self.done(at, ending, report.version.clone(), report.words());
            }
            (Some(Said::Busy), _) => {
                self.child = None;
                let pupil = &mut self.pupils[at];
                pupil.not_before = Some(Instant::now() + WAIT_FOR_OTHERS);
                // What the other one learns need not be learnt again, unless somebody asked for it.
                (pupil.ordered, pupil.fresh) = (pupil.ordered || pupil.by_order, true);
                info!(camera = %pupil.subject.camera, "somebody else retrains on this box; waiting for that");
            }
            (Some(Said::Failed(why)), _) => {
                self.child = None;
                self.failed(at, why);
            }
            (_, Some(ended)) => {
                self.child = None;
                self.failed(at, ended.err().unwrap_or_else(|| "the retraining ended without a word".into()));
            }
            (Some(Said::Progress { .. }), None) => {}
        }
    }

    fn done(&mut self, at: usize, ending: Ending, version: String, words: String) {
        let phase = match ending {
            Ending::Activated => "activated",
            Ending::Accepted => "accepted",
            Ending::Refused => "refused",
        };
        let pupil = &mut self.pupils[at];
        let new_samples = pupil.situation().map_or(0, |(situation, _)| situation.pending.count);
        let (version, detail) = (Some(version), Some(words));
        pupil.news = News { phase: phase.into(), new_samples, version, detail, ..News::default() };
        pupil.failed = None;
        info!(camera = %pupil.subject.camera, phase, version = pupil.news.version, "retraining is done");
        (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
    }

    fn failed(&mut self, at: usize, why: String) {
        let pupil = &mut self.pupils[at];
        error!(camera = %pupil.subject.camera, why, "retraining failed; it is tried again with further samples or by command");
        pupil.failed = SampleSet::read(&pupil.home).ok().map(|set| set.version());
        self.tell_failure(at, why);
    }

    fn tell_failure(&mut self, at: usize, why: String) {
        let pupil = &mut self.pupils[at];
        let new_samples = pupil.news.new_samples;
        pupil.news = News { phase: "failed".into(), new_samples, detail: Some(why), ..News::default() };
        (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;
    use crate::testing::wait_for;

    /// A school of one camera whose retrainings say `says` and end.
    struct Class {
        root: tempfile::TempDir,
        school: School,
        told: Arc<Mutex<Vec<News>>>,
    }

    impl Class {
        fn new(says: &'static str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let options = Options { path: root.path().to_owned(), ..Options::default() };
            let subject = Subject::of(root.path());
            let told: Arc<Mutex<Vec<News>>> = Arc::default();
            let heard = told.clone();
            let hooks = Hooks {
                swap: Arc::new(|_, _| Ok(())),
                tell: Arc::new(move |_, news| heard.lock().unwrap().push(news)),
                command: Arc::new(move |_| {
                    let mut child = Command::new("echo");
                    child.arg(says);
                    child
                }),
            };
            let (_, orders) = crossbeam_channel::bounded(1);
            let school = School::new(options, vec![subject], hooks, orders, Shutdown::new());
            Self { root, school, told }
        }

        fn home(&self) -> Home {
            self.school.pupils[0].home.clone()
        }

        /// As a retraining leaves it that is under way or was interrupted.
        fn leave_unfinished(&self) {
            fs::create_dir_all(self.home().work()).unwrap();
            fs::write(self.home().work().join("plan.json"), "{}").unwrap();
        }

        /// Begins what is due and hears it to its end; gives whether anything was.
        fn teach(&mut self) -> bool {
            self.school.begin_what_is_due();
            let begun = self.school.child.is_some();
            while self.school.child.is_some() {
                self.school.attend();
                thread::yield_now();
            }
            begun
        }

        fn phases(&self) -> Vec<String> {
            self.told.lock().unwrap().iter().map(|news| news.phase.clone()).collect()
        }
    }

    const BUSY: &str = r#"{"event":"failed","error":"x","busy":true}"#;

    #[test]
    fn what_somebody_else_is_at_is_not_begun_beside_it_nor_done_again_after_it() {
        let mut class = Class::new(BUSY);
        class.leave_unfinished();
        let turn = Turn::take(class.root.path()).unwrap();
        assert!(!class.teach());
        drop(turn);
        // A process that another test starts has the lock, too, until it becomes its program.
        wait_for("it is given back", || !Turn::is_taken(class.root.path()));
        // The other one came between.
        assert!(class.teach());
        fs::remove_dir_all(class.home().work()).unwrap();
        class.school.pupils[0].not_before = None;
        assert!(!class.teach());
        class.school.pupils[0].ordered = true;
        assert!(class.teach());
        class.school.pupils[0].not_before = None;
        assert!(class.teach(), "an order outlasts the other one");
    }

    #[test]
    fn a_set_that_cannot_be_read_is_told_once_and_so_is_that_it_can_again() {
        let mut class = Class::new(BUSY);
        let journal = class.home().set().join("journal.jsonl");
        fs::create_dir_all(class.home().set()).unwrap();
        fs::write(&journal, "{}\n").unwrap();
        assert!(!class.teach() && !class.teach());
        assert_eq!(class.phases(), ["failed"]);
        let detail = class.told.lock().unwrap()[0].detail.clone().unwrap();
        assert!(detail.contains("line 1") && detail.contains("move it aside"), "{detail}");
        fs::remove_file(journal).unwrap();
        assert!(!class.teach() && !class.teach());
        assert_eq!(class.phases(), ["failed", "waiting"]);
    }

    #[test]
    fn one_that_was_killed_again_and_again_waits_for_somebody_also_after_a_restart() {
        let mut class = Class::new(BUSY);
        class.leave_unfinished();
        let set = SampleSet::read(&class.home()).unwrap().version();
        for _ in 0..tries::MOST {
            assert!(!class.school.pupils[0].situation().unwrap().0.failed);
            tries::begin(&class.home(), &set).unwrap();
        }
        assert!(!class.teach() && !class.teach());
        assert_eq!(class.phases(), ["failed"]);
        class.school.pupils[0].ordered = true;
        assert!(class.teach());
    }
}
