//! Sight: pictures as one camera's line looks at them – upright, the inspected part, and what its mask hides.
//!
//! In: decoded pictures, or files as the camera delivered them or cut out already. Out: [`Seen`]. The line itself, training,
//! calibration, evaluation and retraining all look through here, hence alike. Not here: whether a picture is fit to be judged
//! (`fitness`), sizes that networks read (`resize`).

use std::path::Path;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tracing::warn;

use super::decode::load;
use super::error::LoadError;
use super::fitness::Bounds;
use super::mask::{Areas, LoadedAreas, Mask, MaskError};
use super::orient::Orientation;
use super::region::{RegionError, check_region, whole};
use crate::frame::{Picture, Region, Size};

/// How one camera's pictures are looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// How they are brought upright; what follows is in pixels of the upright picture.
    pub orientation: Orientation,
    /// The part that is inspected; the whole picture where there is none.
    pub region: Option<Region>,
    /// What of that part counts.
    pub areas: Areas,
    /// What they must keep within.
    pub bounds: Bounds,
}

impl View {
    /// Whether a picture of this size is the region, cut out already.
    pub fn is_cut(&self, size: Size) -> bool {
        self.region.is_some_and(|region| size == Size::new(region.width, region.height))
    }

    /// Whether a picture of this size, which counts as cut out, may as well be a whole one that is not upright yet.
    pub fn is_ambiguous(&self, size: Size) -> bool {
        let whole = self.region == Some(whole(self.orientation.upright(size)));
        whole && self.is_cut(size) && self.orientation != Orientation::default()
    }

    /// Says, once, how such a picture was read.
    pub fn say_if_ambiguous(&self, size: Size, said: &OnceLock<()>) {
        if self.is_ambiguous(size) {
            said.get_or_init(|| {
                warn!(
                    %size,
                    "pictures of the region's size count as upright and cut out already; where they are the camera's whole \
                     pictures, leave `region` out"
                );
            });
        }
    }
}

/// A picture as its line sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The upright picture, or what was cut out of it before.
    pub picture: Picture,
    /// The part that is inspected.
    pub viewed: Region,
    /// What of that part counts; all of it where there is none.
    pub mask: Option<Arc<Mask>>,
}

/// Why a picture cannot be seen as its line would see it.
#[derive(Debug, Error, PartialEq)]
pub enum SightError {
    /// It has no such region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// It has no such mask.
    #[error(transparent)]
    Mask(#[from] MaskError),
}

/// How one camera's pictures are looked at, ready to look; the default sees every picture whole and as it is.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    view: View,
    areas: LoadedAreas,
    /// Set where pictures are upright and cut out already: which part of the camera's picture they are.
    finished: Option<Option<Region>>,
    /// Made once, and again only when the size of the pictures changes.
    mask: Option<(Size, Region, Arc<Mask>)>,
    /// Whether it was said how an ambiguous picture is read.
    said: OnceLock<()>,
}

impl Sight {
    /// Looks as `view` says.
    ///
    /// # Errors
    /// [`LoadError`] if the mask picture cannot be read.
    pub fn open(view: &View) -> Result<Self, LoadError> {
        let areas = LoadedAreas::load(&view.areas)?;
        Ok(Self { view: view.clone(), areas, ..Self::default() })
    }

    /// The same for pictures that were made upright and cut out before, at whatever size: of what `view` says only the mask is
    /// left to apply. Where the view has no region, `frame` is the size of the camera's upright pictures; without it, and
    /// without a mask picture that tells it, nothing is hidden.
    ///
    /// # Errors
    /// As [`Sight::open`].
    pub fn of_finished(view: &View, frame: Option<Size>) -> Result<Self, LoadError> {
        let mut sight = Self::open(view)?;
        let frame = sight.areas.drawn_for().or(frame);
        sight.finished = Some(view.region.or(frame.map(whole)));
        Ok(sight)
    }

    /// A frame, as the camera delivers it.
    ///
    /// # Errors
    /// [`SightError`] where it has no such places.
    pub fn frame(&mut self, picture: Picture) -> Result<Seen, SightError> {
        let picture = self.view.orientation.apply(picture);
        let viewed = self.view.region.unwrap_or_else(|| whole(picture.size()));
        check_region(viewed, picture.size())?;
        let mask = self.mask(picture.size(), viewed)?;
        Ok(Seen { picture, viewed, mask })
    }

    /// A picture from elsewhere: one that has the region's size was cut out before.
    ///
    /// # Errors
    /// As [`Sight::frame`].
    pub fn picture(&mut self, picture: Picture) -> Result<Seen, SightError> {
        if self.finished.is_none() {
            self.view.say_if_ambiguous(picture.size(), &self.said);
        }
        let cut = self.view.region.filter(|_| self.view.is_cut(picture.size()));
        let Some(part) = self.finished.or(cut.map(Some)) else { return self.frame(picture) };
        let mask = match part {
            Some(part) => {
                let of = self.areas.drawn_for().unwrap_or(Size::new(u32::MAX, u32::MAX));
                check_region(part, of)?;
                self.mask(of, part)?
            }
            None => None,
        };
        Ok(Seen { viewed: whole(picture.size()), picture, mask })
    }

    /// The mask of finished pictures, whatever their size.
    pub fn finished_mask(&mut self) -> Option<Arc<Mask>> {
        let part = self.finished??;
        let of = self.areas.drawn_for().unwrap_or(Size::new(u32::MAX, u32::MAX));
        check_region(part, of).ok()?;
        self.mask(of, part).ok()?
    }

    /// The picture in a file.
    ///
    /// # Errors
    /// [`LoadError`] outside where it cannot be read, [`SightError`] inside where it has no such places.
    pub fn load(&mut self, path: &Path) -> Result<Result<Seen, SightError>, LoadError> {
        Ok(self.picture(load(path)?))
    }

    /// The view in words, or none where pictures are seen whole or as they are. Views of equal words are alike.
    pub fn words(&self) -> Option<String> {
        if self.finished.is_some() {
            return None;
        }
        let View { orientation, region, areas, .. } = &self.view;
        let mut words = Vec::new();
        if *orientation != Orientation::default() {
            let flip = format!("{:?}", orientation.flip).to_lowercase();
            words.push(format!("rotate {}, flip {flip}", u16::from(orientation.rotate)));
        }
        if let Some(Region { x, y, width, height }) = region {
            words.push(format!("region {width}x{height} at ({x}, {y})"));
        }
        if *areas != Areas::default() {
            words.push(format!("mask {:08x}", self.areas.checksum()));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    fn mask(&mut self, picture: Size, viewed: Region) -> Result<Option<Arc<Mask>>, MaskError> {
        if self.areas.hide_nothing() {
            return Ok(None);
        }
        if let Some((size, region, mask)) = &self.mask
            && (*size, *region) == (picture, viewed)
        {
            return Ok(Some(mask.clone()));
        }
        let mask = Arc::new(self.areas.mask(picture, viewed)?);
        self.mask = Some((picture, viewed, mask.clone()));
        Ok(Some(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{Flip, Rotation, crop, png};

    const REGION: Region = Region { x: 4, y: 2, width: 6, height: 8 };

    fn picture(size: Size) -> Picture {
        Picture::new(size, (0..size.pixels() * 3).map(|i| (i * 7 % 251) as u8).collect()).unwrap()
    }

    fn view() -> View {
        View {
            orientation: Orientation { rotate: Rotation::Right, flip: Flip::None },
            region: Some(REGION),
            areas: Areas { ignore: vec![vec![[4, 2], [10, 2], [10, 5], [4, 5]]], ..Areas::default() },
            ..View::default()
        }
    }

    #[test]
    fn what_was_cut_out_before_is_seen_as_what_is_cut_out_now() {
        let mut sight = Sight::open(&view()).unwrap();
        let frame = picture(Size::new(12, 14));
        let upright = view().orientation.apply(frame.clone());
        let cut = crop(&upright, REGION).unwrap();
        let (now, before) = (sight.picture(frame.clone()).unwrap(), sight.picture(cut.clone()).unwrap());
        assert_eq!((now.viewed, now.picture), (REGION, upright));
        assert_eq!((before.viewed, &before.picture), (whole(cut.size()), &cut));
        for (y, hidden) in [(0, true), (2, true), (3, false), (7, false)] {
            for seen in [&now.mask, &before.mask] {
                assert_eq!(seen.as_ref().unwrap().hides(1, y), hidden, "{y}");
            }
        }
        // A camera's frame is never cut out already.
        let error = sight.frame(cut).unwrap_err();
        assert!(matches!(error, SightError::Region(_)), "{error}");
    }

    #[test]
    fn a_region_that_is_the_whole_of_a_turned_picture_is_said_to_be_read_as_cut_out() {
        let sees = |orientation, region: Region, size| {
            let view = View { orientation, region: Some(region), ..View::default() };
            let mut sight = Sight::open(&view).unwrap();
            let seen = sight.picture(picture(size)).unwrap();
            (sight.said.get().is_some(), seen.picture == picture(size))
        };
        let turned = Orientation { rotate: Rotation::Half, flip: Flip::None };
        let corner = Region { x: 0, y: 0, ..REGION };
        let size = Size::new(REGION.width, REGION.height);
        assert_eq!(sees(turned, corner, size), (true, true));
        assert_eq!(
            sees(turned, REGION, size),
            (false, true),
            "no whole picture is as small as a region inside"
        );
        assert_eq!(sees(turned, corner, Size::new(12, 14)), (false, false));
        assert_eq!(sees(Orientation::default(), corner, size), (false, true));
        // A quarter turn has exchanged the sides of a whole picture.
        let quarter = Orientation { rotate: Rotation::Right, flip: Flip::None };
        assert_eq!(sees(quarter, corner, size), (false, true));
    }

    #[test]
    fn finished_pictures_keep_their_places_and_get_their_mask_at_any_size() {
        let mut sight = Sight::of_finished(&view(), None).unwrap();
        for size in [Size::new(6, 8), Size::new(30, 40)] {
            let seen = sight.picture(picture(size)).unwrap();
            assert_eq!((seen.viewed, &seen.picture), (whole(size), &picture(size)));
            assert_eq!(seen.mask.unwrap().size(), Size::new(6, 8));
        }
        let whole_view = View { region: None, ..view() };
        let mask = |frame| {
            let mut sight = Sight::of_finished(&whole_view, frame).unwrap();
            sight.picture(picture(Size::new(30, 40))).unwrap().mask
        };
        assert_eq!(mask(Some(Size::new(14, 12))).unwrap().size(), Size::new(14, 12));
        assert!(mask(None).is_none());
    }

    #[test]
    fn words_tell_views_apart_and_are_absent_where_nothing_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = folder.path().join("mask.png");
        let masked = || View {
            areas: Areas { ignore_mask: Some(drawn.clone()), ..Areas::default() },
            ..View::default()
        };
        let words = |view: &View| Sight::open(view).unwrap().words();
        let mut known = vec![words(&View::default()), words(&view())];
        for shade in [0, 255] {
            let rgb = (0..12).map(|i| if i == 0 { 255 } else { shade }).collect();
            std::fs::write(&drawn, png(&Picture::new(Size::new(2, 2), rgb).unwrap())).unwrap();
            known.push(words(&masked()));
        }
        assert_eq!(known[0], None);
        assert!(
            known[1].as_ref().unwrap().starts_with("rotate 90, flip none, region 6x8 at (4, 2), mask "),
            "{known:?}"
        );
        for (i, one) in known.iter().enumerate() {
            assert!(known[i + 1..].iter().all(|other| other != one), "{known:?}");
        }
    }
}
