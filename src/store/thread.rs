//! The store thread: numbers judgements, waits for their evidence, and commits them in groups.
//!
//! Owns the journal's writing end. In: [`Command`]s over a bounded queue, and [`Done`]s from the evidence thread. Out:
//! replies and the outbox, only after the disk has confirmed. Whatever waits while a commit runs shares the next one.
//! When the disk fails, the batch is kept and tried again until it succeeds; the queue fills and callers wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, never, select};
use jiff::Timestamp;
use tracing::{error, warn};

use super::command::{Command, Noted, Reply};
use super::evidence::{self, Evidence};
use super::evidence_thread::{Claim, Done, Job};
use super::ids::Ids;
use super::journal::{Journal, is_full};
use super::record::{Accepted, MAX_RECORD, Record};
use super::shared::{Lost, Shared};
use super::{Position, StoreError, Ticket};
use crate::frame::CameraId;
use crate::verdict::{Judgement, Outcome, Reason, Timings, Trigger, Verdict};

/// The most records in one commit; bounds the time that the first of them waits for the last.
const MAX_BATCH: usize = 512;
/// How long acknowledgements may wait to be written down; after a crash that much is sent again.
const IDLE: Duration = Duration::from_secs(1);
/// How long a verdict waits for its evidence to be written. The verdict is worth more than its picture, and those that
/// come after it wait as well.
const EVIDENCE_WAIT: Duration = Duration::from_secs(2);
/// Why evidence is not kept once the thread that writes it has ended.
const UNATTENDED: &str = "what writes it has ended by a fault; restart the program";
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Who is told once a record is durable.
enum Answer {
    Verdict(Reply),
    Note(Noted),
}

/// One camera's verdicts that are numbered and not yet in a batch, in order.
#[derive(Default)]
struct Line {
    last_sequence: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    verdict: Box<Verdict>,
    /// Set while its evidence is being written.
    held: Option<Held>,
    ticket: Option<Ticket>,
    reply: Option<Reply>,
}

/// What a verdict waits for.
struct Held {
    since: Instant,
    claim: Claim,
}

/// The store thread's own things.
pub(super) struct Writer {
    pub(super) box_name: String,
    pub(super) journal: Journal,
    pub(super) commands: Receiver<Command>,
    pub(super) jobs: Sender<Job>,
    pub(super) done: Receiver<Done>,
    pub(super) shared: Arc<Shared>,
    pub(super) evidence_wait: Duration,
    ids: Ids,
    lines: BTreeMap<CameraId, Line>,
    batch: Vec<Record>,
    answers: VecDeque<Option<Answer>>,
    last: Position,
    closing: bool,
}

impl Writer {
    /// A writer that goes on where `journal` ends.
    pub(super) fn new(
        box_name: &str,
        journal: Journal,
        commands: Receiver<Command>,
        (jobs, done): (Sender<Job>, Receiver<Done>),
        shared: Arc<Shared>,
    ) -> Self {
        let sum = &journal.state().checkpoint;
        let line = |last: &u64| Line { last_sequence: *last, waiting: VecDeque::new() };
        let lines = sum.sequences.iter().map(|(camera, last)| (camera.clone(), line(last))).collect();
        let last = sum.tip;
        let (batch, answers) = Default::default();
        Self {
            box_name: box_name.to_owned(),
            journal,
            commands,
            jobs,
            done,
            shared,
            evidence_wait: EVIDENCE_WAIT,
            ids: Ids::new(),
            lines,
            batch,
            answers,
            last,
            closing: false,
        }
    }

    /// Works until it is closed and nothing waits, or until its time to close is over.
    pub(super) fn run(mut self) -> Result<(), StoreError> {
        self.answer_for_the_interrupted();
        loop {
            self.gather();
            if let Err(reason) = self.commit() {
                return Err(self.give_up(reason));
            }
            self.closing |= self.shared.is_closing();
            let nothing_waits = self.lines.values().all(|line| line.waiting.is_empty());
            if self.closing && nothing_waits && self.commands.is_empty() {
                break;
            }
            self.wait();
        }
        self.refuse_queued();
        self.journal.close();
        Ok(())
    }

    /// Every trigger that was accepted before a crash and has no verdict gets one now.
    fn answer_for_the_interrupted(&mut self) {
        let open: Vec<_> = self.journal.state().open.iter().map(|(t, a)| (*t, a.clone())).collect();
        if !open.is_empty() {
            warn!(triggers = open.len(), "triggers that a stop had interrupted are answered as uninspected");
        }
        for (ticket, Accepted { camera, trigger, captured_at, .. }) in open {
            let outcome = Outcome::Uninspected {
                reason: Reason::Internal,
                detail: "the program was stopped while this part was under inspection".into(),
            };
            let trigger = Some(trigger);
            let timings = Timings::default();
            let (views, source, other_sources) = (None, None, Vec::new());
            let judgement =
                Judgement { camera, captured_at, outcome, timings, trigger, views, source, other_sources };
            self.number(judgement, None, Some(ticket), None);
        }
    }

    /// Blocks until there is something to do.
    pub(super) fn wait(&mut self) {
        let idle = match self.shared.time_to_close() {
            Some(left) if self.closing => left.min(IDLE),
            _ => IDLE.min(self.evidence_wait),
        };
        // Cloned, so that the arms may borrow the rest.
        let commands = if self.is_full() { never() } else { self.commands.clone() };
        let done = self.done.clone();
        select! {
            recv(commands) -> command => match command {
                Ok(command) => self.obey(command),
                Err(_) => self.closing = true,
            },
            recv(done) -> done => match done {
                Ok(done) => self.evidence_done(done),
                Err(_) => self.nobody_writes_evidence(),
            },
            default(idle) => {}
        }
        let out_of_time = self.closing && self.shared.time_to_close().is_some_and(|left| left.is_zero());
        self.stop_waiting_for_evidence(if out_of_time { Duration::ZERO } else { self.evidence_wait });
    }

    /// Takes what has come meanwhile, up to a batch.
    pub(super) fn gather(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.evidence_done(done);
        }
        while self.batch.len() < MAX_BATCH && !self.is_full() {
            let Ok(command) = self.commands.try_recv() else { break };
            self.obey(command);
        }
    }

    /// Whether as many verdicts wait behind evidence as the queue holds; no more are taken then.
    fn is_full(&self) -> bool {
        let waiting: usize = self.lines.values().map(|line| line.waiting.len()).sum();
        waiting >= self.commands.capacity().unwrap_or(usize::MAX)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Accept { ticket, accepted, noted } => {
                self.push(Record::Accepted { ticket, accepted }, Some(Answer::Note(noted)));
            }
            Command::Record { judgement, evidence, ticket, reply } => {
                self.number(*judgement, evidence, ticket, Some(reply));
            }
            Command::Close => self.closing = true,
        }
    }

    /// Gives a judgement its id and sequence, and puts it in its camera's line.
    fn number(
        &mut self,
        judgement: Judgement,
        evidence: Option<Evidence>,
        ticket: Option<Ticket>,
        reply: Option<Reply>,
    ) {
        let camera = judgement.camera.clone();
        let unknown = self.journal.state().checkpoint.unknown;
        let new = || Line { last_sequence: unknown, waiting: VecDeque::new() };
        let line = self.lines.entry(camera.clone()).or_insert_with(new);
        line.last_sequence += 1;
        let (id, box_name, sequence) =
            (self.ids.next(Timestamp::now()), self.box_name.clone(), line.last_sequence);
        let verdict = readable(Verdict { id, box_name, sequence, judgement, evidence: None });
        let mut verdict = Box::new(verdict);
        let held = evidence.and_then(|evidence| {
            verdict.evidence = Some(evidence::path_of(&verdict));
            let held = Held { since: Instant::now(), claim: Claim::default() };
            let job = Job { verdict: verdict.clone(), evidence, claim: held.claim.clone() };
            let Err(SendError(refused)) = self.jobs.send(job) else { return Some(held) };
            self.shared.evidence_waits(-refused.evidence.bytes().cast_signed());
            self.shared.evidence_lost(1, Lost::Failed, UNATTENDED);
            None
        });
        if held.is_none() {
            verdict.evidence = None;
        }
        line.waiting.push_back(Waiting { verdict, held, ticket, reply });
        self.advance(&camera);
    }

    fn evidence_done(&mut self, Done(verdict): Done) {
        let camera = verdict.camera().clone();
        let line = self.lines.entry(camera.clone()).or_default();
        if let Some(waiting) = line.waiting.iter_mut().find(|w| w.verdict.id == verdict.id) {
            waiting.verdict = verdict;
            waiting.held = None;
        }
        self.advance(&camera);
    }

    /// Moves what need not wait any longer from a camera's line to the batch.
    fn advance(&mut self, camera: &CameraId) {
        let Some(line) = self.lines.get_mut(camera) else { return };
        let ready = line.waiting.iter().take_while(|waiting| waiting.held.is_none()).count();
        for Waiting { verdict, ticket, reply, .. } in line.waiting.drain(..ready) {
            self.last.0 += 1;
            self.batch.push(Record::Verdict { position: self.last, ticket, verdict });
            self.answers.push_back(reply.map(Answer::Verdict));
        }
    }

    /// Lets verdicts go without their evidence that have waited for it longer than `limit`.
    fn stop_waiting_for_evidence(&mut self, limit: Duration) {
        let too_long = |held: &mut Held| held.since.elapsed() >= limit && held.claim.take();
        let why = "writing it took longer than a verdict may wait; the disk is slow";
        self.give_up_evidence(too_long, Lost::Late, why);
    }

    /// Lets all verdicts go without that wait for evidence: whoever wrote it has ended by a fault.
    fn nobody_writes_evidence(&mut self) {
        // What is disconnected is always ready to say so.
        self.done = never();
        self.give_up_evidence(|_| true, Lost::Failed, UNATTENDED);
    }

    fn give_up_evidence(&mut self, which: impl Fn(&mut Held) -> bool, cause: Lost, why: &str) {
        let mut given_up = 0;
        let waiting = self.lines.values_mut().flat_map(|line| &mut line.waiting);
        for waiting in waiting {
            if waiting.held.take_if(&which).is_some() {
                waiting.verdict.evidence = None;
                given_up += 1;
            }
        }
        if given_up > 0 {
            self.shared.evidence_lost(given_up, cause, why);
            for camera in self.lines.keys().cloned().collect::<Vec<_>>() {
                self.advance(&camera);
            }
        }
    }

    fn push(&mut self, record: Record, answer: Option<Answer>) {
        self.batch.push(record);
        self.answers.push_back(answer);
    }

    /// Makes the batch durable, however long that takes, then answers for it.
    ///
    /// # Errors
    /// What the disk said last, when the time to close is over.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        let published = self.shared.outbox.published();
        if published > self.journal.state().checkpoint.published {
            self.push(Record::Published { upto: published }, None);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut retry = FIRST_RETRY;
        loop {
            let began = self.shared.disk_is_asked();
            let committed = self.journal.commit(&self.batch);
            let full = committed.as_ref().err().is_some_and(is_full);
            let made_room = full && self.shared.use_reserve();
            self.shared.disk_has_answered();
            match committed {
                Ok(()) => {
                    self.shared.wrote_in(began.elapsed());
                    break;
                }
                Err(_) if made_room => {}
                Err(error) => {
                    self.shared.disk_fails(&error, self.batch.len());
                    if !self.shared.pause(retry) {
                        return Err(error.to_string());
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
        self.shared.disk_works(self.journal.state());
        let mut replies = Vec::with_capacity(self.batch.len());
        let answers = &mut self.answers;
        let verdicts =
            self.batch.drain(..).filter_map(|record| match (record, answers.pop_front().flatten()) {
                (Record::Verdict { position, verdict, .. }, answer) => {
                    if let Some(Answer::Verdict(reply)) = answer {
                        replies.push((reply, verdict.clone()));
                    }
                    Some((position, weight(&verdict), *verdict))
                }
                (_, Some(Answer::Note(noted))) => {
                    noted();
                    None
                }
                _ => None,
            });
        self.shared.outbox.push(verdicts);
        for (reply, verdict) in replies {
            reply(Ok(*verdict));
        }
        Ok(())
    }

    /// Answers for what came when it was too late; tells how much that was.
    fn refuse_queued(&self) -> usize {
        let refused = self.commands.try_iter().map(|command| match command {
            Command::Record { reply, .. } => {
                reply(Err(StoreError::Closed));
                1
            }
            Command::Accept { .. } => 1,
            Command::Close => 0,
        });
        refused.sum()
    }

    fn give_up(mut self, reason: String) -> StoreError {
        let of_others = |record: &&Record| !matches!(record, Record::Published { .. });
        let mut records = self.batch.iter().filter(of_others).count();
        for answer in self.answers.drain(..).flatten() {
            if let Answer::Verdict(reply) = answer {
                reply(Err(StoreError::Closed));
            }
        }
        for waiting in self.lines.values_mut().flat_map(|line| line.waiting.drain(..)) {
            records += 1;
            if let Some(reply) = waiting.reply {
                reply(Err(StoreError::Closed));
            }
        }
        records += self.refuse_queued();
        error!(records, reason, "the store closes with records that could not be written");
        StoreError::Unwritten { records, reason }
    }
}

/// About how much memory a verdict takes.
fn weight(verdict: &Verdict) -> usize {
    let trigger = verdict.judgement.trigger.as_ref();
    let fields = trigger.map_or(0, |t| serde_json::to_vec(t).map_or(0, |json| 4 * json.len()));
    let regions = match &verdict.judgement.outcome {
        Outcome::Inspected(finding) => finding.regions.len(),
        Outcome::Uninspected { .. } => 0,
    };
    1024 + 32 * regions + fields
}

/// The verdict, changed where it could not be read back from its JSON form, such as a score that is not a number.
fn readable(verdict: Verdict) -> Verdict {
    let fault = match serde_json::to_vec(&verdict) {
        Ok(json) if json.len() > MAX_RECORD / 2 => format!("{} bytes are too many", json.len()),
        Ok(json) => match serde_json::from_slice::<Verdict>(&json) {
            Ok(_) => return verdict,
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let (camera, sequence) = (verdict.camera().clone(), verdict.sequence);
    error!(%camera, sequence, fault, "a judgement has no readable form and is recorded as uninspected");
    let short = |text: String| text.chars().take(256).collect::<String>();
    let trigger = verdict.judgement.trigger.map(|trigger| Trigger {
        part_id: trigger.part_id.map(short),
        deadline_ms: trigger.deadline_ms,
        fields: serde_json::Map::new(),
    });
    // A score that is no number is the model's doing.
    let is_number = match &verdict.judgement.outcome {
        Outcome::Inspected(finding) => finding.score.0.is_finite() && finding.threshold.0.is_finite(),
        Outcome::Uninspected { .. } => true,
    };
    let (reason, detail) = match is_number {
        true => (Reason::Internal, format!("the judgement could not be recorded: {fault}")),
        false => (Reason::Model, "the model's score is not a number: its weights are damaged".to_owned()),
    };
    let judgement = Judgement {
        outcome: Outcome::Uninspected { reason, detail },
        timings: Timings::default(),
        trigger,
        views: None,
        source: None,
        other_sources: Vec::new(),
        ..verdict.judgement
    };
    Verdict { judgement, ..verdict }
}
