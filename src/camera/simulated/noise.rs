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

/// The whole number at or below `x`; `f32::floor` is a call into the C library on the processors that builds must run on.
fn floor(x: f32) -> i32 {
    let cut = x as i32;
    cut - i32::from(cut as f32 > x)
}

fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

/// Smooth along a line, with about one bump a unit; −1 to 1.
pub(super) fn along(seed: u32, x: f32) -> f32 {
    let floor = floor(x);
    let cell = floor as u32;
    let (a, b) = (even(hash(seed ^ cell)), even(hash(seed ^ cell.wrapping_add(1))));
    a + (b - a) * ease(x - floor as f32)
}

/// Smooth over a plane, with about one bump a unit; −1 to 1.
pub(super) fn over(seed: u32, x: f32, y: f32) -> f32 {
    let floor = floor(y);
    let row = |y: i32| along(hash(seed ^ (y as u32).wrapping_mul(0x9e37_79b9)), x);
    let (a, b) = (row(floor), row(floor + 1));
    a + (b - a) * ease(y - floor as f32)
}

/// Four nearly Gaussian values with unit variance, each `index` for itself.
pub(super) fn grain(seed: u32, index: u32) -> [f32; 4] {
    let first = hash(seed ^ index.wrapping_mul(0x85eb_ca6b));
    let second = hash(first ^ 0x68e3_1da4);
    // The sum of three even numbers of five bits: mean 46.5, standard deviation 15.99.
    let value = |h: u32| ((h & 31) + (h >> 5 & 31) + (h >> 10 & 31)) as f32 * 0.062_54 - 2.908;
    [value(first), value(first >> 16), value(second), value(second >> 16)]
}

/// 0 below `from`, 1 above `to`, smooth between; `from` may be the larger.
pub(super) fn step(from: f32, to: f32, x: f32) -> f32 {
    ease(((x - from) / (to - from)).clamp(0.0, 1.0))
}
