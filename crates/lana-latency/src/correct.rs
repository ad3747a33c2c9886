//! What whole networks teach a lookup table.
//!
//! Within one table the errors of whole networks have much in common: runtimes fuse operations, and caches are shared, in
//! ways that no sum of parts sees. The fit has three kinds of unknowns, and believes in small ones (it is the posterior
//! mean of a Gaussian model, as in Rasmussen & Williams 2006, equation 2.25):
//!
//! * one factor on all savings, 5 % either way;
//! * one share of every layer that is replaced, 5 % of the teacher's layer either way (ten random selections of ResNet-56
//!   with 22 to 45 % saved were all predicted 2 to 6 % of the teacher too slow, whatever they saved);
//! * an error of each distinct timing, 5 % of the teacher's layer either way, and its standard error;
//!
//! against measurements of 0.5 %. A single measured network moves all that it has in common with others, several tell the
//! operations apart, and no operation is moved that none of them uses, except by what is common to all. The teacher itself
//! stays as measured.

use serde::{Deserialize, Serialize};

use crate::table::{TEACHER, Whole};
use crate::{Entry, Error, Result, Table};

/// How far the savings may be off together, as a fraction of them.
const SAVINGS: f64 = 0.05;
/// How far replaced layers may be off together, as a fraction of the teacher's layers.
const REPLACED: f64 = 0.05;
/// How far each timing may be off by itself, as a fraction of the teacher's layer.
const OWN: f64 = 0.05;
/// How far a measurement of a whole network may be off at least, as a fraction of it.
const MEASURED: f64 = 0.005;

/// What a correction did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Networks it was fitted to.
    pub networks: usize,
    /// Mean relative error of their predictions before.
    pub error_before: f64,
    /// Mean relative error after.
    pub error_after: f64,
}

/// One measured network as the fit sees it.
struct Observation {
    measured: f64,
    /// Standard error of that.
    noise: f64,
    predicted: f64,
    /// Sum of its savings against the teacher, and of the teacher's layers that it replaces.
    saving: f64,
    replaced: f64,
    /// How often it uses each timing, weighted by how far that one may be off (milliseconds).
    uses: Vec<(usize, f64)>,
}

impl Table {
    /// Corrects the table by whole networks that were measured: pairs of a selection and its milliseconds. Those in
    /// [`Table::whole`] always belong to them.
    ///
    /// Pass all that were measured since: each call starts from the uncorrected costs. The milliseconds should be on the
    /// table's scale, that is a ratio to the teacher from one interleaved measurement, times [`Table::teacher_ms`].
    ///
    /// # Errors
    /// If a selection does not fit the table, or a time is not positive. The table is unchanged then.
    pub fn correct(&mut self, measured: &[(Vec<String>, f64)]) -> Result<Correction> {
        let mut observations = Vec::with_capacity(self.whole.len() + measured.len());
        for Whole { choices, ratio, error } in &self.whole {
            let noise = error * self.teacher_measured_ms;
            observations.push(self.observe(choices, ratio * self.teacher_measured_ms, noise)?);
        }
        for (selection, time) in measured {
            observations.push(self.observe(selection, *time, 0.0)?);
        }
        let factors = fit(&observations);
        let savings: f64 = observations.iter().zip(&factors).map(|(o, f)| o.saving * f).sum();
        let replaced: f64 = observations.iter().zip(&factors).map(|(o, f)| o.replaced * f).sum();
        let mut own = std::collections::HashMap::<usize, f64>::new();
        for (observation, factor) in observations.iter().zip(&factors) {
            for (timing, deviation) in &observation.uses {
                *own.entry(*timing).or_default() += deviation * factor;
            }
        }
        for row in &mut self.layers {
            let teacher_ms = row.teacher_ms;
            // Timing 0 is the teacher's own layer, by whatever name.
            for entry in row.operations.iter_mut().filter(|e| e.timing != 0) {
                let saving = entry.cost_ms - teacher_ms;
                entry.correction_ms = SAVINGS.powi(2) * saving * savings
                    + REPLACED.powi(2) * teacher_ms * replaced
                    + entry.doubt(teacher_ms) * own.get(&entry.timing).copied().unwrap_or(0.0);
            }
        }
        let mut error_after = 0.0;
        let selections = self.whole.iter().map(|w| &w.choices).chain(measured.iter().map(|m| &m.0));
        for (selection, observation) in selections.zip(&observations) {
            error_after += (self.predict(selection)? / observation.measured - 1.0).abs();
        }
        let error_before: f64 = observations.iter().map(|o| (o.predicted / o.measured - 1.0).abs()).sum();
        let count = observations.len().max(1) as f64;
        let correction = Correction {
            networks: observations.len(),
            error_before: error_before / count,
            error_after: error_after / count,
        };
        self.correction = Some(correction.clone());
        Ok(correction)
    }

    /// `noise` is the standard error of a measurement, where it is known.
    fn observe(&self, selection: &[String], measured: f64, noise: f64) -> Result<Observation> {
        self.check_length(selection.len())?;
        if !(measured.is_finite() && measured > 0.0) {
            return Err(Error::Table(format!("a network cannot take {measured} ms")));
        }
        let (mut saving, mut replaced) = (0.0, 0.0);
        let mut uses: Vec<(usize, f64)> = Vec::new();
        let mut teacher = self.fixed_ms;
        for (row, name) in self.layers.iter().zip(selection) {
            teacher += row.teacher_ms;
            let entry = match row.entry(name) {
                _ if name == TEACHER => continue,
                Some(entry) if entry.timing == 0 => continue,
                Some(entry) => entry,
                None => return Err(row.unknown(name)),
            };
            saving += entry.cost_ms - row.teacher_ms;
            replaced += row.teacher_ms;
            let deviation = entry.doubt(row.teacher_ms);
            match uses.iter_mut().find(|(timing, _)| *timing == entry.timing) {
                Some((_, sum)) => *sum += deviation,
                None => uses.push((entry.timing, deviation)),
            }
        }
        let noise = noise.max(MEASURED * measured);
        Ok(Observation { measured, noise, predicted: teacher + saving, saving, replaced, uses })
    }
}

impl Entry {
    /// How far its cost may be off by itself, milliseconds.
    fn doubt(&self, teacher_ms: f64) -> f64 {
        (OWN * teacher_ms).hypot(self.spread_ms)
    }
}

/// `(K + N)⁻¹ r`: `K` how the model thinks the predictions' errors hang together, `N` the noise, `r` the errors.
fn fit(observations: &[Observation]) -> Vec<f64> {
    let count = observations.len();
    let mut matrix = vec![vec![0.0; count]; count];
    for (i, a) in observations.iter().enumerate() {
        for (j, b) in observations.iter().enumerate() {
            let shared: f64 = a
                .uses
                .iter()
                .filter_map(|(t, x)| b.uses.iter().find(|(u, _)| u == t).map(|(_, y)| x * y))
                .sum();
            matrix[i][j] =
                SAVINGS.powi(2) * a.saving * b.saving + REPLACED.powi(2) * a.replaced * b.replaced + shared;
        }
        matrix[i][i] += a.noise.powi(2);
    }
    let errors = observations.iter().map(|o| o.measured - o.predicted).collect();
    solve(matrix, errors)
}

/// Solves a symmetric positive definite system by Cholesky's decomposition.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let count = right.len();
    for i in 0..count {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum();
            matrix[i][j] = match i == j {
                true => (matrix[i][i] - dot).max(f64::MIN_POSITIVE).sqrt(),
                false => (matrix[i][j] - dot) / matrix[j][j],
            };
        }
        let dot: f64 = (0..i).map(|k| matrix[i][k] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[i][i];
    }
    for i in (0..count).rev() {
        let dot: f64 = (i + 1..count).map(|k| matrix[k][i] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[i][i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::sample;

    fn selection(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn cholesky_solves() {
        let x =
            solve(vec![vec![4.0, 2.0, 0.6], vec![2.0, 5.0, 1.0], vec![0.6, 1.0, 3.0]], vec![1.0, 2.0, 3.0]);
        let rows = [[4.0, 2.0, 0.6], [2.0, 5.0, 1.0], [0.6, 1.0, 3.0]];
        for (row, right) in rows.iter().zip([1.0, 2.0, 3.0]) {
            let got: f64 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert!((got - right).abs() < 1e-12);
        }
    }

    #[test]
    fn one_measurement_moves_all_savings_towards_it() {
        let mut table = sample();
        // All half: predicted 5.5 of 9.5; measured 6.0, so an eighth of the saving is not there.
        let correction = table.correct(&[(selection("half half half half"), 6.0)]).expect("fits");
        assert!(correction.error_after < 0.25 * correction.error_before, "{correction:?}");
        assert_eq!(table.predict(&["teacher"; 4]).expect("known"), 9.5);
        let skips = table.predict(&["skip"; 4]).expect("known");
        assert!((1.6..2.5).contains(&skips), "skips share the common factor: {skips}");
        // Fitting again starts afresh.
        let again = table.clone();
        table.correct(&[(selection("half half half half"), 6.0)]).expect("fits");
        assert_eq!(table.layers, again.layers);
        table.correct(&[]).expect("fits");
        assert!(table.layers.iter().flat_map(|r| &r.operations).all(|e| e.correction_ms == 0.0));
    }

    #[test]
    fn several_measurements_tell_operations_apart() {
        let mut table = sample();
        // `half` really costs 1.1 ms, `skip` is right.
        let truth = [
            ("half half half half", 1.5 + 4.4),
            ("skip skip skip skip", 1.5),
            ("half skip half skip", 1.5 + 2.2),
            ("teacher skip teacher skip", 5.5),
        ];
        let measured: Vec<_> = truth.iter().map(|(s, t)| (selection(s), *t)).collect();
        let correction = table.correct(&measured).expect("fits");
        assert!(correction.error_after < 0.005, "{correction:?}");
        assert!((table.cost("a", "half").expect("known") - 1.1).abs() < 0.02);
        assert!(table.cost("a", "skip").expect("known").abs() < 0.02);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut table = sample();
        let before = table.clone();
        assert!(table.correct(&[(selection("half half"), 5.0)]).is_err());
        assert!(table.correct(&[(selection("half half half what"), 5.0)]).is_err());
        assert!(table.correct(&[(selection("half half half half"), f64::NAN)]).is_err());
        assert_eq!(table, before);
    }
}
