//! Anomaly maps: from features to raw maps, their quantiles, and a combined map at the picture's size (paper §3.4).
//!
//! Raw maps are 56×56 at 256×256. Quantiles and normalisation act on raw maps; only then is the combined map padded
//! and resized. The functions on slices serve every engine; those on tensors serve the reference and calibration.
//! Not here: how maps are combined (`normalisation`).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::architecture::Architecture;
use super::statistics::quantile;
use crate::frame::Size;

/// The lower quantile of a map's normalisation, mapped to 0.
pub const QUANTILE_A: f64 = 0.9;
/// The upper quantile of a map's normalisation, mapped to 0.1.
pub const QUANTILE_B: f64 = 0.995;

/// Mean over channels of (teacher − student's first half)²: `teacher [b, C, h, w]` normalised, `student
/// [b, 2C, h, w]` → `[b, h, w]`.
pub fn student_teacher(teacher: &Tensor, student: &Tensor) -> Result<Tensor> {
    let channels = teacher.dim(1)?;
    (teacher - student.narrow(1, 0, channels)?)?.sqr()?.mean(1)
}

/// Mean over channels of (autoencoder − student's second half)²: `autoencoder [b, C, h, w]`, `student [b, 2C, h, w]`
/// → `[b, h, w]`.
pub fn autoencoder_student(autoencoder: &Tensor, student: &Tensor) -> Result<Tensor> {
    let channels = autoencoder.dim(1)?;
    (autoencoder - student.narrow(1, channels, channels)?)?.sqr()?.mean(1)
}

/// One map's normalisation: `a` goes to 0, `b` to 0.1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantilePair {
    /// The 0.9 quantile of held-out normal pixels.
    pub a: f32,
    /// Their 0.995 quantile.
    pub b: f32,
}

impl QuantilePair {
    /// The quantiles of all `pixels` of one kind of map; reorders them. `None` if there are none.
    pub fn of(pixels: &mut [f32]) -> Option<Self> {
        Some(Self { a: quantile(pixels, QUANTILE_A)?, b: quantile(pixels, QUANTILE_B)? })
    }

    /// `(scale, offset)` such that the normalised value is `scale·v + offset`. Where the quantiles coincide, which
    /// only constant maps reach, their own magnitude stands in for the spread.
    pub fn scale_and_offset(self) -> (f32, f32) {
        let least = (self.a.abs() * 1e-6).max(1e-12);
        let scale = 0.1 / (self.b - self.a).max(least);
        (scale, -self.a * scale)
    }
}

/// Both maps' normalisations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapQuantiles {
    /// Of the student–teacher map.
    pub student_teacher: QuantilePair,
    /// Of the autoencoder–student map.
    pub autoencoder_student: QuantilePair,
}

impl MapQuantiles {
    /// As the model's tensor `quantiles` holds them: a and b of student–teacher, a and b of autoencoder–student.
    pub fn to_array(self) -> [f32; 4] {
        let (st, ae) = (self.student_teacher, self.autoencoder_student);
        [st.a, st.b, ae.a, ae.b]
    }

    /// From the model's tensor `quantiles`.
    pub fn from_array([sa, sb, aa, ab]: [f32; 4]) -> Self {
        Self {
            student_teacher: QuantilePair { a: sa, b: sb },
            autoencoder_student: QuantilePair { a: aa, b: ab },
        }
    }
}

/// A combined map of `rows × columns`, padded by 4 zeros on each side and bilinearly resized to `size`, row by row.
pub fn full_size(map: &[f32], rows: usize, columns: usize, size: Size) -> Vec<f32> {
    assert_eq!(map.len(), rows * columns, "a map that does not fit its sides: this is a bug");
    let (width, height) = (size.width as usize, size.height as usize);
    let horizontal = taps(columns, width);
    let vertical = taps(rows, height);
    // Widened rows are few (64 of a 1200-row picture), so the long loop is the vertical blend alone.
    let mut wide = vec![0f32; rows * width];
    for (row, out) in map.chunks_exact(columns.max(1)).zip(wide.chunks_exact_mut(width.max(1))) {
        for (o, tap) in out.iter_mut().zip(&horizontal) {
            *o = tap.blend(|i| row[i]);
        }
    }
    let zeros = vec![0f32; width];
    let line = |at: Option<usize>| at.map_or(&zeros[..], |i| &wide[i * width..][..width]);
    let mut full = vec![0f32; width * height];
    for (out, tap) in full.chunks_exact_mut(width.max(1)).zip(&vertical) {
        let (low, high, share) = (line(tap.low), line(tap.high), tap.share);
        for ((o, l), h) in out.iter_mut().zip(low).zip(high) {
            *o = l + (h - l) * share;
        }
    }
    full
}

/// Where one output pixel lies between two padded inputs; `None` is the padding's zero.
struct Tap {
    low: Option<usize>,
    high: Option<usize>,
    share: f32,
}

impl Tap {
    fn blend(&self, value: impl Fn(usize) -> f32) -> f32 {
        let (low, high) = (self.low.map_or(0.0, &value), self.high.map_or(0.0, &value));
        low + (high - low) * self.share
    }
}

fn taps(from: usize, to: usize) -> Vec<Tap> {
    let padding = Architecture::MAP_PADDING;
    let padded = from + 2 * padding;
    let scale = padded as f64 / to as f64;
    let inside = |i: usize| i.checked_sub(padding).filter(|&i| i < from);
    let tap = |out: usize| {
        let at = ((out as f64 + 0.5) * scale - 0.5).max(0.0);
        let low = (at as usize).min(padded - 1);
        let share = (at - low as f64).min(1.0) as f32;
        Tap { low: inside(low), high: inside((low + 1).min(padded - 1)), share }
    };
    (0..to).map(tap).collect()
}
