//! How images become a network's input, where that is not what the zoo says or nobody has said it.

use lana_models::zoo::{Interpolation, Preprocessing};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// `[preprocessing]`: what is given goes over the zoo's entry; for an ONNX file over ImageNet's statistics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessingConfig {
    /// Mean of red, green, blue, on the scale of `range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
    /// Share of an image's shorter side that is kept, from the middle: timm's `crop_pct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<f32>,
    /// The filter by which images are resized: `bilinear` or `bicubic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Filter>,
    /// Order of the channels: `rgb`, or `bgr` for networks that were trained with OpenCV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// What the brightest pixel is before mean and deviation: 1, or 255 for networks that take bytes as they are. With it, and without
    /// them, pixels are taken from 0 to `range` as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<f32>,
}

/// A filter by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The weighted mean of the four pixels around.
    Bilinear,
    /// Cubic convolution over sixteen.
    Bicubic,
}

/// An order of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

impl From<Filter> for Interpolation {
    fn from(filter: Filter) -> Self {
        match filter {
            Filter::Bilinear => Interpolation::Bilinear,
            Filter::Bicubic => Interpolation::Bicubic,
        }
    }
}

impl PreprocessingConfig {
    /// Checks every key; errors name it.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |key: &str, value: String, hint: &str| {
            Err(Error::input(format!("`preprocessing.{key}` is {value}"), hint.to_string()))
        };
        if let Some(mean) = self.mean.filter(|mean| mean.iter().any(|v| !v.is_finite())) {
            return wrong("mean", format!("{mean:?}"), "three finite numbers, such as [0.485, 0.456, 0.406]");
        }
        if let Some(std) = self.std.filter(|std| std.iter().any(|v| !(v.is_finite() && *v > 0.0))) {
            return wrong("std", format!("{std:?}"), "three positive numbers, such as [0.229, 0.224, 0.225]");
        }
        if let Some(crop) = self.crop.filter(|crop| !(*crop > 0.0 && *crop <= 1.0)) {
            return wrong("crop", crop.to_string(), "a share of the shorter side: more than 0, at most 1");
        }
        if let Some(range) = self.range.filter(|range| !(range.is_finite() && *range > 0.0)) {
            return wrong("range", range.to_string(), "what the brightest pixel is: 1 or 255");
        }
        Ok(())
    }

    /// What is given, over what holds otherwise.
    pub(crate) fn over(&self, own: Preprocessing) -> Preprocessing {
        let (mean, std) = match self.range {
            // As they are: the range alone says what comes out.
            Some(range) => (
                self.mean.map_or([0.0; 3], |m| m.map(|v| v / range)),
                self.std.unwrap_or([1.0; 3]).map(|v| v / range),
            ),
            None => (self.mean.unwrap_or(own.mean), self.std.unwrap_or(own.std)),
        };
        Preprocessing {
            mean,
            std,
            crop: self.crop.unwrap_or(own.crop),
            interpolation: self.interpolation.map_or(own.interpolation, Interpolation::from),
            bgr: self.channels.map_or(own.bgr, |channels| channels == Channels::Bgr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_over_what_is_known() {
        let own = Preprocessing::IMAGENET;
        assert_eq!(PreprocessingConfig::default().over(own), own);
        let given: PreprocessingConfig =
            toml::from_str("crop = 0.9\ninterpolation = \"bilinear\"\nchannels = \"bgr\"").unwrap();
        let expected = Preprocessing { crop: 0.9, interpolation: Interpolation::Bilinear, bgr: true, ..own };
        assert_eq!(given.over(own), expected);
        // Bytes as they are, and bytes less a mean: (x - 104) = (x / 255 - 104 / 255) / (1 / 255).
        let bytes = PreprocessingConfig { range: Some(255.0), ..PreprocessingConfig::default() };
        assert_eq!((bytes.over(own).mean, bytes.over(own).std), ([0.0; 3], [1.0 / 255.0; 3]));
        let caffe = PreprocessingConfig { mean: Some([104.0, 117.0, 123.0]), ..bytes };
        assert_eq!(caffe.over(own).mean[0], 104.0 / 255.0);
        assert_eq!(caffe.over(own).std, [1.0 / 255.0; 3]);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, key) in [
            ("mean = [0.5, 0.5, inf]", "mean"),
            ("std = [0.2, 0.0, 0.2]", "std"),
            ("crop = 1.5", "crop"),
            ("range = -1", "range"),
        ] {
            let given: PreprocessingConfig = toml::from_str(text).unwrap();
            let error = given.validate().unwrap_err();
            assert!(error.to_string().contains(&format!("`preprocessing.{key}`")), "{error}");
        }
        assert!(toml::from_str::<PreprocessingConfig>("channels = \"gbr\"").is_err());
    }
}
