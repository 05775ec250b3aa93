//! How a process makes way for the inspection beside it.
//!
//! In: nothing but this process, before it has a second thread: threads inherit what the first one has. What the system
//! refuses is warned about and done without. Not here: whether it should (`[retrain]`).

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tracing::warn;

/// The lowest priority: whoever else wants the processor or the disk goes first.
pub(super) fn step_back() {
    if let Err(error) = rustix::process::nice(19) {
        warn!(%error, "cannot lower the priority; inspection may be slowed down");
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the structure that it is given, and 0 means the calling thread.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if refused != 0 {
        warn!(error = %io::Error::last_os_error(), "cannot be scheduled as idle; it has the lowest priority only");
    }
}

/// Leaves the daemon's session. Kernels that share the processor out by session first (autogroup) would otherwise take
/// what the retraining uses from the daemon's share, however low its priority, where others want the processor too.
pub(super) fn stand_apart() {
    if let Err(error) = rustix::process::setsid() {
        warn!(%error, "cannot leave the daemon's session; inspection may be slowed down where others are busy");
        return;
    }
    // Kernels without it have nothing to be told.
    let _without = std::fs::write("/proc/self/autogroup", "19");
}

/// Where memory runs short, this process is to be ended, not the daemon that it inherits its protection from. Any process may
/// make itself less worth.
pub(super) fn fall_first() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        warn!(%error, "cannot stand back where memory runs short; inspection may be ended in its place");
    }
}

/// Stays on so many processors, the last of those it may use. One that moves about leaves cold caches behind on every
/// processor that the inspection uses.
pub(super) fn keep_to(processors: usize) {
    let kept =
        sched_getaffinity(None).and_then(|allowed| sched_setaffinity(None, &last(&allowed, processors)));
    if let Err(error) = kept {
        warn!(%error, "cannot stay on one part of the processors; inspection may be slowed down");
    }
}

/// The last so many of `allowed`.
fn last(allowed: &CpuSet, processors: usize) -> CpuSet {
    let mut kept = CpuSet::new();
    (0..CpuSet::MAX_CPU)
        .rev()
        .filter(|cpu| allowed.is_set(*cpu))
        .take(processors)
        .for_each(|cpu| kept.set(cpu));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_allowed_processors_are_kept() {
        let set = |cpus: &[usize]| {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu));
            set
        };
        let allowed = set(&[0, 2, 3, 70]);
        assert!(last(&allowed, 1) == set(&[70]));
        assert!(last(&allowed, 3) == set(&[2, 3, 70]));
        assert!(last(&allowed, 9) == allowed);
    }
}
