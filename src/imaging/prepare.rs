//! Preparation: from what a camera delivered to the picture that the networks see.
//!
//! In: [`Pixels`]. Out: [`Prepared`], or why this picture is not to be judged. Owned by the pipeline's prepare stage; keeps
//! the resizer's memory, the mask and the last frame's fingerprint from one frame to the next.

use std::sync::Arc;

use thiserror::Error;

use super::decode::decode;
use super::error::{DecodeError, LoadError};
use super::fitness::{self, Bounds, Fingerprint, Measured, Unfit};
use super::mask::Mask;
use super::region::RegionError;
use super::resize::Resizer;
use super::sight::{Seen, Sight, SightError, View};
use crate::frame::{Picture, Pixels, Region, Size};

/// What makes one camera's frames fit for its model.
#[derive(Debug)]
pub struct Preparation {
    sight: Sight,
    bounds: Bounds,
    input: Size,
    resizer: Resizer,
    /// The mask that was seen last, and which pixels of the networks' picture it hides.
    hidden: Option<(Arc<Mask>, Vec<bool>)>,
    last: Option<Fingerprint>,
}

/// A frame, decoded and made fit.
#[derive(Debug)]
pub struct Prepared {
    /// The whole picture, upright.
    pub captured: Picture,
    /// The part of it that the model sees.
    pub viewed: Region,
    /// What of that part counts; all of it where there is none.
    pub mask: Option<Arc<Mask>>,
    /// That part, at the size that the model reads.
    pub input: Picture,
    /// What it is like.
    pub measured: Measured,
}

/// Why a frame cannot be made fit.
#[derive(Debug, Error, PartialEq)]
pub enum PrepareError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It has no such places.
    #[error(transparent)]
    Sight(#[from] SightError),
    /// It cannot be resized.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// It shows too little to be judged.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Preparation {
    /// What makes pictures fit for a model that reads `input`, seen as `view` says.
    ///
    /// # Errors
    /// [`LoadError`] if the mask picture cannot be read.
    pub fn open(view: &View, input: Size) -> Result<Self, LoadError> {
        let (sight, bounds) = (Sight::open(view)?, view.bounds);
        Ok(Self { sight, bounds, input, resizer: Resizer::new(), hidden: None, last: None })
    }

    /// Decodes `pixels`, brings them upright, cuts the region out, resizes it and looks whether it can be judged.
    ///
    /// # Errors
    /// [`PrepareError`]; the next frame may be fine.
    pub fn prepare(&mut self, pixels: &Pixels) -> Result<Prepared, PrepareError> {
        if self.bounds.frozen {
            let fingerprint = Fingerprint::of(pixels);
            if self.last.replace(fingerprint) == Some(fingerprint) {
                return Err(Unfit::Frozen.into());
            }
        }
        let prepared = self.look(pixels)?;
        self.bounds.check(prepared.measured)?;
        Ok(prepared)
    }

    /// As [`Preparation::prepare`], for a person who looks: also what is too dark, too bright or blurred.
    ///
    /// # Errors
    /// [`PrepareError`], never for being unfit.
    pub fn look(&mut self, pixels: &Pixels) -> Result<Prepared, PrepareError> {
        let Seen { picture: captured, viewed, mask } = self.sight.frame(decode(pixels)?)?;
        let input = self.resizer.resize_region(&captured, viewed, self.input)?;
        let measured = fitness::measure(&input, mask.as_ref().map(|mask| self.hidden(mask)));
        Ok(Prepared { captured, viewed, mask, input, measured })
    }

    /// Which pixels of the networks' picture the mask hides.
    fn hidden(&mut self, mask: &Arc<Mask>) -> &[bool] {
        if !self.hidden.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, mask)) {
            self.hidden = Some((mask.clone(), mask.resized(self.input)));
        }
        self.hidden.as_ref().map_or(&[], |(_, hidden)| hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PixelFormat, Samples};
    use crate::imaging::{Areas, Flip, Orientation, Rotation, crop};

    fn grey(width: u32, height: u32) -> Pixels {
        let bytes = (0..width * height).map(|i| (i % width) as u8).collect();
        let format = PixelFormat::Mono(Samples::U8);
        Pixels::Raw { size: Size::new(width, height), format, stride: width as usize, bytes }
    }

    fn preparation(view: View, input: Size) -> Preparation {
        Preparation::open(&view, input).unwrap()
    }

    const REGION: Region = Region { x: 100, y: 0, width: 50, height: 40 };

    #[test]
    fn the_model_sees_its_region_and_nothing_beside_it() {
        let view = View { region: Some(REGION), ..View::default() };
        let prepared = preparation(view, Size::new(25, 20)).prepare(&grey(200, 40)).unwrap();
        assert_eq!((prepared.viewed, prepared.captured.size()), (REGION, Size::new(200, 40)));
        // Columns 100 and 101 weigh most in the first column; 99 and 98 must weigh nothing.
        assert_eq!(prepared.input.rgb()[0], 101);
        let cut = crop(&prepared.captured, REGION).unwrap();
        assert_eq!(Resizer::new().resize(&cut, Size::new(25, 20)).unwrap(), prepared.input);
        assert!(prepared.mask.is_none());
    }

    #[test]
    fn a_picture_of_the_models_size_is_not_touched() {
        let prepared = preparation(View::default(), Size::new(30, 20)).prepare(&grey(30, 20)).unwrap();
        assert_eq!(prepared.captured, prepared.input);
    }

    #[test]
    fn a_region_that_the_camera_does_not_show_is_an_error() {
        let view = View { region: Some(REGION), ..View::default() };
        let error = preparation(view, Size::new(25, 20)).prepare(&grey(120, 40)).unwrap_err();
        assert!(error.to_string().contains("120x40"), "{error}");
    }

    #[test]
    fn region_and_mask_are_those_of_the_upright_picture() {
        let view = View {
            orientation: Orientation { rotate: Rotation::Right, flip: Flip::None },
            region: Some(Region { x: 0, y: 100, width: 40, height: 50 }),
            areas: Areas { ignore: vec![vec![[0, 100], [40, 100], [40, 120], [0, 120]]], ..Areas::default() },
            ..View::default()
        };
        let prepared = preparation(view, Size::new(40, 50)).prepare(&grey(200, 40)).unwrap();
        assert_eq!(prepared.captured.size(), Size::new(40, 200));
        // A column of the captured picture is a row of the upright one.
        assert_eq!((prepared.input.rgb()[0], prepared.input.rgb()[40 * 49 * 3]), (100, 149));
        let mask = prepared.mask.unwrap();
        assert_eq!((mask.hides(5, 19), mask.hides(5, 20)), (true, false));
        assert_eq!(prepared.measured.brightness, 134.5);
    }

    #[test]
    fn a_frozen_camera_is_noticed_and_a_moving_one_is_not() {
        let bounds = Bounds { frozen: true, ..Bounds::default() };
        let mut watching = preparation(View { bounds, ..View::default() }, Size::new(30, 20));
        assert!(watching.prepare(&grey(30, 20)).is_ok());
        assert_eq!(watching.prepare(&grey(30, 20)).unwrap_err(), PrepareError::Unfit(Unfit::Frozen));
        assert!(watching.prepare(&grey(30, 21)).is_ok());
        assert!(watching.prepare(&grey(30, 20)).is_ok());
        let mut trusting = preparation(View::default(), Size::new(30, 20));
        assert!((0..2).all(|_| trusting.prepare(&grey(30, 20)).is_ok()));
    }
}
