//! Opening and closing a camera while its triggers go on being answered: drivers, networks and the question which of a million
//! files are judged may take seconds, and a part that passes has no picture.
//!
//! In: what opens or closes it. Out: what came of that, and whatever triggered meanwhile, one by one, to whoever answers. One thread
//! beside the capture thread, for as long as it takes; a stop leaves it behind where it hangs. Not here: what the answer is, when
//! it is tried again (`capture`).

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never, select};

use super::part::Part;
use crate::camera::CameraError;
use crate::frame::CameraId;
use crate::shutdown::Shutdown;

/// How long the capture stage waits for anything before it shows a sign of life.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// How long a stop waits for a camera to be opened or closed in order: what takes longer ends with the program.
const STOP_WAITS: Duration = Duration::from_secs(2);

/// Does `work` on the camera `id`; `meanwhile` is given each trigger that comes, and is called now and then without one. Nothing
/// where a stop came first.
///
/// # Errors
/// That there is no thread for it, or that it panicked.
pub(super) fn beside<T: Send + 'static>(
    id: &CameraId,
    work: impl FnOnce() -> T + Send + 'static,
    triggers: &Receiver<Part>,
    stop: &Shutdown,
    mut meanwhile: impl FnMut(Option<Part>),
) -> Result<Option<T>, CameraError> {
    let (brings, brought) = bounded(1);
    let thread = std::thread::Builder::new().name(format!("open {id}"));
    let working = thread.spawn(move || {
        let _left_behind = brings.send(work());
    });
    let lost = |message: String| CameraError::Lost { name: id.to_string(), message };
    working.map_err(|e| lost(format!("no thread can be started for it: {e}")))?;
    let mut triggers = triggers.clone();
    let mut stopped = None;
    loop {
        select! {
            recv(brought) -> outcome => {
                return outcome.map(Some).map_err(|_panicked| lost("its driver's library failed".into()));
            }
            recv(triggers) -> trigger => match trigger {
                Ok(trigger) => meanwhile(Some(trigger)),
                Err(_) => triggers = never(),
            },
            default(TICK) => meanwhile(None),
        }
        if stop.requested() && stopped.get_or_insert_with(Instant::now).elapsed() > STOP_WAITS {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::camera::{Camera, Next};
    use crate::health::LineHealth;
    use crate::pipeline::part::Outlet;
    use crate::verdict::{Outcome, Reason};

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Blind;

    impl Camera for Blind {
        fn describe(&self) -> String {
            "blind".into()
        }

        fn next(&mut self, _: Duration) -> Result<Next, CameraError> {
            Ok(Next::Nothing)
        }
    }

    #[test]
    fn what_triggers_while_a_camera_opens_is_answered_before_it_has() {
        let id: CameraId = "top".parse().unwrap();
        let (trigger, triggers) = bounded(1);
        let (dispatch, decided) = bounded(1);
        let outlet = Outlet::new(dispatch, LineHealth::for_tests());
        let (let_it_open, may_open) = bounded(1);
        let open = move || {
            may_open.recv_timeout(PATIENCE).expect("the trigger is answered first");
            Box::new(Blind) as Box<dyn Camera>
        };
        trigger.send(Part::free_running(&outlet, Instant::now(), Timestamp::now())).unwrap();
        // With nobody left to trigger, it is waited for all the same.
        drop(trigger);
        let camera = beside(&id, open, &triggers, &Shutdown::new(), |trigger| {
            if let Some(part) = trigger {
                part.give_up(Reason::Camera, "not yet");
                let outcome = decided.recv_timeout(PATIENCE).unwrap().judgement.outcome;
                assert!(matches!(outcome, Outcome::Uninspected { reason: Reason::Camera, .. }));
                let_it_open.send(()).unwrap();
            }
        });
        assert_eq!(camera.unwrap().unwrap().describe(), "blind");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_camera_that_hangs() {
        let id: CameraId = "top".parse().unwrap();
        let (let_go, hangs) = bounded::<()>(0);
        let stop = Shutdown::new();
        stop.request();
        let hung = beside(&id, move || hangs.recv(), &never(), &stop, |_| ());
        assert!(hung.unwrap().is_none());
        drop(let_go);
    }
}
