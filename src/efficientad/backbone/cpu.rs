//! Pointwise and depthwise convolutions on the CPU, with bias and activation in the same pass: f32, inference only.
//!
//! A pointwise convolution is one matrix product, cut into column blocks that stay in a core's cache until the
//! activation has passed over them. A depthwise one is bound by memory, so each plane is read once and written once.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::activation::Activation;

/// Columns worked on at once: two AVX-512 registers, four of AVX2.
const LANES: usize = 32;
/// Values of the output that fit a core's second-level cache beside the input.
const BLOCK_VALUES: usize = 96 << 10;

/// `x [b, i, h, w]`, `weight [o, i, 1, 1]`, `bias [o]` → `[b, o, h, w]`.
pub(super) fn pointwise(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    x.contiguous()?.apply_op3_no_bwd(weight, bias, &Pointwise { activation })
}

/// `x [b, c, h, w]`, `weight [c, 1, k, k]` and `bias [c]`; `pads` are the zeros before and behind rows and columns.
pub(super) fn depthwise(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    stride: usize,
    pads: [[usize; 2]; 2],
    activation: Activation,
) -> Result<Tensor> {
    x.contiguous()?.apply_op3_no_bwd(weight, bias, &Depthwise { stride, pads, activation })
}

struct Pointwise {
    activation: Activation,
}

struct Depthwise {
    stride: usize,
    pads: [[usize; 2]; 2],
    activation: Activation,
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(all) = storage else { bail!("backbones compute in f32") };
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => bail!("a backbone's tensors are contiguous"),
    }
}

/// An output that threads share, each writing columns of its own.
struct Columns(*mut f32);

// SAFETY: only handed to the jobs of one `pointwise`, which write to disjoint columns.
unsafe impl Sync for Columns {}

impl Columns {
    fn start(&self) -> *mut f32 {
        self.0
    }
}

impl CustomOp3 for Pointwise {
    fn name(&self) -> &'static str {
        "pointwise"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (b, i, h, w) = l1.shape().dims4()?;
        let (o, inputs, _, _) = l2.shape().dims4()?;
        if inputs != i || bias.len() != o {
            bail!("a pointwise convolution of {inputs} channels met {i}");
        }
        let pixels = h * w;
        let mut out = vec![0f32; b * o * pixels];
        let columns = Columns(out.as_mut_ptr());
        let block = (BLOCK_VALUES / o.max(i)).max(1).next_multiple_of(LANES);
        let blocks = pixels.div_ceil(block);
        (0..b * blocks).into_par_iter().for_each(|job| {
            let (picture, from) = (job / blocks, job % blocks * block);
            let n = block.min(pixels - from);
            // SAFETY: offset and lengths lie inside `out`, and no other job has these columns of this picture.
            unsafe {
                let out = columns.start().add(picture * o * pixels + from);
                for (row, &bias) in bias.iter().enumerate() {
                    std::slice::from_raw_parts_mut(out.add(row * pixels), n).fill(bias);
                }
                let x = x.as_ptr().add(picture * i * pixels + from);
                multiply_add([o, n, i], out, weight.as_ptr(), x, pixels);
                for row in 0..o {
                    let row = std::slice::from_raw_parts_mut(out.add(row * pixels), n);
                    clamp(row, self.activation.bounds());
                }
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((b, o, h, w))))
    }
}

/// `out [m, n] += weight [m, k] · x [k, n]`, rows of `out` and `x` being `stride` apart.
///
/// # Safety
/// The three must hold that many values.
unsafe fn multiply_add(
    [m, n, k]: [usize; 3],
    out: *mut f32,
    weight: *const f32,
    x: *const f32,
    stride: usize,
) {
    let rows = stride as isize;
    let one_thread = gemm::Parallelism::None;
    // SAFETY: the caller's promise, passed on.
    unsafe {
        gemm::gemm(
            m, n, k, out, 1, rows, true, weight, 1, k as isize, x, 1, rows, 1.0, 1.0, false, false, false,
            one_thread,
        );
    }
}

fn clamp(values: &mut [f32], [low, high]: [f32; 2]) {
    if low == f32::NEG_INFINITY {
        return;
    }
    vectorised(|| values.iter_mut().for_each(|v| *v = v.max(low).min(high)));
}

/// Runs `work` compiled for the widest vectors that this processor has.
fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(avx512) = pulp::x86::V4::try_new() {
            return avx512.vectorize(work);
        }
        if let Some(avx2) = pulp::x86::V3::try_new() {
            return avx2.vectorize(work);
        }
    }
    pulp::Arch::new().dispatch(work)
}

impl CustomOp3 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (values(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        let (b, c, h, w) = l1.shape().dims4()?;
        let (channels, one, kernel, _) = l2.shape().dims4()?;
        if channels != c || one != 1 || bias.len() != c || !matches!(self.stride, 1 | 2) {
            bail!("a depthwise convolution of {channels} channels met {c}");
        }
        let side = |length: usize, [before, behind]: [usize; 2]| {
            (length + before + behind).checked_sub(kernel).map(|room| room / self.stride + 1)
        };
        let (Some(rows), Some(columns)) = (side(h, self.pads[0]), side(w, self.pads[1])) else {
            bail!("a picture of {w}x{h} is too small for a kernel of {kernel}");
        };
        if !matches!(kernel, 3 | 5) {
            bail!("depthwise kernels of 3 and 5 are known, not of {kernel}");
        }
        let mut out = vec![0f32; b * c * rows * columns];
        out.par_chunks_mut(rows * columns).zip(x.par_chunks(h * w)).enumerate().for_each_init(
            Vec::new,
            |scratch, (plane, (out, input))| {
                let channel = plane % c;
                let plane = Plane {
                    size: [h, w],
                    output: [rows, columns],
                    before: [self.pads[0][0], self.pads[1][0]],
                    stride: self.stride,
                    weight: &weight[channel * kernel * kernel..][..kernel * kernel],
                    bias: bias[channel],
                    bounds: self.activation.bounds(),
                };
                match kernel {
                    3 => plane.convolve::<3>(input, scratch, out),
                    _ => plane.convolve::<5>(input, scratch, out),
                }
            },
        );
        Ok((CpuStorage::F32(out), Shape::from((b, c, rows, columns))))
    }
}

/// One channel of one picture.
struct Plane<'a> {
    size: [usize; 2],
    output: [usize; 2],
    before: [usize; 2],
    stride: usize,
    weight: &'a [f32],
    bias: f32,
    bounds: [f32; 2],
}

impl Plane<'_> {
    fn convolve<const K: usize>(&self, input: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                let width = self.pad::<K>(input, scratch);
                for (y, out) in out.chunks_exact_mut(self.output[1]).enumerate() {
                    self.row::<K>(&scratch[y * self.stride * self.stride * width..], width, out);
                }
            },
        );
    }

    /// The plane among its zeros, each row split by the stride's phases so that a tap always reads neighbours. Returns
    /// the width of one phase of one row, with room for a last block that is not full.
    #[inline(always)]
    fn pad<const K: usize>(&self, input: &[f32], scratch: &mut Vec<f32>) -> usize {
        let width = self.output[1].next_multiple_of(LANES) + K;
        let rows = (self.output[0] - 1) * self.stride + K;
        scratch.clear();
        scratch.resize(rows * self.stride * width, 0.0);
        let [top, left] = self.before;
        for (y, row) in input.chunks_exact(self.size[1]).enumerate().take(rows.saturating_sub(top)) {
            let padded = &mut scratch[(y + top) * self.stride * width..][..self.stride * width];
            if self.stride == 1 {
                let n = row.len().min(width - left);
                padded[left..left + n].copy_from_slice(&row[..n]);
                continue;
            }
            let (even, odd) = padded.split_at_mut(width);
            let (first, second) = if left % 2 == 0 { (even, odd) } else { (odd, even) };
            let (at, behind) = (left / 2, left.div_ceil(2));
            for (x, pair) in row.chunks(2).enumerate() {
                if at + x < width {
                    first[at + x] = pair[0];
                }
                if let (Some(&v), true) = (pair.get(1), behind + x < width) {
                    second[behind + x] = v;
                }
            }
        }
        width
    }

    #[inline(always)]
    fn row<const K: usize>(&self, padded: &[f32], width: usize, out: &mut [f32]) {
        let [low, high] = self.bounds;
        for (block, out) in out.chunks_mut(LANES).enumerate() {
            let mut sums = [self.bias; LANES];
            for ky in 0..K {
                for kx in 0..K {
                    let row = (ky * self.stride + kx % self.stride) * width;
                    let tap = &padded[row + kx / self.stride + block * LANES..][..LANES];
                    let weight = self.weight[ky * K + kx];
                    for lane in 0..LANES {
                        sums[lane] += weight * tap[lane];
                    }
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum.max(low).min(high);
            }
        }
    }
}
