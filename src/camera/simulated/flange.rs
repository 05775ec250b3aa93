//! The shape of a simulated part, a flange with a sealing ring and bolt holes around a bore.
//!
//! Lengths are in units of the picture's shorter side. Not here: where it lies (`scene`), what is wrong with it (`defect`).

/// Bolt holes of a flange.
pub(super) const HOLES: usize = 6;
/// The flange's radius.
pub(super) const RADIUS: f32 = 0.405;
/// The bore's radius.
pub(super) const BORE: f32 = 0.105;
/// Where the bolt holes' centres lie, and their radius.
pub(super) const HOLE_CIRCLE: f32 = 0.295;
/// See [`HOLE_CIRCLE`].
pub(super) const HOLE: f32 = 0.036;
/// Where the sealing ring lies, and half its width.
pub(super) const RING: f32 = 0.185;
/// See [`RING`].
pub(super) const RING_HALF_WIDTH: f32 = 0.016;
