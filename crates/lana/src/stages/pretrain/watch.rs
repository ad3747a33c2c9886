//! What the course of its error says about an operation in training: diverged, no longer getting better, or beaten.
//!
//! Everything here depends on the errors alone, never on time or threads, so that an interrupted pass decides as it would have.

/// Points at the end of a curve that are looked at together: errors of single points go up and down with their images.
const WINDOW: usize = 4;
/// How many times as large another's error must be, at each point of the window, to be called worse.
const WORSE: f64 = 1.25;
/// By how much the error must fall from window to window to be called falling.
const FALLING: f64 = 0.995;
/// Share of the pass before which nothing is stopped: the learning rate must have been high for a while.
const PATIENCE: f64 = 0.25;
/// The same for what is stopped because it no longer gets better.
const LONG_PATIENCE: f64 = 0.5;
/// An error at which an operation hardly gives anything but zeros.
const ZEROS: f64 = 0.99;

/// The course of an operation's error: images seen and mean error since the point before.
pub(super) type Curve = [(u64, f64)];

/// Whether training has left the path: the error is no number, or far beyond `first`, that before the first update, or after a good
/// part of the way (`done`, 0 to 1) neither below it nor below what zeros would give, which is 1.
///
/// An operation that begins at random may begin far above 1 and still learn (ResNeSt's do), so that 1 is no limit by itself. Nor is
/// the first point of the curve a measure: at learning rate 30 operations blow up before it, and die to zeros after it.
pub(super) fn has_diverged(first: Option<f64>, error: f64, done: f64) -> bool {
    let beyond =
        |first: f64| error > 10.0 * first + 1.0 || (done >= LONG_PATIENCE && error > first.max(ZEROS));
    !error.is_finite() || first.is_some_and(beyond)
}

/// Whether the error has stopped falling, `done` (0 to 1) of the pass being over.
pub(super) fn is_flat(curve: &Curve, done: f64) -> bool {
    let Some(before) = curve.len().checked_sub(2 * WINDOW) else { return false };
    let mean = |points: &Curve| points.iter().map(|(_, error)| error).sum::<f64>() / points.len() as f64;
    let (earlier, last) = curve[before..].split_at(WINDOW);
    done >= LONG_PATIENCE && mean(last) > FALLING * mean(earlier)
}

/// Whether `curve` has been clearly worse than `rival` for a while. A rival that learns no longer keeps its last error.
pub(super) fn is_worse(curve: &Curve, rival: &Curve, done: f64) -> bool {
    if done < PATIENCE || curve.len() < WINDOW || rival.is_empty() {
        return false;
    }
    curve[curve.len() - WINDOW..].iter().all(|(images, error)| {
        let then = rival.iter().rev().find(|(seen, _)| seen <= images).or(rival.first());
        then.is_some_and(|(_, other)| *error > WORSE * other)
    })
}

/// What an operation costs: latency where the table knows it, multiply-accumulates, parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Price {
    pub(super) latency: Option<f64>,
    pub(super) macs: u64,
    pub(super) params: u64,
}

impl Price {
    /// Whether this is at least as cheap as `other` in everything, and faster: without a table nothing is known to be.
    pub(super) fn beats(&self, other: &Price) -> bool {
        let (Some(mine), Some(theirs)) = (self.latency, other.latency) else { return false };
        mine < theirs && self.macs <= other.macs && self.params <= other.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(errors: &[f64]) -> Vec<(u64, f64)> {
        errors.iter().enumerate().map(|(i, e)| (100 * (i as u64 + 1), *e)).collect()
    }

    #[test]
    fn divergence_is_no_number_or_far_above_the_beginning() {
        let has_diverged_early = |first, error| has_diverged(Some(first), error, 0.1);
        assert!(has_diverged_early(0.06, f64::NAN) && has_diverged_early(0.06, f64::INFINITY));
        assert!(has_diverged_early(0.06, 2.0) && !has_diverged_early(0.06, 1.1));
        // A random start above 1 is no divergence.
        assert!(!has_diverged_early(30.0, 40.0) && has_diverged_early(30.0, 400.0));
        assert!(!has_diverged(None, 3.0, 0.9) && has_diverged(None, f64::NAN, 0.1));
        // What gives zeros after half of the way will not recover; what began there has lost nothing.
        assert!(has_diverged(Some(0.6), 1.0, 0.5) && !has_diverged(Some(0.6), 0.98, 0.9));
        assert!(!has_diverged(Some(1.2), 1.1, 0.9) && has_diverged(Some(1.2), 1.3, 0.9));
    }

    #[test]
    fn an_error_that_falls_is_left_alone() {
        let falling = curve(&[0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35]);
        let flat = curve(&[0.5, 0.51, 0.49, 0.5, 0.5, 0.49, 0.51, 0.5]);
        assert!(!is_flat(&falling, 0.9) && is_flat(&flat, 0.9));
        assert!(!is_flat(&flat, 0.3) && !is_flat(&flat[..7], 0.9));
    }

    #[test]
    fn only_who_is_clearly_worse_for_a_while_is_beaten() {
        let (good, bad) = (curve(&[0.2; 8]), curve(&[0.3; 8]));
        let recovered = curve(&[0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.21]);
        assert!(is_worse(&bad, &good, 0.5));
        assert!(!is_worse(&recovered, &good, 0.5) && !is_worse(&good, &bad, 0.5));
        assert!(!is_worse(&bad, &good, 0.1) && !is_worse(&bad[..3], &good, 0.5) && !is_worse(&bad, &[], 0.5));
        // The rival was done before.
        assert!(is_worse(&bad, &good[..2], 0.5));
        let price = |latency, macs| Price { latency, macs, params: 10 };
        assert!(price(Some(1.0), 5).beats(&price(Some(2.0), 5)));
        assert!(
            !price(Some(1.0), 6).beats(&price(Some(2.0), 5)) && !price(None, 5).beats(&price(Some(2.0), 5))
        );
    }
}
