//! What a V4L2 camera can deliver, and which of it to ask for.
//!
//! In: the modes that a camera lists and the wishes of the settings. Out: one mode, or what there is instead. Pure; not
//! here: asking the camera (`device`).

use crate::camera::{Mode, V4l2Format, V4l2Options};
use crate::frame::{Size, check_picture_size};

/// Rates are compared with this much tolerance, so that 30 means 29.97 where that is what a camera has.
const RATE_TOLERANCE: f64 = 0.005;

/// The mode of `modes` that suits `wishes` best.
///
/// # Errors
/// Which wish cannot be had, and what can.
pub(super) fn choose(modes: &[Mode], wishes: &V4l2Options) -> Result<Mode, String> {
    let usable: Vec<_> = modes.iter().filter(|m| check_picture_size(m.size).is_ok()).copied().collect();
    if usable.is_empty() {
        return Err(
            "offers no mode that can be read: grey, Bayer, RGB, YUYV, UYVY, NV12 or MJPEG is needed".into()
        );
    }
    let formatted = narrow(&usable, |m| wishes.format == V4l2Format::Auto || m.format == wishes.format)
        .ok_or_else(|| {
            let offered = listed(usable.iter().map(|m| format!("{:?}", m.format).to_lowercase()));
            format!("does not offer `format`, only {offered}")
        })?;
    let wanted = (wishes.rate > 0.0).then_some(wishes.rate);
    // Where none is fast enough the refusal is about the largest.
    let candidates = narrow(&formatted, |m| wanted.is_none_or(|rate| reaches(m, rate)));
    let largest = candidates.as_ref().unwrap_or(&formatted).iter().map(|m| m.size).max_by_key(|s| s.pixels());
    let size = wishes.size.or(largest).unwrap_or(Size::new(0, 0));
    let sized = narrow(&formatted, |m| m.size == size).ok_or_else(|| {
        format!("does not offer `size`, only {}", listed(formatted.iter().map(|m| m.size.to_string())))
    })?;
    let fastest = sized.iter().map(Mode::rate).fold(0.0, f64::max);
    let fast_enough = narrow(&sized, |m| reaches(m, wanted.unwrap_or(fastest))).ok_or_else(|| {
        let remedy = if candidates.is_some() { "lower `rate`, or leave out `size`" } else { "lower `rate`" };
        format!("reaches {fastest:.2} frames a second at {size}: {remedy}")
    })?;
    let best = fast_enough
        .into_iter()
        .min_by(|a, b| a.format.cmp(&b.format).then_with(|| a.rate().total_cmp(&b.rate())));
    best.ok_or_else(|| "offers no mode".into())
}

fn reaches(mode: &Mode, rate: f64) -> bool {
    mode.interval == Mode::UNKNOWN_RATE || mode.rate() >= rate * (1.0 - RATE_TOLERANCE)
}

fn narrow(modes: &[Mode], keep: impl Fn(&Mode) -> bool) -> Option<Vec<Mode>> {
    let kept: Vec<_> = modes.iter().filter(|m| keep(m)).copied().collect();
    (!kept.is_empty()).then_some(kept)
}

/// Each once, in the order of their first appearance.
fn listed(items: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    distinct.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Size = Size::new(1280, 720);
    const FULL: Size = Size::new(1920, 1080);

    fn mode(format: V4l2Format, size: Size, interval: (u32, u32)) -> Mode {
        Mode { format, size, interval }
    }

    /// A usual webcam: full size is fast only when compressed.
    fn webcam() -> Vec<Mode> {
        vec![
            mode(V4l2Format::Yuyv, HD, (1, 10)),
            mode(V4l2Format::Yuyv, FULL, (1, 5)),
            mode(V4l2Format::Mjpeg, HD, (1, 30)),
            mode(V4l2Format::Mjpeg, HD, (1, 60)),
            mode(V4l2Format::Mjpeg, FULL, (1001, 30_000)),
        ]
    }

    #[test]
    fn without_wishes_the_largest_and_fastest_is_taken() {
        let chosen = choose(&webcam(), &V4l2Options::default()).unwrap();
        assert_eq!(chosen, mode(V4l2Format::Mjpeg, FULL, (1001, 30_000)));
    }

    #[test]
    fn uncompressed_is_preferred_where_it_is_fast_enough() {
        let wishes = V4l2Options { size: Some(HD), rate: 8.0, ..V4l2Options::default() };
        assert_eq!(choose(&webcam(), &wishes).unwrap(), mode(V4l2Format::Yuyv, HD, (1, 10)));
        let wishes = V4l2Options { rate: 20.0, ..wishes };
        assert_eq!(choose(&webcam(), &wishes).unwrap(), mode(V4l2Format::Mjpeg, HD, (1, 30)));
    }

    #[test]
    fn without_a_size_the_largest_that_is_fast_enough_is_taken() {
        let wishes = V4l2Options { rate: 60.0, ..V4l2Options::default() };
        assert_eq!(choose(&webcam(), &wishes).unwrap(), mode(V4l2Format::Mjpeg, HD, (1, 60)));
        let wishes = V4l2Options { rate: 8.0, format: V4l2Format::Yuyv, ..V4l2Options::default() };
        assert_eq!(choose(&webcam(), &wishes).unwrap(), mode(V4l2Format::Yuyv, HD, (1, 10)));
    }

    #[test]
    fn thirty_means_what_television_calls_thirty() {
        let wishes = V4l2Options { size: Some(FULL), rate: 30.0, ..V4l2Options::default() };
        assert_eq!(choose(&webcam(), &wishes).unwrap().interval, (1001, 30_000));
    }

    #[test]
    fn a_wish_that_cannot_be_had_is_answered_with_what_can() {
        let refusal = |wishes: V4l2Options| choose(&webcam(), &wishes).unwrap_err();
        let format = refusal(V4l2Options { format: V4l2Format::Grey, ..V4l2Options::default() });
        assert!(format.contains("yuyv, mjpeg"), "{format}");
        let size = refusal(V4l2Options { size: Some(Size::new(640, 480)), ..V4l2Options::default() });
        assert!(size.contains("1280x720, 1920x1080"), "{size}");
        let rate = refusal(V4l2Options { rate: 100.0, size: Some(HD), ..V4l2Options::default() });
        assert!(rate.contains("60.00") && rate.ends_with("lower `rate`"), "{rate}");
        let size = refusal(V4l2Options { rate: 60.0, size: Some(FULL), ..V4l2Options::default() });
        assert!(size.contains("29.97") && size.contains("leave out `size`"), "{size}");
        let rate = refusal(V4l2Options { rate: 100.0, ..V4l2Options::default() });
        assert!(rate.contains("1920x1080: lower `rate`"), "{rate}");
        assert!(choose(&[], &V4l2Options::default()).is_err());
    }

    #[test]
    fn a_camera_that_tells_no_rate_is_taken_at_its_own() {
        let modes = [mode(V4l2Format::Uyvy, FULL, Mode::UNKNOWN_RATE)];
        for rate in [0.0, 25.0] {
            let wishes = V4l2Options { rate, ..V4l2Options::default() };
            assert_eq!(choose(&modes, &wishes).unwrap(), modes[0], "{rate}");
        }
    }

    #[test]
    fn a_monochrome_camera_is_taken_as_it_is() {
        let modes = [mode(V4l2Format::Grey, HD, (1, 120))];
        assert_eq!(choose(&modes, &V4l2Options::default()).unwrap(), modes[0]);
    }
}
