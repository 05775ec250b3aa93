//! Noise that a number decides: hashes, and smooth noise over them.
//!
//! In: a seed and a place. Out: a value. Not here: random generators with a state, which pixels drawn in any order cannot
//! share.

/// Mixes all bits of `x`.
pub(super) fn hash(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Evenly in −1 to 1.
fn even(h: u32) -> f32 {
    (h >> 8) as f32 * (2.0 / (1 << 24) as f32) - 1.0
}

fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// Smooth along a line, with about one bump a unit; −1 to 1.
pub(super) fn along(seed: u32, x: f32) -> f32 {
    let floor = x.floor();
    let cell = floor as i32 as u32;
    let (a, b) = (even(hash(seed ^ cell)), even(hash(seed ^ cell.wrapping_add(1))));
    a + (b - a) * ease(x - floor)
}

/// Smooth over a plane, with about one bump a unit; −1 to 1.
pub(super) fn over(seed: u32, x: f32, y: f32) -> f32 {
    let floor = y.floor();
    let row = |y: i32| along(hash(seed ^ (y as u32).wrapping_mul(0x9e37_79b9)), x);
    let (a, b) = (row(floor as i32), row(floor as i32 + 1));
    a + (b - a) * ease(y - floor)
}

/// Nearly Gaussian with unit variance, each `index` for itself.
pub(super) fn grain(seed: u32, index: u32) -> f32 {
    let h = hash(seed ^ index.wrapping_mul(0x85eb_ca6b));
    let sum = (h & 0xff) + (h >> 8 & 0xff) + (h >> 16 & 0xff) + (h >> 24);
    // Four even bytes: mean 510, standard deviation 147.8.
    (sum as f32 - 510.0) / 147.8
}

/// 0 below `from`, 1 above `to`, smooth between; `from` may be the larger.
pub(super) fn step(from: f32, to: f32, x: f32) -> f32 {
    ease(((x - from) / (to - from)).clamp(0.0, 1.0))
}
