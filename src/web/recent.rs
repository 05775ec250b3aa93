//! The newest verdict of each camera, and the last parts that were not `ok`, for the page.
//!
//! Follows the store as the outbox does; what comes faster than it reads is skipped, since only the newest is shown.
//! One task of the web thread writes, its requests read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::View;
use crate::frame::CameraId;
use crate::store::{Position, Query};
use crate::verdict::{Decision, Verdict};

/// Alarms that are kept.
const ALARMS: usize = 24;
/// Verdicts read at once.
const BATCH: usize = 1024;
/// The time between two looks; a page cannot show more.
const LOOK: Duration = Duration::from_millis(200);

/// What happened last.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: BTreeMap<CameraId, Verdict>,
    /// Newest first.
    alarms: VecDeque<Verdict>,
}

impl Recent {
    pub(super) fn last(&self, camera: &CameraId) -> Option<Verdict> {
        self.lock().last.get(camera).cloned()
    }

    pub(super) fn alarms(&self) -> Vec<Verdict> {
        self.lock().alarms.iter().cloned().collect()
    }

    /// Adds verdicts, in order; what came while the page looked back may be told twice.
    fn add(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        let mut inner = self.lock();
        for verdict in verdicts {
            let known = || inner.alarms.iter().any(|alarm| alarm.id == verdict.id);
            if verdict.decision() != Decision::Ok && !known() {
                inner.alarms.push_front(verdict.clone());
                inner.alarms.truncate(ALARMS);
            }
            inner.last.insert(verdict.camera().clone(), verdict);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the store, for ever.
pub(super) async fn follow(view: &Arc<View>) {
    let mut tip = view.watched.store.tip();
    let mut after = *tip.borrow_and_update();
    let earlier = view.clone();
    let _failed_and_logged = spawn_blocking(move || remember(&earlier)).await;
    loop {
        let newest = *tip.borrow_and_update();
        after = after.max(Position(newest.0.saturating_sub(BATCH as u64)));
        while after < newest {
            let (reader, from) = (view.clone(), after);
            match spawn_blocking(move || reader.watched.store.outbox(from, BATCH)).await {
                Ok(Ok(verdicts)) if !verdicts.is_empty() => {
                    after = verdicts.last().map_or(newest, |(position, _)| *position);
                    view.recent.add(verdicts.into_iter().map(|(_, verdict)| verdict));
                }
                // What cannot be read is not shown; the publisher logs why.
                _ => after = newest,
            }
        }
        if tip.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What an earlier run left.
fn remember(view: &View) {
    let query = Query { limit: 4 * ALARMS, ..Query::default() };
    let mut verdicts = view.watched.store.history(&query).unwrap_or_default();
    for decision in [Decision::Anomalous, Decision::Uninspected] {
        let query = Query { decision: Some(decision), limit: ALARMS, ..Query::default() };
        verdicts.extend(view.watched.store.history(&query).unwrap_or_default());
    }
    verdicts.sort_by_key(|verdict| (verdict.id, verdict.sequence));
    verdicts.dedup_by_key(|verdict| verdict.id);
    view.recent.add(verdicts);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::verdict::tests::judgement;

    #[test]
    fn an_alarm_that_is_told_twice_is_shown_once() {
        let recent = Recent::default();
        let alarm = |n: u64| Verdict {
            id: Uuid::from_u128(n.into()),
            box_name: "box".into(),
            sequence: n,
            judgement: judgement("top", 0.9),
            evidence: None,
        };
        recent.add([alarm(1), alarm(2)]);
        recent.add([alarm(2), alarm(3)]);
        let shown: Vec<_> = recent.alarms().iter().map(|alarm| alarm.sequence).collect();
        assert_eq!(shown, [3, 2, 1]);
    }
}
