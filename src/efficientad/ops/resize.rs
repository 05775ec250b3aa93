//! Bilinear resize on the CPU, channels last, with its gradient.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::cpu::Element;
use super::layer::{slice, with_slice};

/// Where one output lies between two inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tap {
    pub(super) low: usize,
    pub(super) high: usize,
    /// What `high` contributes, 0–1; `low` contributes the rest.
    pub(super) share: f64,
}

/// Half-pixel centres, clamped to the edge.
pub(super) fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let tap = |out: usize| {
        let at = ((out as f64 + 0.5) * scale - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        Tap { low, high: (low + 1).min(from - 1), share: (at - low as f64).min(1.0) }
    };
    (0..to).map(tap).collect()
}

/// `[b, h, w, c]` → `[b, rows, columns, c]`.
pub(super) fn apply(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Resize { to: [rows, columns] })
}

struct Resize {
    to: [usize; 2],
}

/// The four neighbours of an output, as positions and factors.
type Corners = [(usize, f64); 4];

impl Resize {
    /// For each output position its neighbours.
    fn corners(&self, [height, width]: [usize; 2]) -> Vec<Corners> {
        let across = taps(width, self.to[1]);
        let corner = |v: &Tap, h: &Tap| {
            let [top, bottom] = [1.0 - v.share, v.share];
            let [left, right] = [1.0 - h.share, h.share];
            [
                (v.low * width + h.low, top * left),
                (v.low * width + h.high, top * right),
                (v.high * width + h.low, bottom * left),
                (v.high * width + h.high, bottom * right),
            ]
        };
        taps(height, self.to[0]).iter().flat_map(|v| across.iter().map(move |h| corner(v, h))).collect()
    }

    fn forward<T: Element>(&self, x: &[T], [b, h, w, c]: [usize; 4]) -> Vec<T> {
        let corners = self.corners([h, w]);
        let mut y = vec![T::ZERO; b * corners.len() * c];
        let pictures = y.par_chunks_mut(corners.len() * c).zip(x.par_chunks(h * w * c));
        pictures.for_each(|(y, x)| {
            y.par_chunks_mut(c).zip(&corners).with_min_len(256).for_each(|(y, corners)| {
                for &(from, factor) in corners {
                    let factor = T::from_f64(factor);
                    for (y, x) in y.iter_mut().zip(&x[from * c..]) {
                        *y = *y + factor * *x;
                    }
                }
            });
        });
        y
    }

    fn backward<T: Element>(&self, dy: &[T], [b, h, w, c]: [usize; 4]) -> Vec<T> {
        let corners = self.corners([h, w]);
        let mut dx = vec![T::ZERO; b * h * w * c];
        let pictures = dx.par_chunks_mut(h * w * c).zip(dy.par_chunks(corners.len() * c));
        pictures.for_each(|(dx, dy)| {
            for (dy, corners) in dy.chunks_exact(c).zip(&corners) {
                for &(to, factor) in corners {
                    let factor = T::from_f64(factor);
                    for (dx, dy) in dx[to * c..].iter_mut().zip(dy) {
                        *dx = *dx + factor * *dy;
                    }
                }
            }
        });
        dx
    }
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "bilinear resize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, h, w, c) = layout.shape().dims4()?;
        let storage = match storage.dtype() {
            DType::F64 => f64::to_cpu_storage_owned(self.forward(slice((storage, layout))?, [b, h, w, c])),
            _ => f32::to_cpu_storage_owned(self.forward(slice::<f32>((storage, layout))?, [b, h, w, c])),
        };
        Ok((storage, (b, self.to[0], self.to[1], c).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (b, h, w, c) = x.dims4()?;
        let gradient = gradient.contiguous()?;
        let size = [b, h, w, c];
        let dx = match x.dtype() {
            DType::F64 => {
                let dx = with_slice(&gradient, |dy| Ok(self.backward::<f64>(dy, size)))?;
                Tensor::from_vec(dx, x.shape(), x.device())?
            }
            _ => {
                let dx = with_slice(&gradient, |dy| Ok(self.backward::<f32>(dy, size)))?;
                Tensor::from_vec(dx, x.shape(), x.device())?
            }
        };
        Ok(Some(dx))
    }
}
