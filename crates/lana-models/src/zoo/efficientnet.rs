//! EfficientNets (Tan & Le 2019): one network of MBConvs with squeeze-and-excitation, multiplied in width, depth and
//! resolution. Names, rounding and preprocessing are timm's; `tf_` are those whose weights come from TensorFlow.

use lana_graph::Activation;

use super::stages::{Blocks, Head, Network, Scale, Squeeze, ds, ir};
use super::{Model, Preprocessing};

/// Name, factor of the width, factor of the depth, resolution, share of the image that is kept, statistics.
type Row = (&'static str, f64, &'static [f64], usize, f32, Preprocessing);

const IMAGENET: Preprocessing = Preprocessing::IMAGENET;
const INCEPTION: Preprocessing = Preprocessing::INCEPTION;

#[rustfmt::skip]
const TABLE: [Row; 18] = [
    ("efficientnet_b0",    1.0, &[1.0], 224, 0.875, IMAGENET),
    ("efficientnet_b1",    1.0, &[1.1], 240, 0.9,   INCEPTION),
    ("efficientnet_b2",    1.1, &[1.2], 256, 0.875, IMAGENET),
    ("efficientnet_b3",    1.2, &[1.4], 288, 0.875, IMAGENET),
    ("efficientnet_b4",    1.4, &[1.8], 320, 0.875, IMAGENET),
    ("efficientnet_b5",    1.6, &[2.2], 448, 1.0,   IMAGENET),
    ("efficientnet_b6",    1.8, &[2.6], 528, 0.942, IMAGENET),
    ("efficientnet_b7",    2.0, &[3.1], 600, 0.949, IMAGENET),
    ("efficientnet_b8",    2.2, &[3.6], 672, 0.954, IMAGENET),
    ("tf_efficientnet_b0", 1.0, &[1.0], 224, 0.875, IMAGENET),
    ("tf_efficientnet_b1", 1.0, &[1.1], 240, 0.882, IMAGENET),
    ("tf_efficientnet_b2", 1.1, &[1.2], 260, 0.89,  IMAGENET),
    ("tf_efficientnet_b3", 1.2, &[1.4], 300, 0.904, IMAGENET),
    ("tf_efficientnet_b4", 1.4, &[1.8], 380, 0.922, IMAGENET),
    ("tf_efficientnet_b5", 1.6, &[2.2], 456, 0.934, IMAGENET),
    ("tf_efficientnet_b6", 1.8, &[2.6], 528, 0.942, IMAGENET),
    ("tf_efficientnet_b7", 2.0, &[3.1], 600, 0.949, IMAGENET),
    ("tf_efficientnet_b8", 2.2, &[3.6], 672, 0.954, INCEPTION),
];

const STAGES: &[&[Blocks]] = &[
    &[ds(1, 3, 1, 16).se(0.25)],
    &[ir(2, 3, 2, 6.0, 24).se(0.25)],
    &[ir(2, 5, 2, 6.0, 40).se(0.25)],
    &[ir(3, 3, 2, 6.0, 80).se(0.25)],
    &[ir(3, 5, 1, 6.0, 112).se(0.25)],
    &[ir(4, 5, 2, 6.0, 192).se(0.25)],
    &[ir(1, 3, 1, 6.0, 320).se(0.25)],
];

pub(super) fn models() -> Vec<Model> {
    let model = |(name, width, depth, resolution, crop, statistics): Row| {
        let scale = Scale { width, depth, ..Scale::NONE };
        let network = Network {
            stem: 32,
            stages: STAGES,
            scale,
            head: Head::ThenPool(scale.channels(1280)),
            activation: Activation::Silu,
            squeeze: Squeeze::OfInput,
            tensorflow: name.starts_with("tf_"),
        };
        Model {
            name: name.into(),
            family: "EfficientNet",
            source: "Tan & Le 2019; timm",
            resolution,
            num_classes: 1000,
            preprocessing: statistics.with_crop(crop),
            build: Box::new(move |name, size| network.build(name, size)),
        }
    };
    TABLE.map(model).into()
}
