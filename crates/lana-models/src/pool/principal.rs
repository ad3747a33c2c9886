//! The strongest directions of a matrix: its left singular vectors.

use nalgebra::{DMatrix, SymmetricEigen};

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
/// They are the eigenvectors of the symmetric matrix of all scalar products of rows.
pub(super) fn directions(rows: &Rows) -> Rows {
    let size = rows.len();
    let width = rows.first().map_or(0, Vec::len);
    let matrix = DMatrix::from_fn(size, width, |row, column| rows[row][column]);
    let eigen = SymmetricEigen::new(&matrix * matrix.transpose());
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.into_iter().map(|at| eigen.eigenvectors.column(at).iter().copied().collect()).collect()
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
