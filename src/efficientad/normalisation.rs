//! From a model's raw maps to the combined one: what is usual where, each map's scale, and their sum (paper §3.4).
//!
//! The paper normalises each map as a whole. Here, what normal parts show at a place is first taken off what is seen there
//! (`docs/adr/0009-usual-maps.md`). Not here: raw maps and quantiles (`maps`), how either is measured (`training`).

use super::maps::MapQuantiles;

/// The autoencoder's share of the combined map in the paper; counts where it is not known what is usual.
const PAPERS_SHARE: f32 = 0.5;
/// Its share otherwise. After trainings that people wait for, the student–teacher map is the better of the two.
const SHARE: f32 = 1.0 / 3.0;

/// What the raw maps of normal parts show on average, cell by cell.
#[derive(Debug, Clone, PartialEq)]
pub struct UsualMaps {
    /// Of the student–teacher map, row by row.
    pub student_teacher: Vec<f32>,
    /// Of the autoencoder–student map, row by row.
    pub autoencoder_student: Vec<f32>,
}

impl UsualMaps {
    /// Takes what is usual off one picture's raw maps.
    pub fn take_off(&self, student_teacher: &mut [f32], autoencoder_student: &mut [f32]) {
        let take_off = |map: &mut [f32], usual: &[f32]| {
            map.iter_mut().zip(usual).for_each(|(value, usual)| *value -= usual);
        };
        take_off(student_teacher, &self.student_teacher);
        take_off(autoencoder_student, &self.autoencoder_student);
    }
}

/// What a model's raw maps are combined by.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    /// The maps' quantiles, after what is usual was taken off.
    pub quantiles: MapQuantiles,
    /// What is usual; bundles of earlier programs do not say.
    pub usual: Option<UsualMaps>,
}

impl Normalisation {
    /// As an engine takes it, for maps of so many `cells`.
    pub fn combination(&self, cells: usize) -> Combination {
        let mut combination = self.of_what_is_unusual(cells);
        if let Some(usual) = &self.usual {
            let [s, a] = combination.scale;
            let both = usual.student_teacher.iter().zip(&usual.autoencoder_student);
            for (offset, (st, ae)) in combination.offsets.iter_mut().zip(both) {
                *offset -= s * st + a * ae;
            }
        }
        combination
    }

    /// The same for maps that what is usual was taken off.
    pub fn of_what_is_unusual(&self, cells: usize) -> Combination {
        let (s, s0) = self.quantiles.student_teacher.scale_and_offset();
        let (a, a0) = self.quantiles.autoencoder_student.scale_and_offset();
        let share = if self.usual.is_some() { SHARE } else { PAPERS_SHARE };
        let rest = 1.0 - share;
        Combination { scale: [rest * s, share * a], offsets: vec![rest * s0 + share * a0; cells] }
    }
}

/// The combined map of raw ones, cell by cell: a scale for each and an offset for each cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    /// What the student–teacher and the autoencoder–student map are multiplied by.
    pub scale: [f32; 2],
    /// What is added, row by row.
    pub offsets: Vec<f32>,
}

impl Combination {
    /// The combined map; both raw ones have as many cells as this.
    pub fn of(&self, student_teacher: &[f32], autoencoder_student: &[f32]) -> Vec<f32> {
        let [s, a] = self.scale;
        let both = student_teacher.iter().zip(autoencoder_student);
        both.zip(&self.offsets).map(|((st, ae), offset)| s * st + (a * ae + offset)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::maps::QuantilePair;
    use super::*;

    const QUANTILES: MapQuantiles = MapQuantiles {
        student_teacher: QuantilePair { a: 1.0, b: 3.0 },
        autoencoder_student: QuantilePair { a: 0.0, b: 0.5 },
    };

    #[test]
    fn where_nothing_is_usual_the_maps_count_as_in_the_paper() {
        let combination = Normalisation { quantiles: QUANTILES, usual: None }.combination(2);
        let combined = combination.of(&[1.0, 3.0], &[0.0, 0.5]);
        assert!(combined[0].abs() < 1e-7 && (combined[1] - 0.1).abs() < 1e-7, "{combined:?}");
        let half = combination.of(&[1.0, 1.0], &[0.5, 0.0]);
        assert!((half[0] - 0.05).abs() < 1e-7, "{half:?}");
    }

    #[test]
    fn what_is_usual_at_a_place_is_not_held_against_it() {
        let usual = UsualMaps { student_teacher: vec![5.0, 0.0], autoencoder_student: vec![0.0, 0.2] };
        let normalisation = Normalisation { quantiles: QUANTILES, usual: Some(usual) };
        let combined = normalisation.combination(2).of(&[6.0, 1.0], &[0.1, 0.3]);
        let (mut st, mut ae) = ([6.0, 1.0], [0.1, 0.3]);
        normalisation.usual.as_ref().unwrap().take_off(&mut st, &mut ae);
        let alone = normalisation.of_what_is_unusual(2).of(&st, &ae);
        assert!(combined.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-6), "{combined:?} {alone:?}");
        // A third of (0.1 − 0) · 0.1 / (0.5 − 0).
        assert!((alone[0] - 0.02 / 3.0).abs() < 1e-6, "{alone:?}");
    }
}
