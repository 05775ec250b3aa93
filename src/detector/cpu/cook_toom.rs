//! The matrices of Winograd's minimal filtering, made by Cook–Toom interpolation at 0, ±1, ±2, ±½ and ∞.
//!
//! For M outputs of an R-tap filter with M + R − 1 = 8: `y = Aᵀ [(G g) ⊙ (Bᵀ d)]`. F(5, 4) and F(6, 3) share B. Eight
//! points are where f32 still holds: with nine (F(6, 4)) the error grows tenfold. In two dimensions 64 products replace 400 (5×5 outputs, 4×4
//! taps) or 324 (6×6, 3×3). Not here: their fast application (`transform`).

/// Inputs of a tile's side, and so points.
pub(super) const POINTS: usize = 8;
/// The finite points, by opposite pairs after 0; the eighth is infinity. Powers of two keep Bᵀ and Aᵀ exact in f32.
const FINITE: [f64; POINTS - 1] = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5];

const fn power(x: f64, n: usize) -> f64 {
    let (mut product, mut i) = (1.0, 0);
    while i < n {
        product *= x;
        i += 1;
    }
    product
}

/// The coefficients, from the constant up, of ∏ (x − p) over the finite points other than the `skip`-th.
const fn polynomial(skip: usize) -> [f64; POINTS] {
    let mut c = [0.0; POINTS];
    c[0] = 1.0;
    let mut i = 0;
    while i < POINTS - 1 {
        if i != skip {
            let mut k = POINTS - 1;
            while k > 0 {
                c[k] = c[k - 1] - FINITE[i] * c[k];
                k -= 1;
            }
            c[0] *= -FINITE[i];
        }
        i += 1;
    }
    c
}

/// Bᵀ, 8×8: the input transform.
pub(super) const fn input() -> [[f32; POINTS]; POINTS] {
    let mut b = [[0.0; POINTS]; POINTS];
    let mut i = 0;
    while i < POINTS {
        let row = polynomial(i);
        let mut k = 0;
        while k < POINTS {
            b[i][k] = row[k] as f32;
            k += 1;
        }
        i += 1;
    }
    b
}

/// Aᵀ, M×8: the output transform.
pub(super) const fn output<const M: usize>() -> [[f32; POINTS]; M] {
    let mut a = [[0.0; POINTS]; M];
    let mut k = 0;
    while k < M {
        let mut i = 0;
        while i < POINTS - 1 {
            a[k][i] = power(FINITE[i], k) as f32;
            i += 1;
        }
        k += 1;
    }
    a[M - 1][POINTS - 1] = 1.0;
    a
}

/// G, 8×R for a filter of `R` taps: the weight transform, in f64 because it is applied once.
pub(super) fn weight(taps: usize) -> Vec<[f64; POINTS]> {
    let mut g = vec![[0.0; POINTS]; taps];
    for (k, column) in g.iter_mut().enumerate() {
        for (i, p) in FINITE.iter().enumerate() {
            let others = FINITE.iter().enumerate().filter(|(j, _)| *j != i);
            let scale: f64 = others.map(|(_, q)| p - q).product();
            column[i] = power(*p, k) / scale;
        }
    }
    g[taps - 1][POINTS - 1] = 1.0;
    g
}

/// G g Gᵀ of one `taps × taps` filter: its 64 factors, row by row.
pub(super) fn transform_weight(filter: &[f64], g: &[[f64; POINTS]]) -> [f64; POINTS * POINTS] {
    let taps = g.len();
    let mut half = vec![[0.0; POINTS]; taps];
    for (y, half) in half.iter_mut().enumerate() {
        for (x, column) in g.iter().enumerate() {
            for (h, c) in half.iter_mut().zip(column) {
                *h += c * filter[y * taps + x];
            }
        }
    }
    let mut whole = [0.0; POINTS * POINTS];
    for (half, column) in half.iter().zip(g) {
        for (row, c) in whole.chunks_exact_mut(POINTS).zip(column) {
            for (w, h) in row.iter_mut().zip(half) {
                *w += c * h;
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one dimension, over integers, where every product is exact.
    fn agrees_with_direct_convolution<const M: usize>() {
        let taps = POINTS + 1 - M;
        let (a, b, g) = (output::<M>(), input(), weight(taps));
        for seed in 0..20_i64 {
            let value = |i: i64| ((i * 7919 + seed * 104_729) % 31 - 15) as f64;
            let d: Vec<f64> = (0..POINTS as i64).map(value).collect();
            let w: Vec<f64> = (100..100 + taps as i64).map(value).collect();
            let product = |i: usize| {
                let u: f64 = (0..taps).map(|k| g[k][i] * w[k]).sum();
                let v: f64 = (0..POINTS).map(|k| f64::from(b[i][k]) * d[k]).sum();
                u * v
            };
            for (m, row) in a.iter().enumerate() {
                let winograd: f64 = (0..POINTS).map(|i| f64::from(row[i]) * product(i)).sum();
                let direct: f64 = (0..taps).map(|k| w[k] * d[m + k]).sum();
                assert!((winograd - direct).abs() < 1e-9, "F({M}, {taps}): {winograd} is not {direct}");
            }
        }
    }

    #[test]
    fn minimal_filtering_is_convolution() {
        agrees_with_direct_convolution::<5>();
        agrees_with_direct_convolution::<6>();
    }

    #[test]
    fn the_transforms_are_exact_in_f32() {
        for row in input() {
            assert!(row.iter().all(|c| (c * 16.0).fract() == 0.0), "{row:?}");
        }
    }
}
