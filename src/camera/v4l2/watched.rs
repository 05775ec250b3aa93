//! A grabber under watch: its own thread takes frames as they come and keeps the newest, and whoever asks waits no longer
//! than they say.
//!
//! Drivers block without limit when a camera stalls, and hand out old frames to whoever reads slowly; the thread turns
//! both into what the pipeline needs. One thread for each open camera; it ends when the camera is dropped, unless the
//! driver holds it, in which case it is left behind and ends when the driver lets go. A frame that is replaced by a
//! newer one before anybody asked was never accepted and needs no verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::frame::Pixels;

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
    /// This frame is spoiled; the next may be fine.
    Bad(String),
    /// The camera is gone, or must be opened again.
    Lost(String),
}

/// What delivers frames: a camera, or a script in a test.
pub(super) trait Grabber {
    /// Waits for the next frame, perhaps without limit.
    fn grab(&mut self) -> Result<Grabbed, GrabError>;
}

/// What came of waiting.
#[derive(Debug)]
pub(super) enum Waited {
    Frame(Grabbed),
    Nothing,
}

#[derive(Default)]
struct Slot {
    /// The newest frame, or why there is none.
    newest: Option<Result<Grabbed, GrabError>>,
    /// When the thread last gave a sign.
    alive: Option<Instant>,
    /// Nobody will ask any more.
    closed: bool,
    /// The thread is done.
    ended: bool,
}

type Shared = Arc<(Mutex<Slot>, Condvar)>;

/// See the module.
pub(super) struct Watched {
    shared: Shared,
    stall: Duration,
}

/// How long a thread that should end is waited for.
const FAREWELL: Duration = Duration::from_millis(500);

fn lock(shared: &Shared) -> MutexGuard<'_, Slot> {
    shared.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Watched {
    /// Opens a grabber on its own thread. `open` runs there too, since drivers may hang in it, or tie what they open to
    /// the thread.
    ///
    /// # Errors
    /// What `open` said, or that it took longer than `stall`.
    pub(super) fn open(
        name: &str,
        stall: Duration,
        open: impl FnOnce() -> Result<Box<dyn Grabber>, GrabError> + Send + 'static,
    ) -> Result<Self, GrabError> {
        let shared = Shared::default();
        let (opened, answer) = crossbeam_channel::bounded(1);
        let theirs = shared.clone();
        let spawned = std::thread::Builder::new().name(format!("camera {name}")).spawn(move || {
            let ran = catch_unwind(AssertUnwindSafe(|| match open() {
                Ok(mut grabber) => {
                    let _nobody_waits = opened.send(Ok(()));
                    deliver(grabber.as_mut(), &theirs);
                }
                Err(error) => {
                    let _nobody_waits = opened.send(Err(error));
                }
            }));
            let mut slot = lock(&theirs);
            if ran.is_err() {
                slot.newest = Some(Err(GrabError::Lost("its driver's library failed".into())));
            }
            slot.ended = true;
            theirs.1.notify_all();
        });
        spawned.map_err(|e| GrabError::Lost(format!("no thread can be started for it: {e}")))?;
        let watched = Self { shared, stall };
        match answer.recv_timeout(stall) {
            Ok(Ok(())) => {
                lock(&watched.shared).alive.get_or_insert_with(Instant::now);
                Ok(watched)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(GrabError::Lost(format!("it did not open within {} ms", stall.as_millis()))),
        }
    }

    /// The newest frame that nobody has had, waiting for one until `deadline`.
    pub(super) fn next(&self, deadline: Instant) -> Result<Waited, GrabError> {
        let mut slot = lock(&self.shared);
        loop {
            match slot.newest.take() {
                Some(Ok(frame)) => return Ok(Waited::Frame(frame)),
                Some(Err(error)) => return Err(error),
                None if slot.ended => return Err(GrabError::Lost("it was closed after an error".into())),
                None => {}
            }
            let now = Instant::now();
            let silent = slot.alive.map_or(Duration::ZERO, |alive| now.saturating_duration_since(alive));
            if silent >= self.stall {
                return Err(GrabError::Lost(format!("no frame came for {} ms", silent.as_millis())));
            }
            let left = deadline.saturating_duration_since(now).min(self.stall - silent);
            if deadline <= now {
                return Ok(Waited::Nothing);
            }
            let waited = self.shared.1.wait_timeout(slot, left);
            slot = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

/// Takes frames until nobody asks any more or the camera is lost.
fn deliver(grabber: &mut dyn Grabber, shared: &Shared) {
    loop {
        let grabbed = grabber.grab();
        let lost = matches!(grabbed, Err(GrabError::Lost(_)));
        let mut slot = lock(shared);
        if slot.closed {
            return;
        }
        slot.alive = Some(Instant::now());
        if slot.newest.replace(grabbed).is_some() {
            debug!("a frame was replaced by a newer one");
        }
        shared.1.notify_all();
        if lost {
            return;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut slot = lock(&self.shared);
        slot.closed = true;
        let deadline = Instant::now() + FAREWELL;
        while !slot.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!("a camera's driver does not return; its thread is left behind");
                return;
            }
            slot = self.shared.1.wait_timeout(slot, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, unbounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Delivers what it is told to, and blocks as a stalled driver does when it is told nothing.
    struct Script(Receiver<Result<u8, GrabError>>);

    impl Grabber for Script {
        fn grab(&mut self) -> Result<Grabbed, GrabError> {
            let told = self.0.recv().unwrap_or(Err(GrabError::Lost("the script ended".into())));
            told.map(|mark| Grabbed {
                pixels: Pixels::Encoded(vec![mark]),
                taken: None,
                arrived: Instant::now(),
            })
        }
    }

    fn scripted(stall: Duration) -> (Watched, Sender<Result<u8, GrabError>>) {
        let (tell, told) = unbounded();
        (Watched::open("test", stall, move || Ok(Box::new(Script(told)))).ok().unwrap(), tell)
    }

    fn mark(waited: Waited) -> Option<u8> {
        match waited {
            Waited::Frame(Grabbed { pixels: Pixels::Encoded(bytes), .. }) => Some(bytes[0]),
            _ => None,
        }
    }

    #[test]
    fn a_slow_reader_gets_the_newest_frame() {
        let (watched, tell) = scripted(PATIENCE);
        for n in 0..5 {
            tell.send(Ok(n)).unwrap();
        }
        let began = Instant::now();
        // All five were taken when the thread waits for the sixth.
        while !tell.is_empty() && began.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        let mut last = None;
        while last != Some(4) {
            last = mark(watched.next(Instant::now() + PATIENCE).unwrap());
        }
        assert!(matches!(watched.next(Instant::now()).unwrap(), Waited::Nothing));
    }

    #[test]
    fn a_stalled_driver_costs_no_more_than_the_stall_time() {
        let (watched, tell) = scripted(Duration::from_millis(50));
        let error = watched.next(Instant::now() + PATIENCE).unwrap_err();
        assert!(matches!(&error, GrabError::Lost(message) if message.contains("no frame came")), "{error:?}");
        drop(tell);
    }

    #[test]
    fn waiting_less_than_the_stall_time_is_no_error() {
        let (watched, _tell) = scripted(PATIENCE);
        assert!(matches!(watched.next(Instant::now() + Duration::from_millis(5)).unwrap(), Waited::Nothing));
    }

    #[test]
    fn a_bad_frame_spoils_one_frame_and_a_loss_ends_it() {
        let (watched, tell) = scripted(PATIENCE);
        tell.send(Err(GrabError::Bad("torn".into()))).unwrap();
        let next = || watched.next(Instant::now() + PATIENCE);
        assert!(matches!(next(), Err(GrabError::Bad(_))));
        tell.send(Ok(7)).unwrap();
        assert_eq!(mark(next().unwrap()), Some(7));
        tell.send(Err(GrabError::Lost("unplugged".into()))).unwrap();
        assert!(matches!(next(), Err(GrabError::Lost(m)) if m == "unplugged"));
        assert!(matches!(next(), Err(GrabError::Lost(_))));
    }

    #[test]
    fn what_fails_or_panics_while_opening_is_reported() {
        let refused = Watched::open("t", PATIENCE, || Err(GrabError::Lost("busy".into())));
        assert!(matches!(refused, Err(GrabError::Lost(m)) if m == "busy"));
        let panicked = Watched::open("t", PATIENCE, || panic!("as a driver's library might"));
        assert!(matches!(panicked, Err(GrabError::Lost(_))));
    }
}
