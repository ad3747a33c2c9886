//! From stored bytes to the numbers a network sees.

use crate::{
    decode::{self, Interpolation},
    error::Error,
    random::{Purpose, Random},
};

/// Random changes of training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Augment {
    /// The image as it is: for evaluation.
    #[default]
    None,
    /// torchvision's `RandomCrop(size, padding)` followed by `RandomHorizontalFlip(0.5)`: the image with a black border
    /// (the byte 0, before normalisation) is cut at a random place, then mirrored half of the time.
    CropFlip {
        /// Width of the border in pixels; 4 for CIFAR.
        padding: usize,
    },
}

/// What happens to each image between the data set and the network.
///
/// The result is `(x / 255 - mean) / std` per channel, as channels x height x width (CHW) `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Width and height of the result in pixels. Images of another size are resized (bicubic) first.
    pub size: usize,
    /// Mean of red, green, blue on the scale 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue on the scale 0..1.
    pub std: [f32; 3],
    /// Random changes.
    pub augment: Augment,
}

/// Where the random numbers of an augmentation come from: the result is a function of these alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The index of the image in its data set.
    pub index: u32,
}

impl Transform {
    /// ImageNet's mean, used by most published networks (and by many CIFAR ones).
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// ImageNet's standard deviation.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// No augmentation, ImageNet's mean and standard deviation.
    pub fn evaluation(size: usize) -> Transform {
        let (mean, std) = (Transform::IMAGENET_MEAN, Transform::IMAGENET_STD);
        Transform { size, mean, std, augment: Augment::None }
    }

    /// The same with augmentation.
    pub fn with_augment(self, augment: Augment) -> Transform {
        Transform { augment, ..self }
    }

    /// Transforms one image.
    ///
    /// `pixels`: `side` x `side` x 3 bytes (HWC, as in [`Sample`](crate::Sample)); `out`: 3 x size x size values (CHW).
    ///
    /// # Errors
    ///
    /// If a length does not fit, or the transform is not usable (size 0, a standard deviation of 0).
    pub fn apply(&self, pixels: &[u8], side: usize, draw: Draw, out: &mut [f32]) -> Result<(), Error> {
        let wrong = |setting, found: usize, needed: usize| {
            let reason = format!("{found} values where {needed} belong");
            Err(Error::Setting { setting, reason })
        };
        if pixels.len() != side * side * 3 {
            return wrong("pixels", pixels.len(), side * side * 3);
        }
        if out.len() != self.size * self.size * 3 {
            return wrong("out", out.len(), self.size * self.size * 3);
        }
        Prepared::new(self)?.apply(pixels, side, draw, out)
    }
}

/// A transform with its arithmetic done: 256 results per channel.
pub(crate) struct Prepared {
    size: usize,
    augment: Augment,
    values: [[f32; 256]; 3],
}

impl Prepared {
    pub(crate) fn new(transform: &Transform) -> Result<Prepared, Error> {
        let Transform { size, mean, std, augment } = transform;
        let wrong = |setting, reason: String| Err(Error::Setting { setting, reason });
        if *size == 0 {
            return wrong("size", "0 pixels; use the input size of the network".into());
        }
        if !std.iter().all(|v| v.is_finite() && *v > 0.0) || !mean.iter().all(|v| v.is_finite()) {
            let reason = format!("mean {mean:?}, std {std:?}; each std must be finite and above 0");
            return wrong("normalisation", reason);
        }
        if let Augment::CropFlip { padding } = augment
            && *padding > *size
        {
            return wrong("padding", format!("{padding} pixels around {size}; use at most the size"));
        }
        let mut values = [[0.0; 256]; 3];
        for (channel, row) in values.iter_mut().enumerate() {
            for (byte, value) in row.iter_mut().enumerate() {
                *value = (byte as f32 / 255.0 - mean[channel]) / std[channel];
            }
        }
        Ok(Prepared { size: *size, augment: *augment, values })
    }

    /// The number of values of one image.
    pub(crate) fn values(&self) -> usize {
        3 * self.size * self.size
    }

    pub(crate) fn apply(&self, pixels: &[u8], side: usize, draw: Draw, out: &mut [f32]) -> Result<(), Error> {
        if side == self.size {
            self.place(pixels, draw, out);
            return Ok(());
        }
        let mut resized = vec![0; self.values()];
        decode::resize(pixels, [side; 2], &mut resized, [self.size; 2], Interpolation::Bicubic)
            .map_err(|reason| Error::Setting { setting: "size", reason })?;
        self.place(&resized, draw, out);
        Ok(())
    }

    /// Normalises, with the augmentation that `draw` stands for; `pixels` have the final size.
    fn place(&self, pixels: &[u8], draw: Draw, out: &mut [f32]) {
        let (padding, left, top, flip) = match self.augment {
            Augment::None => (0, 0, 0, false),
            Augment::CropFlip { padding } => {
                let mut random = Random::new(Purpose::Augment, [draw.seed, draw.epoch, draw.index.into()]);
                let places = 2 * padding as u32 + 1;
                let (left, top) = (random.below(places) as usize, random.below(places) as usize);
                (padding, left, top, random.chance(0.5))
            }
        };
        let size = self.size;
        let (red, rest) = out.split_at_mut(size * size);
        let (green, blue) = rest.split_at_mut(size * size);
        // Columns of the result that come from the image; the others are border.
        let columns = padding.saturating_sub(left)..(size + padding - left).min(size);
        for row in 0..size {
            let line = row * size..(row + 1) * size;
            let planes = [&mut red[line.clone()], &mut green[line.clone()], &mut blue[line]];
            // Row of the image; rows before 0 wrap around to huge numbers.
            let source = (row + top).wrapping_sub(padding);
            let inside = if source < size { columns.clone() } else { 0..0 };
            let [first, last] = [inside.start, inside.end];
            let start = if inside.is_empty() { 0 } else { (source * size + first + left - padding) * 3 };
            let from = &pixels[start..start + inside.len() * 3];
            for (channel, plane) in planes.into_iter().enumerate() {
                let values = &self.values[channel];
                plane[..first].fill(values[0]);
                plane[last..].fill(values[0]);
                for (to, pixel) in plane[first..last].iter_mut().zip(from.chunks_exact(3)) {
                    *to = values[usize::from(pixel[channel])];
                }
                if flip {
                    plane.reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 8;

    /// Every pixel differs, none is 0.
    fn image() -> Vec<u8> {
        (0..SIDE * SIDE * 3).map(|i| i as u8 + 1).collect()
    }

    fn plain(augment: Augment) -> Transform {
        Transform { size: SIDE, mean: [0.0; 3], std: [1.0 / 255.0; 3], augment }
    }

    fn run(transform: &Transform, draw: Draw) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3 * transform.size * transform.size];
        transform.apply(&image(), SIDE, draw, &mut out).unwrap();
        out
    }

    #[test]
    fn evaluation_normalises_and_reorders() {
        let transform = Transform::evaluation(SIDE);
        let out = run(&transform, Draw { seed: 0, epoch: 0, index: 0 });
        for (i, pixel) in image().chunks_exact(3).enumerate() {
            for c in 0..3 {
                let expected = (f32::from(pixel[c]) / 255.0 - transform.mean[c]) / transform.std[c];
                assert_eq!(out[c * SIDE * SIDE + i], expected);
            }
        }
    }

    #[test]
    fn crops_are_shifts_with_a_black_border() {
        // Undoes each augmentation by comparing with all it could have been, written the slow way.
        const PADDING: usize = 3;
        let transform = plain(Augment::CropFlip { padding: PADDING });
        let image = image();
        let mut seen = std::collections::HashSet::new();
        for index in 0..2000 {
            let out = run(&transform, Draw { seed: 5, epoch: 1, index });
            let matches = |left: usize, top: usize, flip: bool| {
                (0..SIDE * SIDE * 3).all(|i| {
                    let (channel, row, column) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
                    let column = if flip { SIDE - 1 - column } else { column };
                    let (y, x) = ((row + top).wrapping_sub(PADDING), (column + left).wrapping_sub(PADDING));
                    let expected = if y < SIDE && x < SIDE { image[(y * SIDE + x) * 3 + channel] } else { 0 };
                    (out[i] - f32::from(expected)).abs() < 1e-3
                })
            };
            let all = (0..=2 * PADDING).flat_map(|left| (0..=2 * PADDING).map(move |top| (left, top)));
            let found: Vec<_> = all
                .flat_map(|(left, top)| [(left, top, false), (left, top, true)])
                .filter(|&(left, top, flip)| matches(left, top, flip))
                .collect();
            assert_eq!(found.len(), 1, "image {index}");
            seen.insert(found[0]);
        }
        // 7 x 7 places, mirrored or not; 2000 draws leave out none.
        assert_eq!(seen.len(), 98);
    }

    #[test]
    fn other_sizes_are_resized() {
        let grey = vec![100; 5 * 5 * 3];
        let transform = plain(Augment::None);
        let mut out = vec![0.0; SIDE * SIDE * 3];
        transform.apply(&grey, 5, Draw { seed: 0, epoch: 0, index: 0 }, &mut out).unwrap();
        assert!(out.iter().all(|v| (v - 100.0).abs() < 1.5));
    }

    #[test]
    fn unusable_transforms_are_errors() {
        let bad = [
            Transform { size: 0, ..plain(Augment::None) },
            Transform { std: [0.2, 0.0, 0.2], ..plain(Augment::None) },
            plain(Augment::CropFlip { padding: SIDE + 1 }),
        ];
        for transform in bad {
            assert!(matches!(Prepared::new(&transform), Err(Error::Setting { .. })), "{transform:?}");
        }
    }
}
