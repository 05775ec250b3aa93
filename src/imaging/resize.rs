//! Resizing as Pillow's `BILINEAR` does it: a triangle filter that widens with the reduction, so that fine texture is
//! averaged instead of aliased. Training, calibration and inspection all resize here, hence alike.
//!
//! In: a [`Picture`] and a region of it. Out: a [`Picture`]. Owned by whichever thread calls; keeps its work memory.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};

use super::region::{RegionError, check_region, whole};
use crate::frame::{InvalidPicture, Picture, Region, Size, check_picture_size};

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
        self.scale(picture, whole(picture.size()), size)
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
        Ok(self.scale(picture, region, size)?)
    }

    /// `region` must lie inside the picture.
    fn scale(&mut self, picture: &Picture, region: Region, size: Size) -> Result<Picture, InvalidPicture> {
        check_picture_size(size)?;
        let Size { width, height } = picture.size();
        let captured = TypedImageRef::<U8x3>::from_buffer(width, height, picture.rgb())
            .expect("a picture has three bytes a pixel: this is a bug");
        // A crop box would let the filter reach beyond the region's edge; a cropped view does not.
        let viewed = TypedCroppedImage::new(captured, region.x, region.y, region.width, region.height)
            .expect("the region was checked: this is a bug");
        let mut rgb = vec![0; size.pixels() as usize * 3];
        let mut resized = TypedImage::<U8x3>::from_buffer(size.width, size.height, &mut rgb)
            .expect("the buffer was made for it: this is a bug");
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        self.inner.resize_typed(&viewed, &mut resized, &options).expect("both have an area: this is a bug");
        Picture::new(size, rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::tests::golden;

    // From `tests/goldens/pictures.py`, which resizes with Pillow. Pillow and this filter round their weights to
    // different fixed-point precisions, hence one grey level.
    #[test]
    fn resizing_is_pillows_to_one_grey_level() {
        let source = golden("resize_source.png");
        let mut resizer = Resizer::new();
        for (width, height) in [(64, 64), (96, 40), (150, 128)] {
            let expected = golden(&format!("resize_{width}x{height}.png"));
            let resized = resizer.resize(&source, Size::new(width, height)).unwrap();
            let differences = resized.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b));
            assert!(differences.max() <= Some(1), "{width}x{height}");
        }
    }

    #[test]
    fn an_impossible_size_is_refused() {
        let picture = Picture::new(Size::new(2, 2), vec![0; 12]).unwrap();
        assert!(Resizer::new().resize(&picture, Size::new(0, 5)).is_err());
        assert!(Resizer::new().resize(&picture, Size::new(30_000, 30_000)).is_err());
    }
}
