//! Grabbers that deliver, stall, hang, fail and panic as scripts say.

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Delivers what it is told to, and blocks as a stalled driver does when it is told nothing.
struct Script(Receiver<Result<u8, GrabError>>);

impl Grabber for Script {
    fn grab(&mut self) -> Result<Grabbed, GrabError> {
        let told = self.0.recv().unwrap_or(Err(GrabError::Lost("the script ended".into())));
        told.map(|mark| Grabbed { pixels: Pixels::Encoded(vec![mark]), taken: None, arrived: Instant::now() })
    }
}

fn limits(stall: Duration) -> Limits {
    Limits { opening: PATIENCE, first: stall, stall }
}

fn open(name: &str, stall: Duration, script: Script) -> Result<Watched, GrabError> {
    Watched::open(name, limits(stall), move || Ok((Box::new(script) as Box<dyn Grabber>, ())))
        .map(|opened| opened.0)
}

fn scripted(name: &str, stall: Duration) -> (Watched, Sender<Result<u8, GrabError>>) {
    let (tell, told) = unbounded();
    (open(name, stall, Script(told)).ok().unwrap(), tell)
}

fn mark(waited: Option<Grabbed>) -> Option<u8> {
    match waited?.pixels {
        Pixels::Encoded(bytes) => bytes.first().copied(),
        Pixels::Raw { .. } => None,
    }
}

fn why(refused: Result<impl Sized, GrabError>) -> String {
    match refused {
        Err(GrabError::Lost(message) | GrabError::Bad(message, _)) => message,
        Ok(_) => String::new(),
    }
}

#[test]
fn a_slow_reader_gets_the_newest_frame() {
    let (watched, tell) = scripted("test", PATIENCE);
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
    assert!(watched.next(Instant::now()).unwrap().is_none());
}

#[test]
fn a_stalled_driver_costs_no_more_than_the_stall_time() {
    let (watched, tell) = scripted("stalled", Duration::from_millis(50));
    let error = watched.next(Instant::now() + PATIENCE).unwrap_err();
    assert!(matches!(&error, GrabError::Lost(message) if message.contains("no frame came")), "{error:?}");
    drop(tell);
}

#[test]
fn waiting_less_than_the_stall_time_is_no_error() {
    let (watched, _tell) = scripted("test", PATIENCE);
    assert!(watched.next(Instant::now() + Duration::from_millis(5)).unwrap().is_none());
}

#[test]
fn a_bad_frame_spoils_one_frame_and_a_loss_ends_it() {
    let (watched, tell) = scripted("test", PATIENCE);
    tell.send(Err(GrabError::Bad("torn".into(), Instant::now()))).unwrap();
    let next = || watched.next(Instant::now() + PATIENCE);
    assert!(matches!(next(), Err(GrabError::Bad(..))));
    tell.send(Ok(7)).unwrap();
    assert_eq!(mark(next().unwrap()), Some(7));
    tell.send(Err(GrabError::Lost("unplugged".into()))).unwrap();
    assert!(matches!(next(), Err(GrabError::Lost(m)) if m == "unplugged"));
    assert!(matches!(next(), Err(GrabError::Lost(_))));
}

#[test]
fn what_fails_or_panics_while_opening_is_reported() {
    let refused = Watched::open::<()>("t", limits(PATIENCE), || Err(GrabError::Lost("busy".into())));
    assert_eq!(why(refused), "busy");
    let panicked = Watched::open::<()>("t", limits(PATIENCE), || panic!("as a driver's library might"));
    assert_eq!(why(panicked), "its driver's library failed");
}

#[test]
fn a_loss_is_noticed_while_nobody_wants_a_frame() {
    let (watched, tell) = scripted("idle", PATIENCE);
    tell.send(Ok(1)).unwrap();
    watched.await_sign(Instant::now() + PATIENCE).unwrap();
    watched.check().unwrap();
    assert_eq!(mark(watched.next(Instant::now()).unwrap()), Some(1), "looking does not take the frame");
    tell.send(Err(GrabError::Lost("unplugged".into()))).unwrap();
    let began = Instant::now();
    let mut noticed = watched.check();
    while noticed.is_ok() && began.elapsed() < PATIENCE {
        std::thread::yield_now();
        noticed = watched.check();
    }
    assert_eq!(why(noticed), "unplugged");
}

#[test]
fn a_camera_that_gives_no_first_frame_is_no_open_camera() {
    let (watched, _tell) = scripted("mute", Duration::from_millis(50));
    let message = why(watched.await_sign(Instant::now() + PATIENCE));
    assert!(message.contains("no frame came"), "{message}");
}

#[test]
fn a_first_frame_may_take_longer_than_the_next() {
    let (tell, told) = unbounded();
    let slow = Limits { first: PATIENCE, ..limits(Duration::from_millis(20)) };
    let opened = Watched::open("slow", slow, move || Ok((Box::new(Script(told)) as Box<dyn Grabber>, ())));
    let watched = opened.ok().unwrap().0;
    assert!(watched.next(Instant::now() + Duration::from_millis(60)).unwrap().is_none());
    tell.send(Ok(1)).unwrap();
    assert_eq!(mark(watched.next(Instant::now() + PATIENCE).unwrap()), Some(1));
    assert!(why(watched.next(Instant::now() + PATIENCE)).contains("no frame came"));
}

#[test]
fn what_came_before_a_trigger_is_let_go_but_not_a_loss() {
    let (watched, tell) = scripted("triggered", PATIENCE);
    tell.send(Err(GrabError::Bad("torn".into(), Instant::now()))).unwrap();
    watched.await_sign(Instant::now() + PATIENCE).unwrap();
    watched.forget();
    assert!(watched.next(Instant::now()).unwrap().is_none());
    tell.send(Err(GrabError::Lost("unplugged".into()))).unwrap();
    assert_eq!(why(watched.await_sign(Instant::now() + PATIENCE)), "unplugged");
}

#[test]
fn a_driver_that_hangs_holds_one_thread_however_often_it_is_tried() {
    let (let_go, held) = unbounded::<()>();
    let hang = move || {
        let _until_let_go = held.recv();
        Err(GrabError::Lost("at last".into()))
    };
    let impatient = Limits { opening: Duration::from_millis(20), ..limits(PATIENCE) };
    let message = why(Watched::open::<()>("hanging", impatient, hang));
    assert!(message.contains("did not open"), "{message}");
    let again = || why(open("hanging", PATIENCE, Script(unbounded().1)));
    assert!(again().contains("has not returned"));
    drop(let_go);
    let began = Instant::now();
    while lock(&HELD).contains("hanging") && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    assert!(!again().contains("has not returned"));
}
