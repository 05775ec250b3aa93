//! The two number types, their scratch memory, and matrix products.

use std::ops::{Add, Deref, DerefMut, Mul, Sub};
use std::sync::{LazyLock, Mutex};

use gemm::Parallelism;
use pulp::Simd;

use super::winograd::Winograd;

/// f32 for work, f64 for checking gradients.
pub(in super::super) trait Element:
    Copy + Send + Sync + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + 'static
{
    const ZERO: Self;
    fn from_f64(v: f64) -> Self;
    /// Buffers that wait for their next use.
    fn pool() -> &'static Mutex<Vec<Vec<Self>>>;
    /// As many numbers as one register holds.
    type Lanes<S: Simd>: Copy;
    /// How many that are.
    fn lanes<S: Simd>() -> usize;
    /// The same number in each lane.
    fn splat<S: Simd>(simd: S, v: Self) -> Self::Lanes<S>;
    /// `a · b + c`.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Lanes<S>,
        b: Self::Lanes<S>,
        c: Self::Lanes<S>,
    ) -> Self::Lanes<S>;
    /// At most as many numbers as there are lanes; zero in the others.
    fn load<S: Simd>(simd: S, from: &[Self]) -> Self::Lanes<S>;
    /// The first lanes, at most as many as there are.
    fn store<S: Simd>(simd: S, to: &mut [Self], lanes: Self::Lanes<S>);
    /// The transforms of 3-wide kernels.
    fn winograd3() -> &'static Winograd<Self, 3, 6>;
    /// The transforms of 4-wide kernels.
    fn winograd4() -> &'static Winograd<Self, 4, 7>;
}

macro_rules! element {
    ($type:ty, $lanes:ident, $count:ident, $splat:ident, $multiply_add:ident, $whole:ident, $whole_mut:ident, $load:ident, $store:ident) => {
        impl Element for $type {
            const ZERO: Self = 0.0;

            fn from_f64(v: f64) -> Self {
                v as Self
            }

            fn pool() -> &'static Mutex<Vec<Vec<Self>>> {
                static POOL: Mutex<Vec<Vec<$type>>> = Mutex::new(Vec::new());
                &POOL
            }

            type Lanes<S: Simd> = S::$lanes;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$count
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, v: Self) -> S::$lanes {
                simd.$splat(v)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$lanes, b: S::$lanes, c: S::$lanes) -> S::$lanes {
                simd.$multiply_add(a, b, c)
            }

            #[inline(always)]
            fn load<S: Simd>(simd: S, from: &[Self]) -> S::$lanes {
                match S::$whole(from) {
                    ([lanes], []) => *lanes,
                    _ => simd.$load(from),
                }
            }

            #[inline(always)]
            fn store<S: Simd>(simd: S, to: &mut [Self], lanes: S::$lanes) {
                match S::$whole_mut(to) {
                    ([whole], []) => *whole = lanes,
                    (_, _) => simd.$store(to, lanes),
                }
            }

            fn winograd3() -> &'static Winograd<Self, 3, 6> {
                static W: LazyLock<Winograd<$type, 3, 6>> = LazyLock::new(Winograd::new);
                &W
            }

            fn winograd4() -> &'static Winograd<Self, 4, 7> {
                static W: LazyLock<Winograd<$type, 4, 7>> = LazyLock::new(Winograd::new);
                &W
            }
        }
    };
}
element!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    mul_add_e_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    partial_load_f32s,
    partial_store_f32s
);
element!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    mul_add_e_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    partial_load_f64s,
    partial_store_f64s
);

/// How many idle buffers are kept: more than two threads and one layer use at a time.
const IDLE_BUFFERS: usize = 16;

/// Scratch memory that is used again and again, because fresh pages cost as much as the arithmetic on them.
pub(in super::super) struct Buffer<T: Element> {
    memory: Vec<T>,
    len: usize,
}

impl<T: Element> Buffer<T> {
    /// `len` numbers of unspecified value.
    pub(in super::super) fn take(len: usize) -> Self {
        let mut pool = T::pool().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The smallest that is large enough, or else the largest, which grows.
        let fitting = (0..pool.len()).filter(|&i| pool[i].len() >= len).min_by_key(|&i| pool[i].len());
        let best = fitting.or_else(|| (0..pool.len()).max_by_key(|&i| pool[i].len()));
        let mut memory = best.map(|i| pool.swap_remove(i)).unwrap_or_default();
        drop(pool);
        if memory.len() < len {
            memory = vec![T::ZERO; len];
        }
        Self { memory, len }
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let mut pool = T::pool().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pool.len() < IDLE_BUFFERS {
            pool.push(std::mem::take(&mut self.memory));
        }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[..self.len]
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[..self.len]
    }
}

/// A matrix somewhere in memory.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Elements from one row to the next.
    pub(super) row_stride: usize,
    /// Elements from one column to the next.
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row after row.
    pub(super) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Some columns of a matrix that has `row_stride` of them, from `data`'s start on.
    pub(super) fn part(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        let last = self.rows.saturating_sub(1) * self.row_stride
            + self.columns.saturating_sub(1) * self.column_stride;
        last < self.data.len()
    }
}

/// `to = left · right`, or `to += left · right`; `to` is row after row, dense. On the calling thread alone.
pub(super) fn multiply<T: Element>(to: &mut [T], left: Matrix<T>, right: Matrix<T>, accumulate: bool) {
    let (m, k, n) = (left.rows, left.columns, right.columns);
    assert_eq!((k, m * n), (right.rows, to.len()), "matrices that do not fit each other: this is a bug");
    assert!(left.fits() && right.fits(), "a matrix larger than its memory: this is a bug");
    // SAFETY: every address that the product reads or writes lies inside the three slices, as just checked, and the
    // mutable one cannot overlap the others. `Element` is f32 or f64, which gemm supports.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            T::from_f64(1.0),
            T::from_f64(1.0),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Runs `work`, compiled for the widest vectors that the processor has; it must be `#[inline(always)]` for that.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
