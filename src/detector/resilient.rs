//! An engine on a device that may die, with another beside it that takes over: no frame is lost to a card. One that merely has
//! no room, since something else fills it, is asked again after a pause.
//!
//! The spare is made ready when the device's engine is, since the frame in flight cannot wait for it. What a dead card
//! needs is a new start of the program, or of the box: the driver gives this process nothing any more. Not here: which
//! engines these are (`open_engine`).

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{AnomalyMap, Cuda, CudaError, Enlargement, Inspector, InspectorError};
use crate::frame::{Picture, Size};
use crate::telemetry::{Counter, chain};

static FALLBACKS: Counter = Counter::new();
/// How long a card without room is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// How often, since the process began, a card was there and the CPU took over from it: at start or in operation.
pub fn engine_fallbacks() -> u64 {
    FALLBACKS.get()
}

/// The engine for `device = "auto"`: what came of opening a card's, or the spare.
pub(super) fn choose(
    card: Result<Option<Cuda>, CudaError>,
    spare: impl FnOnce() -> Box<dyn Inspector>,
) -> Box<dyn Inspector> {
    match card {
        Ok(Some(engine)) => Box::new(Resilient::new(Box::new(engine), spare())),
        Ok(None) => {
            let spare = spare();
            info!(engine = spare.describe(), "no NVIDIA card: models run on the processor");
            spare
        }
        Err(error) => {
            let spare = spare();
            fell_back("an NVIDIA card cannot be used: models run on the processor", &error, spare.as_ref());
            spare
        }
    }
}

fn fell_back(what: &'static str, error: &dyn std::error::Error, spare: &dyn Inspector) {
    FALLBACKS.increment();
    warn!(error = chain(error), engine = spare.describe(), "{what}");
}

/// An engine and the one that takes over for good when its device fails.
pub struct Resilient {
    device: Option<Box<dyn Inspector>>,
    spare: Box<dyn Inspector>,
    /// When a device that had no room may be asked again.
    again_at: Option<Instant>,
    pause: Duration,
}

impl Resilient {
    /// Both have the same model loaded.
    pub fn new(device: Box<dyn Inspector>, spare: Box<dyn Inspector>) -> Self {
        info!(engine = device.describe(), "models run on the card");
        Self { device: Some(device), spare, again_at: None, pause: PAUSE }
    }

    /// The device's answer, or the spare's to the same question.
    fn ask<T>(
        &mut self,
        question: impl Fn(&mut dyn Inspector) -> Result<T, InspectorError>,
    ) -> Result<T, InspectorError> {
        let resting = self.again_at.is_some_and(|at| Instant::now() < at);
        let Some(device) = self.device.as_mut().filter(|_| !resting) else {
            return question(self.spare.as_mut());
        };
        self.again_at = None;
        match question(device.as_mut()) {
            Err(error @ InspectorError::NoRoom { .. }) => {
                fell_back(
                    "the card has no room: the processor takes over for now",
                    &error,
                    self.spare.as_ref(),
                );
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
    use super::*;

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
        let unfit = CudaError::Unfit { card: "Tesla K80".into(), why: "it is too old".into() };
        assert_eq!(choose(Err(unfit), || scripted(2.0, 1)).describe(), "scripted 2");
        assert!(engine_fallbacks() > before);
        assert_eq!(choose(Ok(None), || scripted(3.0, 1)).describe(), "scripted 3");
    }

    #[test]
    fn when_the_spare_fails_too_the_failure_is_told() {
        let mut engine = Resilient::new(scripted(1.0, 0), scripted(2.0, 0));
        assert!(matches!(engine.infer(&[&picture(INPUT)]), Err(InspectorError::Device { .. })));
    }
}
