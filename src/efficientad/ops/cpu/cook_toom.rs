//! The matrices of Winograd's minimal filtering, from the points that they interpolate at.
//!
//! `y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A` (Lavin & Gray 2016). `G` and `A` evaluate polynomials at the points, `B` undoes the
//! evaluation of their product; the last point is infinity, where a polynomial's value is its highest coefficient.

/// `rows × columns` of f64, row by row.
pub(super) type Rows = Vec<Vec<f64>>;

/// Powers of each point, one row per point, then the row of infinity.
pub(super) fn evaluation(points: &[f64], columns: usize) -> Rows {
    let powers = |p: &f64| (0..columns).map(|i| p.powi(i as i32)).collect();
    let mut rows: Rows = points.iter().map(powers).collect();
    rows.push((0..columns).map(|i| f64::from(u8::from(i + 1 == columns))).collect());
    rows
}

/// `Bᵀ`: the transposed inverse of the evaluation of as many coefficients as there are points.
pub(super) fn interpolation(points: &[f64]) -> Rows {
    transpose(&invert(evaluation(points, points.len() + 1)))
}

pub(super) fn transpose(m: &Rows) -> Rows {
    (0..m[0].len()).map(|c| m.iter().map(|row| row[c]).collect()).collect()
}

fn invert(mut m: Rows) -> Rows {
    let n = m.len();
    let mut inverse: Rows = (0..n).map(|r| (0..n).map(|c| f64::from(u8::from(r == c))).collect()).collect();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|&a, &b| m[a][column].abs().total_cmp(&m[b][column].abs())).unwrap_or(column);
        m.swap(column, pivot);
        inverse.swap(column, pivot);
        let scale = 1.0 / m[column][column];
        for v in m[column].iter_mut().chain(&mut inverse[column]) {
            *v *= scale;
        }
        let (done, done_inverse) = (m[column].clone(), inverse[column].clone());
        for row in (0..n).filter(|&r| r != column) {
            let factor = m[row][column];
            for (v, d) in m[row].iter_mut().zip(&done).chain(inverse[row].iter_mut().zip(&done_inverse)) {
                *v -= factor * d;
            }
        }
    }
    inverse
}
