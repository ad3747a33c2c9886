use lana::{Channels, Filter, PreprocessingConfig};

/// How images become a network's input, where that is not as the zoo says.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Preprocessing")]
pub(crate) struct Preprocessing {
    /// Mean of red, green and blue, on the scale of --value-range [default: what the network says, else ImageNet's]
    #[arg(long, value_name = "R,G,B", value_parser = triple, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,

    /// Standard deviation, likewise
    #[arg(long, value_name = "R,G,B", value_parser = positive_triple)]
    std: Option<[f32; 3]>,

    /// Share of an image's shorter side that is kept [default: what the network says; for an ONNX file 0.875 from 128 pixels on, else
    /// 1]
    #[arg(long, value_name = "SHARE")]
    crop: Option<f32>,

    /// Filter by which images are resized [default: what the network says, else bicubic]
    #[arg(long, value_parser = ["bilinear", "bicubic"])]
    interpolation: Option<String>,

    /// Order of the channels: bgr for networks that were trained with OpenCV [default: rgb]
    #[arg(long, value_parser = ["rgb", "bgr"])]
    channels: Option<String>,

    /// What the brightest pixel is, before mean and deviation: 1 or 255. Without --mean and --std pixels are then taken as they are
    #[arg(long, value_name = "LARGEST")]
    value_range: Option<f32>,
}

impl Preprocessing {
    /// What is given, over a configuration.
    pub(crate) fn over(&self, config: PreprocessingConfig) -> PreprocessingConfig {
        let interpolation = self.interpolation.as_deref().map(|name| match name {
            "bilinear" => Filter::Bilinear,
            _ => Filter::Bicubic,
        });
        let channels = self.channels.as_deref().map(|order| match order {
            "bgr" => Channels::Bgr,
            _ => Channels::Rgb,
        });
        PreprocessingConfig {
            mean: self.mean.or(config.mean),
            std: self.std.or(config.std),
            crop: self.crop.or(config.crop),
            interpolation: interpolation.or(config.interpolation),
            channels: channels.or(config.channels),
            range: self.value_range.or(config.range),
        }
    }
}

/// Three numbers between commas.
fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|part| part.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "three numbers between commas, such as 0.485,0.456,0.406".into())
}

/// Three positive numbers between commas.
fn positive_triple(text: &str) -> Result<[f32; 3], String> {
    match triple(text)? {
        values if values.iter().all(|&v| v > 0.0) => Ok(values),
        _ => Err("all three must be greater than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples() {
        assert_eq!(triple("0.5, 0,-1"), Ok([0.5, 0.0, -1.0]));
        for text in ["", "1,2", "1,2,3,4", "1,2,x", "1,2,nan", "1,,2"] {
            assert!(triple(text).is_err(), "{text}");
        }
        assert!(positive_triple("1,0,1").is_err());
        assert_eq!(positive_triple("1,2,3"), Ok([1.0, 2.0, 3.0]));
    }

    #[test]
    fn what_is_given_wins() {
        let config =
            PreprocessingConfig { crop: Some(0.9), range: Some(1.0), ..PreprocessingConfig::default() };
        let given = Preprocessing {
            value_range: Some(255.0),
            channels: Some("bgr".into()),
            interpolation: Some("bilinear".into()),
            ..Preprocessing::default()
        };
        let expected = PreprocessingConfig {
            crop: Some(0.9),
            range: Some(255.0),
            channels: Some(Channels::Bgr),
            interpolation: Some(Filter::Bilinear),
            ..PreprocessingConfig::default()
        };
        assert_eq!(given.over(config), expected);
    }
}
