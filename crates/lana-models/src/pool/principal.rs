//! The strongest directions of a matrix: its left singular vectors.

/// A matrix by rows.
pub(super) type Rows = Vec<Vec<f64>>;

/// Scalar product.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Columns as rows.
pub(super) fn transpose(rows: &Rows) -> Rows {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
}

/// Orthonormal directions in the space of the columns, as many as there are rows, the one with most of the matrix first:
/// the left singular vectors, each a row of the result. The best approximation of rank r keeps the first r (Eckart &
/// Young 1936).
///
/// They are the eigenvectors of the symmetric matrix of all scalar products of rows, found by rotating pairs of its rows
/// until all are orthogonal (Hestenes 1958): the one-sided form of Jacobi's method, which is short, works on rows as they
/// lie in memory, and is quick enough for the few hundred channels of a layer.
pub(super) fn directions(rows: &Rows) -> Rows {
    let size = rows.len();
    let mut work: Rows = rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
    // The rotations done so far: `turned[i]` is the direction along which `work[i]` lies.
    let mut turned: Rows =
        (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    const SWEEPS: usize = 30;
    for _ in 0..SWEEPS {
        let mut rotated = false;
        let largest = work.iter().map(|row| dot(row, row)).fold(0.0, f64::max);
        for second in 1..size {
            for first in 0..second {
                let (a, b) = (dot(&work[first], &work[first]), dot(&work[second], &work[second]));
                let both = dot(&work[first], &work[second]);
                // What is as good as nothing beside the largest is only rounding.
                if both.abs() <= 1e-9 * (a * b).sqrt() || a.min(b) <= 1e-26 * largest {
                    continue;
                }
                rotated = true;
                let zeta = (b - a) / (2.0 * both);
                let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                for matrix in [&mut work, &mut turned] {
                    let (head, tail) = matrix.split_at_mut(second);
                    for (x, y) in head[first].iter_mut().zip(&mut tail[0]) {
                        (*x, *y) = (cosine * (*x - tangent * *y), cosine * (tangent * *x + *y));
                    }
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    let strength: Vec<f64> = work.iter().map(|row| dot(row, row)).collect();
    order.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
    order.into_iter().map(|i| turned[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_orthonormal_and_the_first_hold_what_there_is() {
        // Rank two: every row a mixture of two.
        let base = [[1.0, 2.0, -1.0, 0.5, 3.0], [0.0, 1.0, 1.0, -2.0, 0.5]];
        let mix = [[1.0, 0.0], [0.5, 2.0], [-1.0, 0.3], [0.2, -0.7]];
        let row = |m: &[f64; 2]| base[0].iter().zip(base[1]).map(|(a, b)| m[0] * a + m[1] * b).collect();
        let rows: Rows = mix.iter().map(row).collect();
        let found = directions(&rows);
        for (i, a) in found.iter().enumerate() {
            for (j, b) in found.iter().enumerate() {
                assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j}");
            }
        }
        let columns = transpose(&rows);
        let held = |d: &Vec<f64>| columns.iter().map(|c| dot(d, c).powi(2)).sum::<f64>();
        let strengths: Vec<f64> = found.iter().map(held).collect();
        assert!(strengths[0] > strengths[1] && strengths[1] > 0.1, "{strengths:?}");
        assert!(strengths[2] < 1e-12 && strengths[3] < 1e-12, "{strengths:?}");
    }
}
