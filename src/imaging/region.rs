//! Regions of interest: checked against the picture, and cut out.
//!
//! In: a [`Region`] and a [`Picture`]. Out: a [`Picture`], or an error that says how the two disagree. Not here: masks.

use thiserror::Error;

use crate::frame::{InvalidPicture, Picture, Region, Size};

/// Why a part of a picture cannot be had.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RegionError {
    /// It does not lie inside the picture.
    #[error(
        "the region of {}x{} at ({}, {}) does not lie inside the picture of {picture}: \
         correct the camera's `region` or its size",
        region.width, region.height, region.x, region.y
    )]
    Outside {
        /// What was asked for.
        region: Region,
        /// What there is.
        picture: Size,
    },
    /// No picture can have the size asked for.
    #[error(transparent)]
    Size(#[from] InvalidPicture),
}

/// The region that covers a whole picture of `size`.
pub fn whole(size: Size) -> Region {
    Region { x: 0, y: 0, width: size.width, height: size.height }
}

/// Whether `region` has an area and lies inside a picture of size `picture`.
///
/// # Errors
/// [`RegionError::Outside`].
pub fn check_region(region: Region, picture: Size) -> Result<(), RegionError> {
    let fits = |from: u32, length: u32, side: u32| {
        length > 0 && from.checked_add(length).is_some_and(|end| end <= side)
    };
    if fits(region.x, region.width, picture.width) && fits(region.y, region.height, picture.height) {
        Ok(())
    } else {
        Err(RegionError::Outside { region, picture })
    }
}

/// The part of `picture` inside `region`.
///
/// # Errors
/// [`RegionError::Outside`].
pub fn crop(picture: &Picture, region: Region) -> Result<Picture, RegionError> {
    check_region(region, picture.size())?;
    let stride = picture.size().width as usize * 3;
    let (left, row) = (region.x as usize * 3, region.width as usize * 3);
    let mut rgb = Vec::with_capacity(row * region.height as usize);
    for y in region.y..region.y + region.height {
        let start = y as usize * stride + left;
        rgb.extend_from_slice(&picture.rgb()[start..start + row]);
    }
    Ok(Picture::new(Size::new(region.width, region.height), rgb)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_cut_out_exactly() {
        let picture = Picture::new(Size::new(4, 3), (0..36).collect()).unwrap();
        let part = crop(&picture, Region { x: 1, y: 1, width: 2, height: 2 }).unwrap();
        assert_eq!(part.rgb(), [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
        assert_eq!(crop(&picture, whole(picture.size())).unwrap(), picture);
    }

    #[test]
    fn a_region_outside_the_picture_is_named_with_both_sizes() {
        let picture = Picture::new(Size::new(4, 3), vec![0; 36]).unwrap();
        for (x, y, width, height) in
            [(3, 0, 2, 1), (0, 3, 1, 1), (0, 0, 0, 1), (u32::MAX, 0, 2, 1), (0, 0, 5, 3)]
        {
            let error = crop(&picture, Region { x, y, width, height }).unwrap_err().to_string();
            assert!(error.contains("4x3") && error.contains("region"), "{error}");
        }
    }
}
