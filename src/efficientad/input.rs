//! Pictures as the networks read them: 0–1, less ImageNet's mean, over its standard deviation.

use candle_core::{Device, Result, Tensor, bail};

use crate::frame::Picture;

/// ImageNet's mean of R, G, B in 0–1.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation of R, G, B in 0–1.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Pictures of one size as `[b, 3, H, W]`, f32.
///
/// # Errors
/// There is none, or their sizes differ.
pub fn normalise(pictures: &[&Picture], device: &Device) -> Result<Tensor> {
    batch(pictures, device, normalise_into)
}

/// Pictures of one size as `[b, 3, H, W]`, f32; `fill` makes one picture's three planes of its interleaved RGB8.
pub(super) fn batch(
    pictures: &[&Picture],
    device: &Device,
    fill: impl Fn(&[u8], &mut [f32]),
) -> Result<Tensor> {
    let Some(size) = pictures.first().map(|p| p.size()) else { bail!("a batch needs at least one picture") };
    let pixels = size.pixels() as usize;
    let mut values = vec![0f32; pictures.len() * 3 * pixels];
    for (picture, planes) in pictures.iter().zip(values.chunks_exact_mut(3 * pixels)) {
        if picture.size() != size {
            bail!("a batch holds pictures of {size} and of {}", picture.size());
        }
        fill(picture.rgb(), planes);
    }
    Tensor::from_vec(values, (pictures.len(), 3, size.height as usize, size.width as usize), device)
}

/// One picture's interleaved RGB8 into its three planes; `planes` is as long as `rgb`.
pub fn normalise_into(rgb: &[u8], planes: &mut [f32]) {
    assert_eq!(rgb.len(), planes.len(), "planes that do not fit the picture: this is a bug");
    let pixels = rgb.len() / 3;
    for (channel, plane) in planes.chunks_exact_mut(pixels.max(1)).enumerate() {
        let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - MEAN[channel]) / STD[channel]);
        for (out, pixel) in plane.iter_mut().zip(rgb.chunks_exact(3)) {
            *out = table[usize::from(pixel[channel])];
        }
    }
}
