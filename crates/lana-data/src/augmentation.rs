//! What may happen to training images, as options.
//!
//! Names, ranges and defaults of the parts are timm's, so that a recipe published for timm can be copied line by line. The
//! default of the whole is the recipe of CIFAR: a crop out of a padded border and a mirror image.

use serde::{Deserialize, Serialize};

use crate::{auto_augment::RandAugment, error::Error};

/// Random changes of training images, in the order in which they happen: crop, flip, [RandAugment](RandAugment) or colour
/// jitter, normalisation, erasing, mixup or cutmix.
///
/// ```
/// use lana_data::Augmentation;
///
/// let imagenet = Augmentation {
///     scale: Some([0.08, 1.0]),
///     auto_augment: Some("rand-m9-mstd0.5-inc1".parse().unwrap()),
///     reprob: 0.25,
///     mixup: 0.2,
///     ..Augmentation::default()
/// };
/// imagenet.validate().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Width in pixels of the black border around the image from which a crop of its size is taken, as is usual for CIFAR.
    /// Not used where `scale` is given.
    pub crop_padding: usize,
    /// The share of the image's area that a random resized crop takes, least and most; `[0.08, 1.0]` for ImageNet. Absent: no
    /// such crop, but the middle of the image as in evaluation, with `crop_padding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<[f64; 2]>,
    /// Width by height of that crop, least and most.
    pub ratio: [f64; 2],
    /// How the crop is resized: `random` draws bilinear or bicubic for each image, as timm does.
    pub interpolation: TrainInterpolation,
    /// Probability of a mirror image, left for right.
    pub hflip: f64,
    /// By what share brightness, contrast, saturation and (a fourth number, of the circle, at most 0.5) hue change: one number for
    /// the first three, or three or four. As in timm it rests where `auto_augment` is given.
    pub color_jitter: ColorJitter,
    /// RandAugment, in timm's words: `rand-m9-mstd0.5-inc1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_augment: Option<RandAugment>,
    /// Probability that a rectangle of the normalised image is erased.
    pub reprob: f64,
    /// What takes its place.
    pub remode: EraseMode,
    /// Rectangles to erase at most; their number is drawn.
    pub recount: usize,
    /// The parameter of the beta distribution from which mixup draws the share of each image; 0 for no mixup.
    pub mixup: f64,
    /// The same for cutmix; 0 for no cutmix.
    pub cutmix: f64,
    /// Probability that a batch is mixed at all.
    pub mixup_prob: f64,
    /// Where both are on: probability of cutmix instead of mixup.
    pub mixup_switch_prob: f64,
    /// Label smoothing: this share of each label is spread over all classes. The loss does it, the loader leaves labels
    /// alone.
    pub smoothing: f64,
    /// How many times in a row an epoch shows each of its images, augmented differently; it shows as many fewer different ones. 0
    /// and 1 for once.
    pub aug_repeats: usize,
}

impl Default for Augmentation {
    fn default() -> Self {
        Augmentation {
            crop_padding: 4,
            scale: None,
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            interpolation: TrainInterpolation::Random,
            hflip: 0.5,
            color_jitter: ColorJitter::default(),
            auto_augment: None,
            reprob: 0.0,
            remode: EraseMode::Const,
            recount: 1,
            mixup: 0.0,
            cutmix: 0.0,
            mixup_prob: 1.0,
            mixup_switch_prob: 0.5,
            smoothing: 0.0,
            aug_repeats: 0,
        }
    }
}

impl Augmentation {
    /// A random crop out of a black border of `crop_padding` pixels, and mirror images: the default, with another border.
    pub fn crop_flip(crop_padding: usize) -> Augmentation {
        Augmentation { crop_padding, ..Augmentation::default() }
    }

    /// Whether batches are mixed.
    pub fn mixes(&self) -> bool {
        (self.mixup > 0.0 || self.cutmix > 0.0) && self.mixup_prob > 0.0
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the name of the first field that cannot be, and what it may be.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |setting, value: String, may: &str| {
            Err(Error::Setting { setting, reason: format!("{value}; {may}") })
        };
        if let Some(scale) = self.scale
            && !(scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 1.0)
        {
            return wrong(
                "scale",
                format!("{scale:?}"),
                "give two shares of the area, the smaller first: [0.08, 1.0]",
            );
        }
        if !(self.ratio[0] > 0.0 && self.ratio[0] <= self.ratio[1] && self.ratio[1].is_finite()) {
            return wrong(
                "ratio",
                format!("{:?}", self.ratio),
                "give two numbers above 0, the smaller first: [0.75, 1.33]",
            );
        }
        for (setting, value) in [
            ("hflip", self.hflip),
            ("reprob", self.reprob),
            ("mixup_prob", self.mixup_prob),
            ("mixup_switch_prob", self.mixup_switch_prob),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(setting, value.to_string(), "it is a probability, from 0 to 1");
            }
        }
        let ColorJitter { brightness, contrast, saturation, hue } = self.color_jitter;
        if ![brightness, contrast, saturation].iter().all(|v| (0.0..=10.0).contains(v))
            || !(0.0..=0.5).contains(&hue)
        {
            return wrong(
                "color_jitter",
                format!("{:?}", self.color_jitter.to_array()),
                "give shares from 0 (0.4 is usual); the fourth, for hue, is at most 0.5",
            );
        }
        for (setting, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(0.0..=1000.0).contains(&value) {
                return wrong(
                    setting,
                    value.to_string(),
                    "it is the parameter of a beta distribution: 0 for none, 0.2 to 1",
                );
            }
        }
        if !(0.0..1.0).contains(&self.smoothing) {
            return wrong(
                "smoothing",
                self.smoothing.to_string(),
                "it is a share of the label, from 0 to less than 1",
            );
        }
        if !(1..=100).contains(&self.recount) {
            return wrong(
                "recount",
                self.recount.to_string(),
                "erase 1 to 100 rectangles, or none with reprob = 0",
            );
        }
        if self.aug_repeats > 100 {
            return wrong(
                "aug_repeats",
                self.aug_repeats.to_string(),
                "show each image at most 100 times (3 is usual)",
            );
        }
        Ok(())
    }
}

/// How training crops are resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainInterpolation {
    /// Bilinear or bicubic, drawn for each image.
    #[default]
    Random,
    /// Triangle filter.
    Bilinear,
    /// Catmull-Rom (a = -0.5).
    Bicubic,
}

/// What takes the place of an erased rectangle, in the normalised image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EraseMode {
    /// 0, the mean colour.
    #[default]
    Const,
    /// One random colour, of a standard normal distribution.
    Rand,
    /// A random colour for each pixel.
    Pixel,
}

/// torchvision's `ColorJitter`: factors are drawn from `1 - share` to `1 + share` (hue: turned by up to that share of the circle),
/// and the changes happen in random order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "JitterText", into = "JitterText")]
pub struct ColorJitter {
    /// Share by which brightness changes.
    pub brightness: f64,
    /// Share by which contrast changes.
    pub contrast: f64,
    /// Share by which saturation changes.
    pub saturation: f64,
    /// Share of the colour circle by which hues turn, at most 0.5.
    pub hue: f64,
}

impl ColorJitter {
    /// timm's one number: the same share of brightness, contrast and saturation, no hue.
    pub fn all(share: f64) -> ColorJitter {
        ColorJitter { brightness: share, contrast: share, saturation: share, hue: 0.0 }
    }

    fn to_array(self) -> [f64; 4] {
        [self.brightness, self.contrast, self.saturation, self.hue]
    }

    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        self.to_array() == [0.0; 4]
    }
}

/// A colour jitter as it is written: one number, three, or four.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JitterText {
    One(f64),
    Three([f64; 3]),
    Four([f64; 4]),
}

impl From<JitterText> for ColorJitter {
    fn from(text: JitterText) -> ColorJitter {
        let [brightness, contrast, saturation, hue] = match text {
            JitterText::One(share) => [share, share, share, 0.0],
            JitterText::Three([brightness, contrast, saturation]) => [brightness, contrast, saturation, 0.0],
            JitterText::Four(four) => four,
        };
        ColorJitter { brightness, contrast, saturation, hue }
    }
}

impl From<ColorJitter> for JitterText {
    fn from(jitter: ColorJitter) -> JitterText {
        match jitter.to_array() {
            [a, b, c, 0.0] if a == b && b == c => JitterText::One(a),
            [a, b, c, 0.0] => JitterText::Three([a, b, c]),
            four => JitterText::Four(four),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_by_name() {
        Augmentation::default().validate().unwrap();
        let plain = Augmentation::default;
        for (field, wrong) in [
            ("scale", Augmentation { scale: Some([0.0, 1.0]), ..plain() }),
            ("scale", Augmentation { scale: Some([0.5, 0.4]), ..plain() }),
            ("ratio", Augmentation { ratio: [2.0, 1.0], ..plain() }),
            ("hflip", Augmentation { hflip: 1.5, ..plain() }),
            ("reprob", Augmentation { reprob: f64::NAN, ..plain() }),
            ("recount", Augmentation { recount: 0, ..plain() }),
            ("color_jitter", Augmentation { color_jitter: ColorJitter::all(-0.1), ..plain() }),
            ("mixup", Augmentation { mixup: -1.0, ..plain() }),
            ("cutmix", Augmentation { cutmix: f64::INFINITY, ..plain() }),
            ("mixup_prob", Augmentation { mixup_prob: 2.0, ..plain() }),
            ("mixup_switch_prob", Augmentation { mixup_switch_prob: -0.5, ..plain() }),
            ("smoothing", Augmentation { smoothing: 1.0, ..plain() }),
            ("aug_repeats", Augmentation { aug_repeats: 1000, ..plain() }),
        ] {
            let message = wrong.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
    }
}
