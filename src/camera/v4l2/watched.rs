//! A grabber under watch: its own thread takes frames as they come and keeps the newest, and whoever asks waits no longer
//! than they say.
//!
//! Drivers block without limit when a camera stalls, and hand out old frames to whoever reads slowly; the thread turns
//! both into what the pipeline needs. One thread for each open camera; it ends when the camera is dropped, unless the
//! driver holds it, in which case it is left behind and ends when the driver lets go; until then the camera is not tried
//! again, so that a broken driver costs one thread and not one a minute. A frame that is replaced by a newer one before
//! anybody asked was never accepted and needs no verdict.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use tracing::{debug, warn};

use crate::frame::{Losses, Pixels};

/// One exposure.
#[derive(Debug)]
pub(super) struct Grabbed {
    pub(super) pixels: Pixels,
    /// When it was taken, if the driver says; not after its arrival.
    pub(super) taken: Option<Instant>,
    /// When it arrived.
    pub(super) arrived: Instant,
}

/// Why a grab failed.
#[derive(Debug)]
pub(super) enum GrabError {
    /// The frame that was taken then is spoiled; the next may be fine.
    Bad(String, Instant),
    /// The camera is gone, or must be opened again.
    Lost(String),
}

/// What delivers frames: a camera, or a script in a test.
pub(super) trait Grabber {
    /// Waits for the next frame, perhaps without limit.
    fn grab(&mut self) -> Result<Grabbed, GrabError>;

    /// What was lost since it was opened.
    fn losses(&self) -> Losses {
        Losses::default()
    }
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the driver to open, whatever it delivers then.
    pub(super) opening: Duration,
    /// For the first frame, which takes a camera longer than the next.
    pub(super) first: Duration,
    /// From one frame to the next.
    pub(super) stall: Duration,
}

impl Limits {
    /// Those of a camera that may be silent for `stall`.
    pub(super) fn of(stall: Duration) -> Self {
        Self { opening: Duration::from_secs(10), first: stall.max(Duration::from_secs(5)), stall }
    }
}

#[derive(Default)]
struct Slot {
    /// The newest frame, or why there is none.
    newest: Option<Result<Grabbed, GrabError>>,
    losses: Losses,
    /// When it was opened or last gave a frame.
    alive: Option<Instant>,
    /// Whether a frame has come.
    delivers: bool,
    /// Nobody will ask any more.
    closed: bool,
    /// The thread is done.
    ended: bool,
    /// Nobody waits for its end.
    left_behind: bool,
}

type Shared = Arc<(Mutex<Slot>, Condvar)>;

/// See the module.
pub(super) struct Watched {
    name: String,
    shared: Shared,
    limits: Limits,
}

/// How long a thread that should end is waited for.
const FAREWELL: Duration = Duration::from_millis(500);

/// The cameras whose drivers hold a thread.
static HELD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    /// Opens a grabber on its own thread, and passes on what is told of it. `open` runs there too, since drivers may hang
    /// in it, or tie what they open to the thread.
    ///
    /// # Errors
    /// What `open` said, that it took too long, or that the driver still holds the thread that tried before.
    pub(super) fn open<T: Send + 'static>(
        name: &str,
        limits: Limits,
        open: impl FnOnce() -> Result<(Box<dyn Grabber>, T), GrabError> + Send + 'static,
    ) -> Result<(Self, T), GrabError> {
        if lock(&HELD).contains(name) {
            return Err(GrabError::Lost("its driver has not returned since it hung: unplug it".into()));
        }
        let watched = Self { name: name.to_owned(), shared: Shared::default(), limits };
        let (opened, answer) = crossbeam_channel::bounded(1);
        let (theirs, their_name) = (watched.shared.clone(), name.to_owned());
        let spawned = std::thread::Builder::new().name(format!("camera {name}")).spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| match open() {
                Ok((mut grabber, told)) => {
                    let _nobody_waits = opened.send(Ok(told));
                    deliver(grabber.as_mut(), &theirs);
                }
                Err(error) => {
                    let _nobody_waits = opened.send(Err(error));
                }
            }));
            end(&theirs, &their_name, ran.is_err());
        });
        if let Err(e) = spawned {
            lock(&watched.shared.0).ended = true;
            return Err(GrabError::Lost(format!("no thread can be started for it: {e}")));
        }
        match answer.recv_timeout(limits.opening) {
            Ok(Ok(told)) => {
                lock(&watched.shared.0).alive.get_or_insert_with(Instant::now);
                Ok((watched, told))
            }
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Disconnected) => Err(GrabError::Lost("its driver's library failed".into())),
            Err(RecvTimeoutError::Timeout) => {
                Err(GrabError::Lost(format!("it did not open within {} ms", limits.opening.as_millis())))
            }
        }
    }

    /// The newest frame that nobody has had, waiting for one until `deadline`; none if none came.
    pub(super) fn next(&self, deadline: Instant) -> Result<Option<Grabbed>, GrabError> {
        self.wait(deadline, |slot| slot.newest.take())
    }

    /// Waits until a frame has come, and leaves it; no error if none came until `deadline`.
    pub(super) fn await_sign(&self, deadline: Instant) -> Result<(), GrabError> {
        let sign = |slot: &mut Slot| match slot.newest.take_if(|newest| is_loss(newest)) {
            Some(Err(error)) => Some(Err(error)),
            _ => slot.newest.is_some().then_some(Ok(())),
        };
        self.wait(deadline, sign).map(drop)
    }

    /// Whether the camera still delivers.
    pub(super) fn check(&self) -> Result<(), GrabError> {
        self.await_sign(Instant::now())
    }

    /// Lets go of what came before now.
    pub(super) fn forget(&self) {
        let _older = lock(&self.shared.0).newest.take_if(|newest| !is_loss(newest));
    }

    /// What was lost since it was opened.
    pub(super) fn losses(&self) -> Losses {
        lock(&self.shared.0).losses
    }

    /// Waits until `look` finds something, or the camera is lost.
    fn wait<T>(
        &self,
        deadline: Instant,
        look: impl Fn(&mut Slot) -> Option<Result<T, GrabError>>,
    ) -> Result<Option<T>, GrabError> {
        let mut slot = lock(&self.shared.0);
        loop {
            if let Some(found) = look(&mut slot) {
                return found.map(Some);
            }
            if slot.ended {
                return Err(GrabError::Lost("it was closed after an error".into()));
            }
            let now = Instant::now();
            let silent = slot.alive.map_or(Duration::ZERO, |alive| now.saturating_duration_since(alive));
            let limit = if slot.delivers { self.limits.stall } else { self.limits.first };
            if silent >= limit {
                return Err(GrabError::Lost(format!("no frame came for {} ms", silent.as_millis())));
            }
            if deadline <= now {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(now).min(limit - silent);
            slot = self.shared.1.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn is_loss(grabbed: &Result<Grabbed, GrabError>) -> bool {
    matches!(grabbed, Err(GrabError::Lost(_)))
}

/// Takes frames until nobody asks any more or the camera is lost.
fn deliver(grabber: &mut dyn Grabber, shared: &Shared) {
    while !lock(&shared.0).closed {
        let grabbed = grabber.grab();
        let lost = is_loss(&grabbed);
        let mut slot = lock(&shared.0);
        slot.alive = Some(Instant::now());
        slot.delivers = true;
        slot.losses = grabber.losses();
        if slot.newest.replace(grabbed).is_some() {
            debug!("a frame was replaced by a newer one");
        }
        shared.1.notify_all();
        if lost {
            return;
        }
    }
}

/// The thread's last act.
fn end(shared: &Shared, name: &str, panicked: bool) {
    let mut slot = lock(&shared.0);
    if panicked {
        slot.newest = Some(Err(GrabError::Lost("its driver's library failed".into())));
    }
    slot.ended = true;
    if slot.left_behind {
        lock(&HELD).remove(name);
    }
    shared.1.notify_all();
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut slot = lock(&self.shared.0);
        slot.closed = true;
        let deadline = Instant::now() + FAREWELL;
        while !slot.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                slot.left_behind = true;
                lock(&HELD).insert(self.name.clone());
                warn!(camera = self.name, "the camera's driver does not return; its thread is left behind");
                return;
            }
            slot = self.shared.1.wait_timeout(slot, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests;
