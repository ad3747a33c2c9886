//! From a picture to the numbers a network sees.

use std::borrow::Cow;

use crate::{
    augmentation::{Augmentation, EraseMode, TrainInterpolation},
    error::Error,
    operation::random_interpolation,
    picture::{Area, Interpolation, Picture},
    random::{Purpose, Random},
};

/// What happens to each image between the data set and the network.
///
/// The result is `(x / 255 - mean) / std` per channel, as channels x height x width (CHW) `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Width and height of the result in pixels.
    pub size: usize,
    /// The share of the shorter side that is kept, from the middle: timm's `crop_pct`, 0.875 for many ImageNet
    /// networks. 1 keeps the largest square.
    pub crop: f32,
    /// The filter for images of another size.
    pub interpolation: Interpolation,
    /// Mean of red, green, blue on the scale 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue on the scale 0..1.
    pub std: [f32; 3],
    /// Whether blue comes first in the result, red last; `mean` and `std` are red's first all the same.
    pub bgr: bool,
    /// Random changes, for training; `None` for evaluation.
    pub augmentation: Option<Augmentation>,
}

/// Where the random numbers of an augmentation come from: the result is a function of these alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The index of the image in its data set.
    pub index: u32,
    /// Which of its showings in this epoch it is, from 0.
    pub repeat: u32,
}

impl Transform {
    /// ImageNet's mean, used by most published networks (and by many CIFAR ones).
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// ImageNet's standard deviation.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// No augmentation, the largest square, bicubic, ImageNet's mean and standard deviation.
    pub fn evaluation(size: usize) -> Transform {
        let (mean, std) = (Transform::IMAGENET_MEAN, Transform::IMAGENET_STD);
        let interpolation = Interpolation::Bicubic;
        Transform { size, crop: 1.0, interpolation, mean, std, bgr: false, augmentation: None }
    }

    /// The same with augmentation.
    pub fn with_augmentation(self, augmentation: Augmentation) -> Transform {
        Transform { augmentation: Some(augmentation), ..self }
    }

    /// Transforms one image into `out`: 3 x size x size values (CHW).
    ///
    /// # Errors
    ///
    /// If a length does not fit, or the transform is not usable (size 0, a standard deviation of 0).
    pub fn apply(&self, picture: &Picture, draw: Draw, out: &mut [f32]) -> Result<(), Error> {
        let wrong = |setting, found: usize, needed: usize| {
            let reason = format!("{found} values where {needed} belong");
            Err(Error::Setting { setting, reason })
        };
        let needed = picture.width * picture.height * 3;
        if picture.pixels.len() != needed || needed == 0 {
            return wrong("picture", picture.pixels.len(), needed.max(3));
        }
        if out.len() != self.size * self.size * 3 {
            return wrong("out", out.len(), self.size * self.size * 3);
        }
        let prepared = Prepared::new(self)?;
        prepared.apply(picture, draw, out).map_err(|reason| Error::Setting { setting: "picture", reason })
    }
}

/// A transform with its arithmetic done: 256 results per channel.
pub(crate) struct Prepared {
    transform: Transform,
    values: [[f32; 256]; 3],
    /// The mean colour, for what geometric operations bring in from outside.
    fill: [u8; 3],
}

impl Prepared {
    pub(crate) fn new(transform: &Transform) -> Result<Prepared, Error> {
        let Transform { size, crop, mean, std, augmentation, .. } = transform;
        let wrong = |setting, reason: String| Err(Error::Setting { setting, reason });
        if !(1..=4096).contains(size) {
            return wrong("size", format!("{size} pixels; use the input size of the network, 1 to 4096"));
        }
        if !(*crop > 0.0 && *crop <= 1.0) {
            let reason = format!("{crop} is no share of the shorter side; use more than 0, at most 1");
            return wrong("crop", reason);
        }
        if !std.iter().all(|v| v.is_finite() && *v > 0.0) || !mean.iter().all(|v| v.is_finite()) {
            let reason = format!("mean {mean:?}, std {std:?}; each std must be finite and above 0");
            return wrong("normalisation", reason);
        }
        if let Some(augmentation) = augmentation {
            augmentation.validate()?;
            let padding = augmentation.crop_padding;
            if augmentation.scale.is_none() && padding > *size {
                return wrong(
                    "crop_padding",
                    format!("{padding} pixels around {size}; use at most the size"),
                );
            }
        }
        let mut values = [[0.0; 256]; 3];
        for (channel, row) in values.iter_mut().enumerate() {
            for (byte, value) in row.iter_mut().enumerate() {
                *value = (byte as f32 / 255.0 - mean[channel]) / std[channel];
            }
        }
        let fill = mean.map(|mean| (255.0 * mean).round_ties_even() as u8);
        Ok(Prepared { transform: transform.clone(), values, fill })
    }

    /// The number of values of one image.
    pub(crate) fn values(&self) -> usize {
        3 * self.transform.size * self.transform.size
    }

    pub(crate) fn augmentation(&self) -> Option<&Augmentation> {
        self.transform.augmentation.as_ref()
    }

    /// The error is a reason.
    pub(crate) fn apply(&self, picture: &Picture, draw: Draw, out: &mut [f32]) -> Result<(), String> {
        let Transform { size, crop, interpolation, .. } = self.transform;
        let Some(augmentation) = &self.transform.augmentation else {
            let square = picture.center_square(size, crop, interpolation)?;
            self.normalise(&square, out);
            return Ok(());
        };
        let place = u64::from(draw.repeat) << 32 | u64::from(draw.index);
        let mut random = Random::new(Purpose::Augment, [draw.seed, draw.epoch, place]);
        let fixed = match augmentation.interpolation {
            TrainInterpolation::Random => None,
            TrainInterpolation::Bilinear => Some(Interpolation::Bilinear),
            TrainInterpolation::Bicubic => Some(Interpolation::Bicubic),
        };
        let mut picture = match augmentation.scale {
            Some(scale) => {
                let area = crop_area(picture, scale, augmentation.ratio, &mut random);
                let filter = fixed.unwrap_or_else(|| random_interpolation(&mut random));
                picture.resized_crop(area, size, filter)?
            }
            None => {
                let square = picture.center_square(size, crop, interpolation)?;
                padded_crop(square, augmentation.crop_padding, &mut random)
            }
        };
        if random.chance(augmentation.hflip as f32) {
            flip(&mut picture);
        }
        match &augmentation.auto_augment {
            Some(policy) => policy.apply(&mut picture, self.fill, fixed, &mut random),
            None if !augmentation.color_jitter.is_none() => {
                augmentation.color_jitter.apply(&mut picture, &mut random)
            }
            None => {}
        }
        self.normalise(&picture, out);
        if augmentation.reprob > 0.0 && random.unit64() < augmentation.reprob {
            erase(out, size, augmentation, &mut random);
        }
        Ok(())
    }

    fn normalise(&self, picture: &Picture, out: &mut [f32]) {
        let plane = out.len() / 3;
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let (red, blue) = if self.transform.bgr { (blue, red) } else { (red, blue) };
        let [reds, greens, blues] = &self.values;
        for (((pixel, red), green), blue) in picture.pixels.chunks_exact(3).zip(red).zip(green).zip(blue) {
            *red = reds[usize::from(pixel[0])];
            *green = greens[usize::from(pixel[1])];
            *blue = blues[usize::from(pixel[2])];
        }
    }
}

/// Draws the part of a picture for a random resized crop: torchvision's `RandomResizedCrop`.
fn crop_area(picture: &Picture, scale: [f64; 2], ratio: [f64; 2], random: &mut Random) -> Area {
    let (width, height) = (picture.width, picture.height);
    let log_ratio = ratio.map(f64::ln);
    for _ in 0..10 {
        let area = random.uniform(scale[0], scale[1]) * (width * height) as f64;
        let ratio = random.uniform(log_ratio[0], log_ratio[1]).exp();
        let wide = (area * ratio).sqrt().round_ties_even() as usize;
        let high = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&wide) && (1..=height).contains(&high) {
            let top = random.below((height - high) as u32 + 1) as usize;
            let left = random.below((width - wide) as u32 + 1) as usize;
            return Area { left, top, width: wide, height: high };
        }
    }
    // The largest part of an allowed shape, from the middle.
    let shape = width as f64 / height as f64;
    let bounded = |side: f64, most: usize| (side.round_ties_even() as usize).clamp(1, most);
    let (wide, high) = if shape < ratio[0] {
        (width, bounded(width as f64 / ratio[0], height))
    } else if shape > ratio[1] {
        (bounded(height as f64 * ratio[1], width), height)
    } else {
        (width, height)
    };
    Area { left: (width - wide) / 2, top: (height - high) / 2, width: wide, height: high }
}

/// torchvision's `RandomCrop(size, padding)`: a part of the square's size out of a black border around it.
fn padded_crop(square: Cow<'_, Picture>, padding: usize, random: &mut Random) -> Picture {
    let places = 2 * padding as u32 + 1;
    let (left, top) = (random.below(places) as usize, random.below(places) as usize);
    if (left, top) == (padding, padding) {
        return square.into_owned();
    }
    let size = square.width;
    let mut pixels = vec![0; square.pixels.len()];
    // Columns of the result that come from the image; the others are border.
    let (first, last) = (padding.saturating_sub(left), (size + padding - left).min(size));
    for row in 0..size {
        // Row of the image; rows before 0 wrap around to huge numbers.
        let source = (row + top).wrapping_sub(padding);
        if source < size && first < last {
            let from = (source * size + first + left - padding) * 3;
            let count = (last - first) * 3;
            pixels[(row * size + first) * 3..][..count].copy_from_slice(&square.pixels[from..from + count]);
        }
    }
    Picture { width: size, height: size, pixels }
}

/// Left for right.
fn flip(picture: &mut Picture) {
    for row in picture.pixels.chunks_exact_mut(picture.width * 3) {
        let (mut left, mut right) = (0, row.len() - 3);
        while left < right {
            (0..3).for_each(|channel| row.swap(left + channel, right + channel));
            left += 3;
            right -= 3;
        }
    }
}

/// Random erasing (Zhong et al., 2017) of normalised values, as timm does it.
fn erase(out: &mut [f32], size: usize, augmentation: &Augmentation, random: &mut Random) {
    let count = 1 + random.below(augmentation.recount as u32);
    let shape = (0.3_f64.ln(), (1.0 / 0.3_f64).ln());
    for _ in 0..count {
        for _ in 0..10 {
            let area = random.uniform(0.02, 1.0 / 3.0) * (size * size) as f64 / f64::from(count);
            let ratio = random.uniform(shape.0, shape.1).exp();
            let high = (area * ratio).sqrt().round_ties_even() as usize;
            let wide = (area / ratio).sqrt().round_ties_even() as usize;
            if wide >= size || high >= size {
                continue;
            }
            let top = random.below((size - high) as u32 + 1) as usize;
            let left = random.below((size - wide) as u32 + 1) as usize;
            for plane in out.chunks_exact_mut(size * size) {
                let colour = match augmentation.remode {
                    EraseMode::Rand => random.normal() as f32,
                    _ => 0.0,
                };
                for row in plane.chunks_exact_mut(size).skip(top).take(high) {
                    match augmentation.remode {
                        EraseMode::Pixel => row[left..left + wide].fill_with(|| random.normal() as f32),
                        _ => row[left..left + wide].fill(colour),
                    }
                }
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augmentation::ColorJitter;

    const SIDE: usize = 8;

    /// Every pixel differs, none is 0.
    fn image() -> Picture {
        let pixels = (0..SIDE * SIDE * 3).map(|i| i as u8 + 1).collect();
        Picture { width: SIDE, height: SIDE, pixels }
    }

    fn plain(augmentation: Option<Augmentation>) -> Transform {
        let (mean, std) = ([0.0; 3], [1.0 / 255.0; 3]);
        Transform { mean, std, augmentation, ..Transform::evaluation(SIDE) }
    }

    fn run(transform: &Transform, draw: Draw) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3 * transform.size * transform.size];
        transform.apply(&image(), draw, &mut out).unwrap();
        out
    }

    #[test]
    fn evaluation_normalises_and_reorders() {
        let transform = Transform::evaluation(SIDE);
        let out = run(&transform, Draw::default());
        for (i, pixel) in image().pixels.chunks_exact(3).enumerate() {
            for c in 0..3 {
                let expected = (f32::from(pixel[c]) / 255.0 - transform.mean[c]) / transform.std[c];
                assert_eq!(out[c * SIDE * SIDE + i], expected);
            }
        }
    }

    #[test]
    fn blue_may_come_first() {
        let [rgb, bgr] =
            [false, true].map(|bgr| run(&Transform { bgr, ..Transform::evaluation(SIDE) }, Draw::default()));
        let plane = SIDE * SIDE;
        for c in 0..3 {
            assert_eq!(rgb[c * plane..(c + 1) * plane], bgr[(2 - c) * plane..(3 - c) * plane]);
        }
    }

    #[test]
    fn crops_are_shifts_with_a_black_border() {
        // Undoes each augmentation by comparing with all it could have been, written the slow way.
        const PADDING: usize = 3;
        let transform = plain(Some(Augmentation::crop_flip(PADDING)));
        let image = image().pixels;
        let mut seen = std::collections::HashSet::new();
        for index in 0..2000 {
            let out = run(&transform, Draw { seed: 5, epoch: 1, index, repeat: 0 });
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
        let grey = Picture { width: 5, height: 7, pixels: vec![100; 5 * 7 * 3] };
        let transform = plain(None);
        let mut out = vec![0.0; SIDE * SIDE * 3];
        transform.apply(&grey, Draw::default(), &mut out).unwrap();
        assert!(out.iter().all(|v| (v - 100.0).abs() < 1.5));
    }

    #[test]
    fn unusable_transforms_are_errors() {
        let bad = [
            Transform { size: 0, ..plain(None) },
            Transform { std: [0.2, 0.0, 0.2], ..plain(None) },
            plain(Some(Augmentation::crop_flip(SIDE + 1))),
            Transform { crop: 0.0, ..plain(None) },
            plain(Some(Augmentation { hflip: 2.0, ..Augmentation::default() })),
        ];
        for transform in bad {
            assert!(matches!(Prepared::new(&transform), Err(Error::Setting { .. })), "{transform:?}");
        }
    }

    #[test]
    fn crops_are_of_the_scale_and_ratio_asked_for() {
        let picture = Picture { width: 90, height: 60, pixels: vec![0; 90 * 60 * 3] };
        for index in 0..500 {
            let mut random = Random::new(Purpose::Augment, [3, 0, index]);
            let area = crop_area(&picture, [0.2, 0.5], [0.75, 4.0 / 3.0], &mut random);
            assert!(area.left + area.width <= 90 && area.top + area.height <= 60);
            let share = (area.width * area.height) as f64 / 5400.0;
            let ratio = area.width as f64 / area.height as f64;
            assert!((0.18..0.52).contains(&share) && (0.7..1.42).contains(&ratio), "{area:?}");
        }
        // No part of a strip has that shape but the one in the middle.
        let strip = Picture { width: 200, height: 10, pixels: vec![0; 6000] };
        let area =
            crop_area(&strip, [0.9, 1.0], [0.75, 4.0 / 3.0], &mut Random::new(Purpose::Augment, [0; 3]));
        assert_eq!(area, Area { left: 93, top: 0, width: 13, height: 10 });
    }

    #[test]
    fn erasing_takes_rectangles_of_the_area_asked_for() {
        for remode in [EraseMode::Const, EraseMode::Rand, EraseMode::Pixel] {
            let augmentation = Augmentation { reprob: 1.0, remode, ..Augmentation::default() };
            for index in 0..100 {
                let mut out = vec![9.0; 3 * 40 * 40];
                erase(&mut out, 40, &augmentation, &mut Random::new(Purpose::Augment, [0, 0, index]));
                let erased = out[..1600].iter().filter(|&&v| v != 9.0).count();
                assert!((20..560).contains(&erased), "{erased}");
            }
        }
    }

    #[test]
    fn every_option_together_is_a_function_of_the_draw() {
        let all = Augmentation {
            scale: Some([0.3, 1.0]),
            auto_augment: "rand-m9-mstd0.5-inc1".parse().ok(),
            reprob: 0.5,
            remode: EraseMode::Pixel,
            ..Augmentation::default()
        };
        let jitter = Augmentation {
            color_jitter: ColorJitter { hue: 0.1, ..ColorJitter::all(0.4) },
            ..Augmentation::default()
        };
        for augmentation in [all, jitter] {
            let transform = plain(Some(augmentation));
            let at = |epoch, repeat| run(&transform, Draw { seed: 1, epoch, index: 7, repeat });
            assert_eq!(at(2, 1), at(2, 1));
            assert!((0..8).any(|epoch| at(epoch, 0) != at(epoch, 1)));
        }
    }
}
