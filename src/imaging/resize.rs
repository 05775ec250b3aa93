//! Resizing as Pillow's `BILINEAR` does it: a triangle filter that widens with the reduction, so that fine texture is
//! averaged instead of aliased. Training, calibration and inspection all resize here, hence alike.
//!
//! In: a [`Picture`] and a region of it. Out: a [`Picture`]. Owned by whichever thread calls; keeps its work memory.

use super::region::{RegionError, check_region, whole};
use crate::frame::{InvalidPicture, Picture, Region, Size, check_picture_size};
use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};

/// Resizes pictures, keeping its work memory from one to the next.
#[derive(Debug, Clone, Default)]
pub struct Resizer {
    inner: fast_image_resize::Resizer,
}

impl Resizer {
    /// A resizer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The whole of `picture` at `size`.
    ///
    /// # Errors
    /// [`InvalidPicture`] where no picture can have that size.
    pub fn resize(&mut self, picture: &Picture, size: Size) -> Result<Picture, InvalidPicture> {
        match self.resize_region(picture, whole(picture.size()), size) {
            Ok(resized) => Ok(resized),
            Err(RegionError::Size(e)) => Err(e),
            Err(RegionError::Outside { .. }) => unreachable!("a picture lies inside itself"),
        }
    }

    /// The part of `picture` inside `region`, at `size`; exactly as if it had been cut out first.
    ///
    /// # Errors
    /// [`RegionError`] where the region or the size is impossible.
    pub fn resize_region(
        &mut self,
        picture: &Picture,
        region: Region,
        size: Size,
    ) -> Result<Picture, RegionError> {
        check_region(region, picture.size())?;
        check_picture_size(size)?;
        let Region { x, y, width, height } = region;
        let whole =
            ImageRef::new(picture.size().width, picture.size().height, picture.rgb(), PixelType::U8x3)
                .expect("a picture has three bytes a pixel: this is a bug");
        let part =
            CroppedImage::new(&whole, x, y, width, height).expect("the region was checked: this is a bug");
        let mut resized = Image::new(size.width, size.height, PixelType::U8x3);
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        self.inner
            .resize(&part, &mut resized, &options)
            .expect("both have three bytes a pixel and an area: this is a bug");
        Ok(Picture::new(size, resized.into_vec())?)
    }
}
