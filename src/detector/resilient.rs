//! An engine on a device that may die, with another beside it that takes over: no frame is lost to a card. One that merely has
//! no room, since something else fills it, is asked again after a pause, also where it had none from the start.
//!
//! The spare is made ready when the device's engine is, since the frame in flight cannot wait for it. What a dead card
//! needs is a new start of the program, or of the box: the driver gives this process nothing any more. Not here: which
//! engines these are (`open_engine`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use tracing::{info, warn};

use super::{AnomalyMap, CudaError, Enlargement, Inspector, InspectorError};
use crate::efficientad::CalibratedModel;
use crate::frame::{Picture, Size};
use crate::telemetry::{Counter, chain};

static FALLBACKS: Counter = Counter::new();
/// How long a card without room is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// How often, since the process began, a card was there and the CPU took over from it: at start or in operation.
pub fn engine_fallbacks() -> u64 {
    FALLBACKS.get()
}

/// What came of opening a card's engine; none where there is no card.
pub(super) type Opened = Result<Option<Box<dyn Inspector>>, CudaError>;

/// The engine for `device = "auto"`: what `open` makes of a card, or the spare. A card that is full is opened later.
pub(super) fn choose(
    model: &CalibratedModel,
    open: impl Fn(&CalibratedModel) -> Opened + Send + Sync + 'static,
    spare: impl FnOnce() -> Box<dyn Inspector>,
) -> Box<dyn Inspector> {
    match open(model) {
        Ok(Some(engine)) => Box::new(Resilient::new(engine, spare())),
        Ok(None) => {
            let spare = spare();
            info!(engine = spare.describe(), "no NVIDIA card: models run on the processor");
            spare
        }
        Err(error) if error.means_no_room() => {
            let spare = spare();
            fell_back(NO_ROOM, &error, spare.as_ref());
            let model = model.clone();
            Box::new(Resilient::waiting(move || open(&model), spare, PAUSE))
        }
        Err(error) => {
            let spare = spare();
            fell_back("an NVIDIA card cannot be used: models run on the processor", &error, spare.as_ref());
            spare
        }
    }
}

const NO_ROOM: &str = "the card has no room: the processor takes over for now";

fn fell_back(what: &'static str, error: &dyn std::error::Error, spare: &dyn Inspector) {
    FALLBACKS.increment();
    warn!(error = chain(error), engine = spare.describe(), "{what}");
}

/// An engine and the one that takes over for good when its device fails.
pub struct Resilient {
    device: Option<Box<dyn Inspector>>,
    /// Set where the device was full at the start, until it takes the model.
    opening: Option<Opening>,
    spare: Box<dyn Inspector>,
    /// When a device that had no room may be asked again.
    again_at: Option<Instant>,
    pause: Duration,
}

/// A device that is opened beside the line, since that takes a moment.
struct Opening {
    open: Arc<dyn Fn() -> Opened + Send + Sync>,
    under_way: Option<Receiver<Opened>>,
}

impl Opening {
    /// What came of it, where something did; begins it where nothing is under way.
    fn poll(&mut self) -> Option<Result<Box<dyn Inspector>, InspectorError>> {
        let lost = |message: &str| Err(InspectorError::Device { engine: "CUDA", message: message.into() });
        let Some(under_way) = &self.under_way else {
            let (open, (sender, receiver)) = (self.open.clone(), bounded(1));
            let thread = std::thread::Builder::new().name("open card".into());
            // Without a thread there is no answer, which is seen at the next frame.
            let _begun = thread.spawn(move || sender.send(open()));
            self.under_way = Some(receiver);
            return None;
        };
        let opened = match under_way.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => lost("opening it ended without an answer"),
            Ok(Ok(Some(engine))) => Ok(engine),
            Ok(Ok(None)) => lost("there is no card any more"),
            Ok(Err(error)) => Err(error.into()),
        };
        self.under_way = None;
        Some(opened)
    }
}

impl Resilient {
    /// Both have the same model loaded.
    pub fn new(device: Box<dyn Inspector>, spare: Box<dyn Inspector>) -> Self {
        info!(engine = device.describe(), "models run on the card");
        Self { device: Some(device), opening: None, spare, again_at: None, pause: PAUSE }
    }

    fn waiting(
        open: impl Fn() -> Opened + Send + Sync + 'static,
        spare: Box<dyn Inspector>,
        pause: Duration,
    ) -> Self {
        let opening = Opening { open: Arc::new(open), under_way: None };
        let again_at = Some(Instant::now() + pause);
        Self { device: None, opening: Some(opening), spare, again_at, pause }
    }

    /// Takes a device that was full up where it has room now.
    fn look_for_room(&mut self) {
        match self.opening.as_mut().and_then(Opening::poll) {
            None => {}
            Some(Ok(engine)) => {
                info!(engine = engine.describe(), "models run on the card");
                (self.device, self.opening) = (Some(engine), None);
            }
            Some(Err(InspectorError::NoRoom { .. })) => self.again_at = Some(Instant::now() + self.pause),
            Some(Err(error)) => {
                fell_back("the card failed: models run on the processor", &error, self.spare.as_ref());
                self.opening = None;
            }
        }
    }

    /// The device's answer, or the spare's to the same question.
    fn ask<T>(
        &mut self,
        question: impl Fn(&mut dyn Inspector) -> Result<T, InspectorError>,
    ) -> Result<T, InspectorError> {
        let resting = self.again_at.is_some_and(|at| Instant::now() < at);
        if !resting {
            self.look_for_room();
        }
        let Some(device) = self.device.as_mut().filter(|_| !resting) else {
            return question(self.spare.as_mut());
        };
        self.again_at = None;
        match question(device.as_mut()) {
            Err(error @ InspectorError::NoRoom { .. }) => {
                fell_back(NO_ROOM, &error, self.spare.as_ref());
                self.again_at = Some(Instant::now() + self.pause);
                question(self.spare.as_mut())
            }
            Err(error @ InspectorError::Device { .. }) => {
                fell_back("the card failed: models run on the processor", &error, self.spare.as_ref());
                self.device = None;
                question(self.spare.as_mut())
            }
            answer => answer,
        }
    }
}

impl Inspector for Resilient {
    fn describe(&self) -> String {
        self.device.as_ref().unwrap_or(&self.spare).describe()
    }

    fn input(&self) -> Size {
        self.spare.input()
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        self.ask(|engine| engine.infer(pictures))
    }

    fn infer_enlarged(
        &mut self,
        pictures: &[&Picture],
        size: Size,
    ) -> Result<Vec<Enlargement>, InspectorError> {
        self.ask(|engine| engine.infer_enlarged(pictures, size))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};

    const INPUT: Size = Size::new(256, 256);

    /// Answers with maps of `value` so many times, and then fails as a card does.
    struct Scripted {
        value: f32,
        left: usize,
    }

    impl Inspector for Scripted {
        fn describe(&self) -> String {
            format!("scripted {}", self.value)
        }

        fn input(&self) -> Size {
            INPUT
        }

        fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
            super::super::check_inputs(INPUT, pictures)?;
            let Some(left) = self.left.checked_sub(1) else {
                return Err(InspectorError::Device {
                    engine: "scripted",
                    message: "fell off the bus".into(),
                });
            };
            self.left = left;
            Ok(vec![AnomalyMap { size: Size::new(1, 1), values: vec![self.value] }; pictures.len()])
        }
    }

    fn scripted(value: f32, left: usize) -> Box<dyn Inspector> {
        Box::new(Scripted { value, left })
    }

    fn picture(size: Size) -> Picture {
        Picture::new(size, vec![0; size.pixels() as usize * 3]).unwrap()
    }

    #[test]
    fn the_frame_in_flight_is_inferred_again_when_the_card_dies() {
        let mut engine = Resilient::new(scripted(1.0, 2), scripted(2.0, 100));
        let picture = picture(INPUT);
        let before = engine_fallbacks();
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(engine.infer(&[&picture, &picture]).unwrap()[1].values[0]);
        }
        assert_eq!(answers, [1.0, 1.0, 2.0, 2.0]);
        assert!(engine_fallbacks() > before);
        assert_eq!(engine.describe(), "scripted 2");
        assert_eq!(engine.infer_enlarged(&[&picture], Size::new(3, 3)).unwrap()[0].map.values.len(), 9);
    }

    /// Has no room the first time, and then answers with 1.
    struct Crowded(bool);

    impl Inspector for Crowded {
        fn describe(&self) -> String {
            "crowded".into()
        }

        fn input(&self) -> Size {
            INPUT
        }

        fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
            if std::mem::take(&mut self.0) {
                return Err(InspectorError::NoRoom { engine: "crowded", message: "out of memory".into() });
            }
            Ok(vec![AnomalyMap { size: Size::new(1, 1), values: vec![1.0] }; pictures.len()])
        }
    }

    #[test]
    fn a_card_that_has_no_room_for_a_while_is_asked_again() {
        let picture = picture(INPUT);
        let answers = |pause| {
            let mut engine = Resilient { pause, ..Resilient::new(Box::new(Crowded(true)), scripted(2.0, 9)) };
            [(); 3].map(|()| engine.infer(&[&picture]).unwrap()[0].values[0])
        };
        let before = engine_fallbacks();
        assert_eq!(answers(Duration::ZERO), [2.0, 1.0, 1.0]);
        assert_eq!(answers(Duration::from_secs(3600)), [2.0, 2.0, 2.0]);
        assert!(engine_fallbacks() >= before + 2);
    }

    #[test]
    fn a_wrong_picture_is_no_reason_to_leave_the_card() {
        let mut engine = Resilient::new(scripted(1.0, 5), scripted(2.0, 5));
        let (wrong, right) = (picture(Size::new(8, 8)), picture(INPUT));
        assert!(matches!(engine.infer(&[&wrong]), Err(InspectorError::Input { .. })));
        assert_eq!(engine.infer(&[&right]).unwrap()[0].values, [1.0]);
    }

    #[test]
    fn a_card_that_cannot_be_used_is_counted_and_a_box_without_one_is_not() {
        let before = engine_fallbacks();
        let unfit = |_: &CalibratedModel| {
            Err(CudaError::Unfit { card: "Tesla K80".into(), why: "it is too old".into() })
        };
        assert_eq!(choose(&model(), unfit, || scripted(2.0, 1)).describe(), "scripted 2");
        assert!(engine_fallbacks() > before);
        assert_eq!(choose(&model(), |_| Ok(None), || scripted(3.0, 1)).describe(), "scripted 3");
    }

    fn model() -> CalibratedModel {
        untrained::model(&Architecture::new(PdnSize::Tiny, INPUT).unwrap(), 1)
    }

    fn full() -> CudaError {
        CudaError::Call { call: "cuMemAlloc_v2", code: 2, text: "out of memory".into() }
    }

    /// Asks for maps until one is `wanted`; tells how many were not.
    fn asked_until(engine: &mut dyn Inspector, wanted: f32) -> usize {
        let began = Instant::now();
        let mut others = 0;
        while engine.infer(&[&picture(INPUT)]).unwrap()[0].values[0] != wanted {
            others += 1;
            assert!(began.elapsed() < Duration::from_secs(20), "no map of {wanted}");
            std::thread::yield_now();
        }
        others
    }

    #[test]
    fn a_card_that_is_full_at_the_start_is_taken_up_when_it_has_room() {
        let before = engine_fallbacks();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        // Full at the start and at the first two times after.
        let open = move |_: &CalibratedModel| match count.fetch_add(1, Ordering::SeqCst) {
            0..3 => Err(full()),
            _ => Ok(Some(scripted(1.0, usize::MAX))),
        };
        let model = model();
        let engine = choose(&model, open.clone(), || scripted(2.0, usize::MAX));
        assert_eq!((engine.describe().as_str(), asked.load(Ordering::SeqCst)), ("scripted 2", 1));
        assert!(engine_fallbacks() > before);
        let spare = scripted(2.0, usize::MAX);
        let mut engine = Resilient::waiting(move || open(&model), spare, Duration::ZERO);
        assert!(asked_until(&mut engine, 1.0) > 0, "a frame waited for the card");
        assert_eq!((engine.describe().as_str(), asked.load(Ordering::SeqCst)), ("scripted 1", 4));
        assert!(engine.opening.is_none());
    }

    #[test]
    fn a_card_that_is_full_is_left_alone_between_two_times() {
        let open = || -> Opened { panic!("it was asked at once") };
        let mut engine = Resilient::waiting(open, scripted(2.0, 9), Duration::from_secs(3600));
        assert_eq!(engine.infer(&[&picture(INPUT)]).unwrap()[0].values, [2.0]);
        assert!(engine.opening.as_ref().unwrap().under_way.is_none());
    }

    #[test]
    fn a_full_card_that_fails_otherwise_is_given_up() {
        let open = || -> Opened { Ok(None) };
        let mut engine = Resilient::waiting(open, scripted(2.0, usize::MAX), Duration::ZERO);
        let began = Instant::now();
        while engine.opening.is_some() {
            assert_eq!(engine.infer(&[&picture(INPUT)]).unwrap()[0].values, [2.0]);
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn when_the_spare_fails_too_the_failure_is_told() {
        let mut engine = Resilient::new(scripted(1.0, 0), scripted(2.0, 0));
        assert!(matches!(engine.infer(&[&picture(INPUT)]), Err(InspectorError::Device { .. })));
    }
}
