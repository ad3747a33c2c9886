use std::fmt;

use serde::{Deserialize, Serialize};

/// The shape of one value without its batch dimension: `[channels, height, width]` for a feature map,
/// `[features]` for a vector, any others inside attention (`[heads, tokens, features]`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A feature map.
    pub fn image(channels: usize, height: usize, width: usize) -> Self {
        Self(vec![channels, height, width])
    }

    /// Any dimensions.
    pub fn of(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }

    /// A vector.
    pub fn vector(features: usize) -> Self {
        Self(vec![features])
    }

    /// All dimensions but the batch.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of elements of one sample.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Whether a tensor of these dimensions has fewer than 2³¹ elements, as those of all real networks have.
    pub(crate) fn is_sane(dims: &[usize]) -> bool {
        let elements = dims.iter().try_fold(1usize, |product, d| product.checked_mul(*d));
        // A dimension of 0 would hide huge ones beside it.
        elements.is_some_and(|e| e < 1 << 31) && dims.iter().all(|d| *d < 1 << 31)
    }

    /// Channels of a feature map, features of a vector.
    pub fn channels(&self) -> usize {
        self.0.first().copied().unwrap_or(0)
    }

    /// `(channels, height, width)` if this is a feature map.
    pub fn as_image(&self) -> Option<(usize, usize, usize)> {
        match *self.0 {
            [c, h, w] => Some((c, h, w)),
            _ => None,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("×")?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
