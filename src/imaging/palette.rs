//! Colours for anomaly: inferno, which is even to the eye, orders without a legend, and survives grey printing and
//! colour blindness.

/// Inferno (Smith, van der Walt; CC0), ten samples at even distances.
const INFERNO: [[u8; 3]; 10] = [
    [0, 0, 4],
    [27, 12, 65],
    [74, 12, 107],
    [120, 28, 109],
    [165, 44, 96],
    [207, 68, 70],
    [237, 105, 37],
    [251, 155, 6],
    [247, 209, 61],
    [252, 255, 164],
];

/// The colour of `t`, from 0 to 1; beyond them, the nearest.
pub(super) fn inferno(t: f32) -> [u8; 3] {
    let place = t.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f32;
    let cell = (place as usize).min(INFERNO.len() - 2);
    let share = place - cell as f32;
    let (from, to) = (INFERNO[cell], INFERNO[cell + 1]);
    [0, 1, 2].map(|i| (f32::from(from[i]) + (f32::from(to[i]) - f32::from(from[i])) * share).round() as u8)
}
