//! Whether what comes in has waited at the broker, for a part that has long moved on.
//!
//! Brokers hold messages back while the box is away, and also while it owes more acknowledgements than they allow, which
//! they do not tell. The box's own status comes back after everything older: when the broker has acknowledged it and
//! does not deliver it, the broker is holding back. Pure. Not here: what becomes of a late trigger (`pipeline`).

use std::time::Duration;

use tokio::time::Instant;

/// The longest that a message may have waited and still be called fresh, about; and how long a message may be owed its
/// acknowledgement before the broker is asked whether it holds others back for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Signs of life that the status may take to come back before it is sent again or given up.
const HOPE: u32 = 4;
/// Times that it is waited for in vain where it has come back before, or where so much comes that it may have been dropped,
/// until it is given up.
const ROUNDS: u32 = 3;
/// More messages in a second than these are taken for what the broker had kept, which comes before the status. Brokers
/// keep 1,000 unless told otherwise, which are through before hope is lost.
const FLOOD: u32 = 50;

/// The status that was sent last, on its way to the broker and back.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Whether one is on its way.
    out: bool,
    /// When the broker acknowledged it.
    acknowledged: Option<Instant>,
    /// Whether one has ever come back on this connection; access rules may withhold them.
    hears: bool,
    /// Since when nothing but such rules can withhold it, as far as is known, and what has come since.
    withheld: Option<Instant>,
    came: u32,
    /// Times that it was waited for in vain.
    rounds: u32,
}

/// What is to be done about a status that does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It may come yet.
    Wait,
    /// It is lost: send it again.
    Again,
    /// None will: go on without.
    Hopeless,
}

impl Lag {
    /// The status was sent.
    pub(super) fn asked(&mut self) {
        *self = Self { out: true, hears: self.hears, rounds: self.rounds, ..Self::default() };
    }

    /// A message came.
    pub(super) fn came(&mut self) {
        self.came = self.came.saturating_add(1);
    }

    /// The broker has acknowledged it.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        if self.out {
            (self.acknowledged, self.withheld, self.came) = (Some(now), Some(now), 0);
        }
    }

    /// It came back; `true` if that was prompt, so that nothing is being held back. Where it was sent again, one that comes before
    /// the acknowledgement may be the one before.
    pub(super) fn came_back(&mut self, now: Instant) -> bool {
        let may_be_the_one_before = self.rounds > 0 && self.acknowledged.is_none();
        let prompt = !self.waited(now, PATIENCE) && !may_be_the_one_before;
        *self = Self { hears: true, ..Self::default() };
        prompt
    }

    /// Whether the broker is holding it back; where none has ever come back, that cannot be told.
    pub(super) fn overdue(&self, now: Instant) -> bool {
        self.hears && self.waited(now, PATIENCE)
    }

    /// It will not come back. Whether that is so of all of them, as far as is known.
    pub(super) fn given_up(&mut self) -> bool {
        *self = Self { hears: self.hears, ..Self::default() };
        !self.hears
    }

    /// What becomes of one that does not come back although messages do, `keep_alive` being the time between signs of life and
    /// `oldest` when the oldest message came that is not acknowledged: brokers may wait for that.
    pub(super) fn outlook(&mut self, oldest: Option<Instant>, keep_alive: Duration, now: Instant) -> Outlook {
        let Some(since) = self.withheld else { return Outlook::Wait };
        if oldest.is_some_and(|oldest| now - oldest > PATIENCE) {
            (self.withheld, self.came) = (Some(now), 0);
            return Outlook::Wait;
        }
        let hope = keep_alive * HOPE;
        if now - since <= hope {
            return Outlook::Wait;
        }
        self.rounds += 1;
        let flooded = u64::from(self.came) > u64::from(FLOOD) * hope.as_secs();
        if (self.hears || flooded) && self.rounds < ROUNDS {
            self.withheld = None;
            return Outlook::Again;
        }
        self.hears = false;
        Outlook::Hopeless
    }

    /// Whether it has been held back for longer than `limit`.
    pub(super) fn waited(&self, now: Instant, limit: Duration) -> bool {
        self.acknowledged.is_some_and(|at| now - at > limit)
    }

    /// Whether to send it again, where the oldest message that is not acknowledged came at `oldest`.
    pub(super) fn should_ask(&self, oldest: Option<Instant>, now: Instant) -> bool {
        self.hears && !self.out && oldest.is_some_and(|oldest| now - oldest > PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_status_that_comes_back_at_once_means_that_nothing_is_held_back() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        // A slow line delays both alike.
        lag.acknowledged(start + 5000 * MS);
        assert!(!lag.overdue(start + 5500 * MS));
        assert!(lag.came_back(start + 5500 * MS));
        lag.asked();
        assert!(lag.came_back(start + 9000 * MS), "it may come before its acknowledgement");
    }

    #[test]
    fn a_status_that_is_withheld_means_that_others_are_too() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        lag.acknowledged(start);
        assert!(lag.waited(start + 1001 * MS, PATIENCE));
        assert!(!lag.overdue(start + 1001 * MS), "perhaps nobody may hear it");
        assert!(!lag.came_back(start + 1001 * MS));
        lag.asked();
        lag.acknowledged(start);
        assert!(lag.overdue(start + 1001 * MS));
        assert!(!lag.came_back(start + 1001 * MS));
        assert!(!lag.overdue(start + 9000 * MS));
    }

    #[test]
    fn a_status_that_does_not_come_back_to_a_busy_line_is_given_up() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        let long_after = start + 60_000 * MS;
        assert_eq!(lag.outlook(None, 5000 * MS, long_after), Outlook::Wait, "it is not even acknowledged");
        lag.acknowledged(start);
        (0..200).for_each(|_| lag.came());
        assert_eq!(lag.outlook(None, 5000 * MS, start + 20_000 * MS), Outlook::Wait);
        let just_now = Some(start + 20_000 * MS);
        assert_eq!(lag.outlook(just_now, 5000 * MS, start + 20_001 * MS), Outlook::Hopeless);
        assert!(lag.given_up());
        assert!(!lag.overdue(long_after));
        assert_eq!(lag.outlook(None, 5000 * MS, long_after), Outlook::Wait);
    }

    #[test]
    fn where_one_has_come_back_before_a_single_status_that_is_lost_is_sent_again() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        lag.came_back(start);
        lag.asked();
        lag.acknowledged(start);
        assert!(lag.overdue(start + 1001 * MS));
        assert_eq!(lag.outlook(None, 1000 * MS, start + 4001 * MS), Outlook::Again);
        assert_eq!(
            lag.outlook(None, 1000 * MS, start + 9000 * MS),
            Outlook::Wait,
            "once for each that is lost"
        );
        lag.asked();
        lag.acknowledged(start + 4002 * MS);
        assert!(lag.came_back(start + 4003 * MS));
        lag.asked();
        lag.acknowledged(start + 5000 * MS);
        assert!(lag.overdue(start + 6001 * MS), "one is still expected to come back");
    }

    #[test]
    fn one_that_comes_back_before_the_next_is_acknowledged_may_be_the_one_that_was_late() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        lag.came_back(start);
        lag.asked();
        lag.acknowledged(start);
        assert_eq!(lag.outlook(None, 1000 * MS, start + 4001 * MS), Outlook::Again);
        lag.asked();
        assert!(!lag.came_back(start + 4002 * MS));
        lag.asked();
        assert!(lag.came_back(start + 4003 * MS), "the next one is told apart again");
    }

    #[test]
    fn one_that_is_lost_again_and_again_is_given_up() {
        let (mut lag, mut now) = (Lag::default(), Instant::now());
        lag.asked();
        lag.came_back(now);
        for expected in [Outlook::Again, Outlook::Again, Outlook::Hopeless] {
            lag.asked();
            lag.acknowledged(now);
            now += 4001 * MS;
            assert_eq!(lag.outlook(None, 1000 * MS, now), expected);
        }
        assert!(lag.given_up(), "none is expected any more");
        assert!(!lag.overdue(now + 9000 * MS));
    }

    #[test]
    fn however_much_comes_a_status_that_is_withheld_is_given_up_in_the_end() {
        let (mut lag, mut now) = (Lag::default(), Instant::now());
        for expected in [Outlook::Again, Outlook::Again, Outlook::Hopeless] {
            lag.asked();
            lag.acknowledged(now);
            now += 4001 * MS;
            (0..201).for_each(|_| lag.came());
            assert_eq!(lag.outlook(None, 1000 * MS, now), expected);
        }
        assert!(lag.given_up());
    }

    #[test]
    fn hope_lasts_while_the_broker_waits_for_acknowledgements_or_delivers_what_it_had_kept() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.asked();
        lag.acknowledged(start);
        let mut outlook = |oldest, ms: u32| lag.outlook(oldest, 1000 * MS, start + ms * MS);
        assert_eq!(outlook(Some(start), 5000), Outlook::Wait, "the disk stands still");
        assert_eq!(outlook(None, 9000), Outlook::Wait, "it has only just gone on");
        (0..201).for_each(|_| lag.came());
        let again = lag.outlook(None, 1000 * MS, start + 9001 * MS);
        assert_eq!(again, Outlook::Again, "no line is as busy, and brokers drop what is too much");
    }

    #[test]
    fn it_is_sent_again_only_while_something_is_owed_and_an_answer_can_be_had() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let later = start + 1500 * MS;
        assert!(!lag.should_ask(Some(start), later), "nothing was ever heard");
        lag.asked();
        lag.came_back(start);
        assert!(!lag.should_ask(None, later));
        assert!(!lag.should_ask(Some(start + 1000 * MS), later));
        assert!(lag.should_ask(Some(start), later));
        lag.asked();
        assert!(!lag.should_ask(Some(start), later), "one at a time");
    }
}
