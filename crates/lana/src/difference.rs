//! By how much is one network more accurate than another, and how sure is that?
//!
//! Two networks that are looked at on the same images mostly err on the same ones, so that their difference is surer than either
//! accuracy. What counts are the images that only one of them has right (McNemar 1947): with b of them for the one network and c for the other, of
//! n, the difference is `(b − c) / n` and its standard error `√(((b + c) / n − ((b − c) / n)²) / n)`. Where the answers are not known
//! image by image, both accuracies are taken as independent, which is true of different images and too cautious for the same.

use serde::{Deserialize, Serialize};

use crate::Accuracy;

/// Which images of a set, in their order, a network answers rightly: a hexadecimal digit for four of them, the first in the highest bit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(String);

impl Answers {
    /// Of whether each image is answered rightly.
    pub fn new(right: &[bool]) -> Self {
        let digit = |four: &[bool]| {
            let value = (0..4).fold(0, |value, at| 2 * value + u32::from(four.get(at) == Some(&true)));
            char::from_digit(value, 16).unwrap_or('0')
        };
        Answers(right.chunks(4).map(digit).collect())
    }

    /// Images that these answers have right and others have not, and the other way round; none if they are not of the same images.
    fn apart(&self, others: &Answers) -> Option<[u64; 2]> {
        let mut apart = [0; 2];
        if self.0.len() != others.0.len() {
            return None;
        }
        for (mine, theirs) in self.0.chars().zip(others.0.chars()) {
            let (mine, theirs) = (mine.to_digit(16)?, theirs.to_digit(16)?);
            for (count, only) in apart.iter_mut().zip([mine & !theirs, theirs & !mine]) {
                *count += u64::from(only.count_ones());
            }
        }
        Some(apart)
    }
}

/// What lies between the top-1 accuracies of two networks on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Top-1 of the first less that of the second.
    pub top1: f64,
    /// Its standard error.
    pub error: f64,
    /// Whether that is of the images on which both differ; otherwise both accuracies are taken as independent.
    pub paired: bool,
}

impl Difference {
    /// Between two networks, with the answers of each where they are known.
    pub fn between(one: (&Accuracy, Option<&Answers>), other: (&Accuracy, Option<&Answers>)) -> Self {
        let top1 = one.0.top1 - other.0.top1;
        let images = one.0.images;
        let apart = one.1.zip(other.1).and_then(|(mine, theirs)| mine.apart(theirs));
        match apart.filter(|_| images > 0 && images == other.0.images) {
            Some([mine, theirs]) => {
                let share = (mine + theirs) as f64 / images as f64;
                let error = ((share - top1 * top1).max(0.0) / images as f64).sqrt();
                Difference { top1, error, paired: true }
            }
            None => Difference { top1, error: one.0.top1_error().hypot(other.0.top1_error()), paired: false },
        }
    }

    /// Whether the first network is as accurate as the second or better, within two standard errors.
    pub fn is_as_accurate(&self) -> bool {
        self.top1 >= -2.0 * self.error
    }

    /// Whether the first network is more accurate than the second, by more than two standard errors.
    pub fn is_more_accurate(&self) -> bool {
        self.top1 > 2.0 * self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(right: &[bool]) -> (Accuracy, Answers) {
        let count = right.iter().filter(|right| **right).count();
        let top1 = count as f64 / right.len() as f64;
        (Accuracy { top1, top5: 1.0, loss: 1.0, images: right.len() as u64 }, Answers::new(right))
    }

    #[test]
    fn the_same_images_make_differences_surer() {
        // 30 images: 3 that only the first has right, 1 that only the second has, 4 that neither has.
        let one: Vec<bool> = (0..30).map(|at| !(3..8).contains(&at)).collect();
        let other: Vec<bool> = (0..30).map(|at| !(0..3).contains(&at) && !(4..8).contains(&at)).collect();
        let ((one, mine), (other, theirs)) = (of(&one), of(&other));
        let paired = Difference::between((&one, Some(&mine)), (&other, Some(&theirs)));
        assert!((paired.top1 - 2.0 / 30.0).abs() < 1e-12 && paired.paired, "{paired:?}");
        // The deviation of 3 times one, once minus one and 26 times nothing, by the root of their number.
        let expected = ((4.0 / 30.0 - (2.0 / 30.0_f64).powi(2)) / 30.0).sqrt();
        assert!((paired.error - expected).abs() < 1e-12, "{paired:?}");
        for answers in
            [(None, Some(&theirs)), (Some(&mine), None), (Some(&mine), Some(&Answers::new(&[true; 40])))]
        {
            let apart = Difference::between((&one, answers.0), (&other, answers.1));
            assert!(!apart.paired && apart.error > paired.error, "{apart:?}");
        }
        let same = Difference::between((&one, Some(&mine)), (&one, Some(&mine)));
        assert_eq!((same.top1, same.error, same.is_as_accurate()), (0.0, 0.0, true));
        assert!(paired.is_as_accurate() && !paired.is_more_accurate());
        assert!(Difference { top1: 0.021, error: 0.01, paired: true }.is_more_accurate());
        assert!(!Difference { top1: -0.021, error: 0.01, paired: true }.is_as_accurate());
    }

    #[test]
    fn answers_are_a_digit_for_four_images() {
        let answers = Answers::new(&[true, false, true, true, false, true]);
        assert_eq!(serde_json::to_string(&answers).unwrap(), "\"b4\"");
        assert_eq!(answers.apart(&Answers::new(&[false; 6])), Some([4, 0]));
        assert_eq!(answers.apart(&serde_json::from_str("\"b4\"").unwrap()), Some([0, 0]));
        assert_eq!(answers.apart(&serde_json::from_str("\"x4\"").unwrap()), None);
    }
}
