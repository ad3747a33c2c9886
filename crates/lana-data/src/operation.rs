//! The operations of RandAugment and of colour jitter on bytes, equal to PIL's.
//!
//! What PIL rounds where is part of what a network was trained on: `cargo xtask parity --data` compares every operation with PIL
//! for fixed parameters. Formulas are those of Pillow's `ImageOps`, `ImageEnhance`, `Geometry.c`, `Blend.c` and `Convert.c`.

use crate::{
    augmentation::ColorJitter,
    auto_augment::RandAugment,
    picture::{Interpolation, Picture},
    random::Random,
};

/// A change of a picture that keeps its size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Stretches each channel to 0…255.
    AutoContrast,
    /// Makes the histogram of each channel even.
    Equalize,
    /// The negative.
    Invert,
    /// Turns around the middle, by so many degrees, anticlockwise.
    Rotate(f64),
    /// Keeps so many of the highest bits of each channel.
    Posterize(u32),
    /// Inverts what is at least the threshold.
    Solarize(u32),
    /// Adds to what is below 128.
    SolarizeAdd(u32),
    /// Saturation: 0 is grey, 1 changes nothing.
    Color(f32),
    /// Contrast: 0 is the mean grey, 1 changes nothing.
    Contrast(f32),
    /// Brightness: 0 is black, 1 changes nothing.
    Brightness(f32),
    /// Sharpness: 0 is smoothed, 1 changes nothing.
    Sharpness(f32),
    /// Columns move by so many times their row.
    ShearX(f64),
    /// Rows move by so many times their column.
    ShearY(f64),
    /// Moves left by a share of the width.
    TranslateX(f64),
    /// Moves up by a share of the height.
    TranslateY(f64),
    /// Turns hues by so many 256ths of the circle.
    Hue(u8),
}

/// The first 15 operations, in timm's order.
const CHOICES: u32 = 15;

impl Operation {
    /// Operation number `choice` of timm's list at a magnitude, as its `LEVEL_TO_ARG` has it.
    fn at(choice: u32, magnitude: f64, increasing: bool, random: &mut Random) -> Operation {
        let level = magnitude / 10.0;
        let mut signed = |value: f64| if random.unit64() > 0.5 { -value } else { value };
        let mut enhance = || match increasing {
            true => (1.0 + signed(level * 0.9)).max(0.1) as f32,
            false => (level * 1.8 + 0.1) as f32,
        };
        match choice {
            0 => Operation::AutoContrast,
            1 => Operation::Equalize,
            2 => Operation::Invert,
            3 => Operation::Rotate(signed(level * 30.0)),
            4 => {
                let bits = (level * 4.0) as u32;
                Operation::Posterize(if increasing { 4u32.saturating_sub(bits) } else { bits })
            }
            5 => {
                let threshold = ((level * 256.0) as u32).min(256);
                Operation::Solarize(if increasing { 256 - threshold } else { threshold })
            }
            6 => Operation::SolarizeAdd(((level * 110.0) as u32).min(128)),
            7 => Operation::Color(enhance()),
            8 => Operation::Contrast(enhance()),
            9 => Operation::Brightness(enhance()),
            10 => Operation::Sharpness(enhance()),
            11 => Operation::ShearX(signed(level * 0.3)),
            12 => Operation::ShearY(signed(level * 0.3)),
            13 => Operation::TranslateX(signed(level * 0.45)),
            _ => Operation::TranslateY(signed(level * 0.45)),
        }
    }

    /// Changes a picture. Geometric operations look up colours by `interpolation`, and take `fill` for what comes from outside.
    pub fn apply(self, picture: &mut Picture, fill: [u8; 3], interpolation: Interpolation) {
        let (width, height) = (picture.width as f64, picture.height as f64);
        let mut affine = |matrix| transform(picture, matrix, fill, interpolation);
        match self {
            Operation::Rotate(degrees) => {
                let degrees = degrees.rem_euclid(360.0);
                if degrees == 0.0 {
                    return;
                }
                let round = |value: f64| (value * 1e15).round_ties_even() / 1e15;
                let (sin, cos) = (-degrees.to_radians()).sin_cos();
                let (cos, sin) = (round(cos), round(sin));
                let (x, y) = (width / 2.0, height / 2.0);
                affine([cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y]);
            }
            Operation::ShearX(factor) => affine([1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Operation::ShearY(factor) => affine([1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Operation::TranslateX(share) => affine([1.0, 0.0, share * width, 0.0, 1.0, 0.0]),
            Operation::TranslateY(share) => affine([1.0, 0.0, 0.0, 0.0, 1.0, share * height]),
            Operation::AutoContrast => tables(picture, |counts| {
                let low = counts.iter().position(|&n| n > 0).unwrap_or(0);
                let high = counts.iter().rposition(|&n| n > 0).unwrap_or(0);
                if high <= low {
                    return std::array::from_fn(|value| value as u8);
                }
                let scale = 255.0 / (high - low) as f64;
                let offset = -(low as f64) * scale;
                std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
            }),
            Operation::Equalize => tables(picture, |counts| {
                let total: usize = counts.iter().sum();
                let last = counts.iter().rfind(|&&n| n > 0).copied().unwrap_or(0);
                let step = (total - last) / 255;
                if step == 0 {
                    return std::array::from_fn(|value| value as u8);
                }
                let mut sum = step / 2;
                std::array::from_fn(|value| {
                    let level = (sum / step).min(255) as u8;
                    sum += counts[value];
                    level
                })
            }),
            Operation::Invert => each(picture, |value| 255 - value),
            Operation::Posterize(bits) if bits < 8 => {
                each(picture, |value| value & !((1 << (8 - bits)) - 1) as u8)
            }
            Operation::Posterize(_) => {}
            Operation::Solarize(threshold) => {
                each(picture, |value| if u32::from(value) < threshold { value } else { 255 - value });
            }
            Operation::SolarizeAdd(add) => {
                each(
                    picture,
                    |value| if value < 128 { (u32::from(value) + add).min(255) as u8 } else { value },
                );
            }
            Operation::Brightness(factor) => each(picture, |value| blend(0, value, factor)),
            Operation::Contrast(factor) => {
                let sum: u64 = picture.pixels.chunks_exact(3).map(|pixel| u64::from(grey(pixel))).sum();
                let mean = (sum as f64 / (picture.width * picture.height).max(1) as f64 + 0.5) as u8;
                each(picture, |value| blend(mean, value, factor));
            }
            Operation::Color(factor) => {
                for pixel in picture.pixels.chunks_exact_mut(3) {
                    let grey = grey(pixel);
                    pixel.iter_mut().for_each(|value| *value = blend(grey, *value, factor));
                }
            }
            Operation::Sharpness(factor) => sharpen(picture, factor),
            Operation::Hue(turn) => {
                for pixel in picture.pixels.chunks_exact_mut(3) {
                    let [hue, saturation, value] = to_hsv([pixel[0], pixel[1], pixel[2]]);
                    pixel.copy_from_slice(&from_hsv([hue.wrapping_add(turn), saturation, value]));
                }
            }
        }
    }
}

impl RandAugment {
    /// Draws operations and applies them.
    pub(crate) fn apply(
        &self,
        picture: &mut Picture,
        fill: [u8; 3],
        interpolation: Option<Interpolation>,
        random: &mut Random,
    ) {
        // As in timm the operations are drawn before any is applied.
        let choices: Vec<u32> = (0..self.layers).map(|_| random.below(CHOICES)).collect();
        for choice in choices {
            if self.probability < 1.0 && random.unit64() > self.probability {
                continue;
            }
            let magnitude = match self.deviation {
                0.0 => self.magnitude,
                deviation if deviation > 100.0 => random.uniform(0.0, self.magnitude),
                deviation => self.magnitude + deviation * random.normal(),
            };
            let operation = Operation::at(choice, magnitude.clamp(0.0, self.most), self.increasing, random);
            let interpolation = interpolation.unwrap_or_else(|| random_interpolation(random));
            operation.apply(picture, fill, interpolation);
        }
    }
}

impl ColorJitter {
    /// Draws the factors and the order of the changes, and makes them.
    pub(crate) fn apply(&self, picture: &mut Picture, random: &mut Random) {
        let mut factor = |share: f64| random.uniform((1.0 - share).max(0.0), 1.0 + share) as f32;
        let factors = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let turn = random.uniform(-self.hue, self.hue);
        let mut order = [
            (self.brightness, Operation::Brightness(factors[0])),
            (self.contrast, Operation::Contrast(factors[1])),
            (self.saturation, Operation::Color(factors[2])),
            // Through a signed number, as torchvision: turns back wrap around.
            (self.hue, Operation::Hue((turn * 255.0) as i32 as u8)),
        ];
        random.draw_to_front(&mut order, 4);
        for (share, operation) in order {
            if share > 0.0 {
                operation.apply(picture, [0; 3], Interpolation::Bilinear);
            }
        }
    }
}

/// timm's `random`: one of both.
pub(crate) fn random_interpolation(random: &mut Random) -> Interpolation {
    if random.chance(0.5) { Interpolation::Bilinear } else { Interpolation::Bicubic }
}

/// Replaces every value.
fn each(picture: &mut Picture, change: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| change(value as u8));
    picture.pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Replaces every value by a table that depends on its channel's histogram.
fn tables(picture: &mut Picture, table: impl Fn(&[usize; 256]) -> [u8; 256]) {
    let mut counts = [[0; 256]; 3];
    for pixel in picture.pixels.chunks_exact(3) {
        (0..3).for_each(|channel| counts[channel][usize::from(pixel[channel])] += 1);
    }
    let tables = counts.map(|counts| table(&counts));
    for pixel in picture.pixels.chunks_exact_mut(3) {
        (0..3).for_each(|channel| pixel[channel] = tables[channel][usize::from(pixel[channel])]);
    }
}

/// ITU-R 601 luma in PIL's fixed point.
fn grey(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
}

/// PIL's `Image.blend`: cut off towards 0.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

/// Between the picture and what PIL's SMOOTH makes of it: the mean of nine, the middle five times. The border stays.
fn sharpen(picture: &mut Picture, factor: f32) {
    let (width, height) = (picture.width, picture.height);
    let old = picture.pixels.clone();
    let row = width * 3;
    for y in 1..height.saturating_sub(1) {
        for at in y * row + 3..((y + 1) * row).saturating_sub(3) {
            let line = |at: usize| u32::from(old[at - 3]) + u32::from(old[at]) + u32::from(old[at + 3]);
            let sum = line(at - row) + line(at) + line(at + row) + 4 * u32::from(old[at]);
            let smooth = ((2 * sum + 13) / 26) as u8;
            picture.pixels[at] = blend(smooth, old[at], factor);
        }
    }
}

/// Looks up each pixel at `(a x + b y + c, d x + e y + f)`, pixels at the middle of their squares.
fn transform(picture: &mut Picture, matrix: [f64; 6], fill: [u8; 3], interpolation: Interpolation) {
    let (width, height) = (picture.width, picture.height);
    let [a, b, c, d, e, f] = matrix;
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
            let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
            let inside = (0.0..width as f64).contains(&from_x) && (0.0..height as f64).contains(&from_y);
            pixels.extend(match (inside, interpolation) {
                (false, _) => fill,
                (true, Interpolation::Bilinear) => bilinear(picture, from_x - 0.5, from_y - 0.5),
                (true, Interpolation::Bicubic) => bicubic(picture, from_x - 0.5, from_y - 0.5),
            });
        }
    }
    picture.pixels = pixels;
}

/// Beyond the edge its pixels go on.
fn clamp(at: i64, side: usize) -> usize {
    at.clamp(0, side as i64 - 1) as usize
}

fn bilinear(picture: &Picture, x: f64, y: f64) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let columns = [0, 1].map(|step| clamp(left as i64 + step, picture.width) * 3);
    let rows = [0, 1].map(|step| clamp(top as i64 + step, picture.height) * picture.width * 3);
    std::array::from_fn(|channel| {
        let value = |row: usize, column: usize| f64::from(picture.pixels[row + column + channel]);
        let [above, below] = rows.map(|row| {
            let [left, right] = columns.map(|column| value(row, column));
            left + (right - left) * dx
        });
        (above + (below - above) * dy) as u8
    })
}

/// PIL's cubic (a = -1) for geometric transforms, another one than for resizing.
fn bicubic(picture: &Picture, x: f64, y: f64) -> [u8; 3] {
    let cubic = |v: [f64; 4], d: f64| {
        let p1 = v[1];
        let p2 = -v[0] + v[2];
        let p3 = 2.0 * (v[0] - v[1]) + v[2] - v[3];
        let p4 = -v[0] + v[1] - v[2] + v[3];
        p1 + d * (p2 + d * (p3 + d * p4))
    };
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let columns = [-1, 0, 1, 2].map(|step| clamp(left as i64 + step, picture.width) * 3);
    let rows = [-1, 0, 1, 2].map(|step| clamp(top as i64 + step, picture.height) * picture.width * 3);
    std::array::from_fn(|channel| {
        let lines = rows
            .map(|row| cubic(columns.map(|column| f64::from(picture.pixels[row + column + channel])), dx));
        // The cast cuts off at 0 and 255.
        cubic(lines, dy) as u8
    })
}

fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let saturation = range / f32::from(most);
    let [r, g, b] = [red, green, blue].map(|value| f32::from(most - value) / range);
    let sixths = if red == most {
        b - g
    } else if green == most {
        (2.0 + f64::from(r) - f64::from(b)) as f32
    } else {
        (4.0 + f64::from(g) - f64::from(r)) as f32
    };
    let hue = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let place = f64::from(f32::from(hue)) * 6.0 / 255.0;
    let sixth = place.floor();
    let f = f64::from((place - sixth) as f32);
    let s = f64::from((f64::from(saturation) / 255.0) as f32);
    let v = f64::from(value);
    let p = (v * (1.0 - s)).round() as u8;
    let q = (v * (1.0 - s * f)).round() as u8;
    let t = (v * (1.0 - s * (1.0 - f))).round() as u8;
    match sixth as u32 % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn picture() -> Picture {
        let pixels = (0..24 * 17 * 3).map(|i: usize| (i * 37 % 251) as u8).collect();
        Picture { width: 24, height: 17, pixels }
    }

    #[test]
    fn neutral_parameters_change_nothing() {
        for operation in [
            Operation::Rotate(0.0),
            Operation::Posterize(8),
            Operation::Solarize(256),
            Operation::SolarizeAdd(0),
            Operation::Color(1.0),
            Operation::Contrast(1.0),
            Operation::Brightness(1.0),
            Operation::Sharpness(1.0),
            Operation::ShearX(0.0),
            Operation::TranslateY(0.0),
        ] {
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let mut changed = picture();
                operation.apply(&mut changed, [9; 3], interpolation);
                assert_eq!(changed, picture(), "{operation:?}");
            }
        }
        let mut twice = picture();
        (0..2).for_each(|_| Operation::Invert.apply(&mut twice, [0; 3], Interpolation::Bilinear));
        assert_eq!(twice, picture());
    }

    #[test]
    fn translations_move_and_fill() {
        let mut moved = picture();
        Operation::TranslateX(0.25).apply(&mut moved, [1, 2, 3], Interpolation::Bilinear);
        let old = picture();
        assert_eq!(moved.pixels[..18 * 3], old.pixels[6 * 3..24 * 3]);
        assert_eq!(moved.pixels[18 * 3..19 * 3], [1, 2, 3]);
    }

    #[test]
    fn policies_change_pictures_but_not_their_size() {
        let policy: RandAugment = "rand-m9-n3-p1-mstd0.5-inc1".parse().unwrap();
        let mut distinct = std::collections::HashSet::new();
        for index in 0..200 {
            let mut changed = picture();
            policy.apply(&mut changed, [128; 3], None, &mut Random::new(Purpose::Augment, [0, 0, index]));
            assert_eq!(changed.pixels.len(), picture().pixels.len());
            distinct.insert(changed.pixels);
        }
        assert!(distinct.len() > 150, "{}", distinct.len());
    }
}
