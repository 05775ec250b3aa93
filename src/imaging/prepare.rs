//! Preparation: from what a camera delivered to the picture that the networks see.
//!
//! In: [`Pixels`]. Out: [`Prepared`]. Called by the pipeline's prepare stage, which lends its [`Resizer`].

use thiserror::Error;

use super::decode::{DecodeError, decode};
use super::region::{RegionError, whole};
use super::resize::Resizer;
use crate::frame::{Picture, Pixels, Region, Size};

/// How one camera's frames are made fit for its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preparation {
    /// The part that is inspected; the whole picture where there is none.
    pub region: Option<Region>,
    /// The size that the model reads.
    pub input: Size,
}

/// A frame, decoded and made fit.
#[derive(Debug)]
pub struct Prepared {
    /// The whole picture, as captured.
    pub captured: Picture,
    /// The part of it that the model sees.
    pub viewed: Region,
    /// That part, at the size that the model reads.
    pub input: Picture,
}

/// Why a frame cannot be made fit.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PrepareError {
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It has no such region.
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl Preparation {
    /// Decodes `pixels`, cuts the region out and resizes it.
    ///
    /// # Errors
    /// [`PrepareError`]; the next frame may be fine.
    pub fn prepare(&self, pixels: &Pixels, resizer: &mut Resizer) -> Result<Prepared, PrepareError> {
        let captured = decode(pixels)?;
        let viewed = self.region.unwrap_or_else(|| whole(captured.size()));
        let input = resizer.resize_region(&captured, viewed, self.input)?;
        Ok(Prepared { captured, viewed, input })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;

    fn grey(width: u32, height: u32) -> Pixels {
        let bytes = (0..width * height).map(|i| (i % width) as u8).collect();
        Pixels::Raw {
            size: Size::new(width, height),
            format: PixelFormat::Mono8,
            stride: width as usize,
            bytes,
        }
    }

    #[test]
    fn the_model_sees_its_region_and_nothing_beside_it() {
        let region = Region { x: 100, y: 0, width: 50, height: 40 };
        let preparation = Preparation { region: Some(region), input: Size::new(25, 20) };
        let prepared = preparation.prepare(&grey(200, 40), &mut Resizer::new()).unwrap();
        assert_eq!((prepared.viewed, prepared.captured.size()), (region, Size::new(200, 40)));
        // Columns 100 and 101 weigh most in the first column; 99 and 98 must weigh nothing.
        assert_eq!(prepared.input.rgb()[0], 101);
        let cut = super::super::region::crop(&prepared.captured, region).unwrap();
        assert_eq!(Resizer::new().resize(&cut, Size::new(25, 20)).unwrap(), prepared.input);
    }

    #[test]
    fn a_picture_of_the_models_size_is_not_touched() {
        let preparation = Preparation { region: None, input: Size::new(30, 20) };
        let prepared = preparation.prepare(&grey(30, 20), &mut Resizer::new()).unwrap();
        assert_eq!(prepared.captured, prepared.input);
    }

    #[test]
    fn a_region_that_the_camera_does_not_show_is_an_error() {
        let region = Region { x: 100, y: 0, width: 50, height: 40 };
        let preparation = Preparation { region: Some(region), input: Size::new(25, 20) };
        let error = preparation.prepare(&grey(120, 40), &mut Resizer::new()).unwrap_err();
        assert!(error.to_string().contains("120x40"), "{error}");
    }
}
