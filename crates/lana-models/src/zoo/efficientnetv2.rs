//! EfficientNetV2s (Tan & Le 2021): fused MBConvs first, MBConvs with squeeze-and-excitation later, SiLU throughout.
//! Names, rounding and preprocessing are timm's: `tf_` are those whose weights come from TensorFlow, `rw` those of timm's
//! author.

use lana_graph::Activation;

use super::stages::{Blocks, Head, Network, Scale, Squeeze, cn, er, ir};
use super::{Model, Preprocessing};

/// One member of the family.
struct Description {
    name: &'static str,
    resolution: usize,
    num_classes: usize,
    preprocessing: Preprocessing,
    /// Channels of the stem.
    stem: usize,
    stages: &'static [&'static [Blocks]],
    /// Channels of the 1×1 convolution before pooling, to be multiplied as the others.
    head: usize,
    scale: Scale,
}

/// The demo's teacher, and for comparison two smaller ones of the same stages: small enough to be trained in about a minute on two cores, hence 16×16 pixels from the stem on,
/// yet with enough layers and width that much of it can be saved.
const NANO: &[&[Blocks]] = &[
    &[er(2, 3, 1, 2.0, 24)],
    &[er(3, 3, 2, 4.0, 40)],
    &[ir(3, 3, 1, 4.0, 64).se(0.25)],
    &[ir(3, 3, 2, 4.0, 96).se(0.25)],
];

/// B0 to B3, which are EfficientNets of the first version rebuilt.
const BASE: &[&[Blocks]] = &[
    &[cn(1, 3, 1, 16)],
    &[er(2, 3, 2, 4.0, 32)],
    &[er(2, 3, 2, 4.0, 48)],
    &[ir(3, 3, 2, 4.0, 96).se(0.25)],
    &[ir(5, 3, 1, 6.0, 112).se(0.25)],
    &[ir(8, 3, 2, 6.0, 192).se(0.25)],
];

const SMALL: &[&[Blocks]] = &[
    &[cn(2, 3, 1, 24)],
    &[er(4, 3, 2, 4.0, 48)],
    &[er(4, 3, 2, 4.0, 64)],
    &[ir(6, 3, 2, 4.0, 128).se(0.25)],
    &[ir(9, 3, 1, 6.0, 160).se(0.25)],
    &[ir(15, 3, 2, 6.0, 256).se(0.25)],
];

/// The small one as its paper draws it, made before the official one was published.
const SMALL_RW: &[&[Blocks]] = &[
    &[er(2, 3, 1, 1.0, 24)],
    &[er(4, 3, 2, 4.0, 48)],
    &[er(4, 3, 2, 4.0, 64)],
    &[ir(6, 3, 2, 4.0, 128).se(0.25)],
    &[ir(9, 3, 1, 6.0, 160).se(0.25)],
    &[ir(15, 3, 2, 6.0, 272).se(0.25)],
];

const MEDIUM: &[&[Blocks]] = &[
    &[cn(3, 3, 1, 24)],
    &[er(5, 3, 2, 4.0, 48)],
    &[er(5, 3, 2, 4.0, 80)],
    &[ir(7, 3, 2, 4.0, 160).se(0.25)],
    &[ir(14, 3, 1, 6.0, 176).se(0.25)],
    &[ir(18, 3, 2, 6.0, 304).se(0.25)],
    &[ir(5, 3, 1, 6.0, 512).se(0.25)],
];

const LARGE: &[&[Blocks]] = &[
    &[cn(4, 3, 1, 32)],
    &[er(7, 3, 2, 4.0, 64)],
    &[er(7, 3, 2, 4.0, 96)],
    &[ir(10, 3, 2, 4.0, 192).se(0.25)],
    &[ir(19, 3, 1, 6.0, 224).se(0.25)],
    &[ir(25, 3, 2, 6.0, 384).se(0.25)],
    &[ir(7, 3, 1, 6.0, 640).se(0.25)],
];

const fn member(
    name: &'static str,
    (resolution, preprocessing): (usize, Preprocessing),
    stem: usize,
    stages: &'static [&'static [Blocks]],
    head: usize,
    scale: Scale,
) -> Description {
    Description { name, resolution, num_classes: 1000, preprocessing, stem, stages, head, scale }
}

/// Width and depth of TensorFlow's small ones, which round channels to the nearest.
const fn base(width: f64, depth: &'static [f64]) -> Scale {
    Scale { width, depth, least: 0.0 }
}

const NONE: Scale = Scale::NONE;
const IMAGENET: Preprocessing = Preprocessing::IMAGENET;
const INCEPTION: Preprocessing = Preprocessing::INCEPTION;

#[rustfmt::skip]
const TABLE: [Description; 16] = [
    Description { num_classes: 10, ..member("effnetv2_nano_cifar",  (32, IMAGENET), 24, NANO, 256, NONE) },
    Description { num_classes: 10, ..member("effnetv2_pico_cifar",  (32, IMAGENET), 24, NANO, 256, Scale { width: 0.8, depth: &[0.6], ..NONE }) },
    Description { num_classes: 10, ..member("effnetv2_femto_cifar", (32, IMAGENET), 24, NANO, 256, Scale { width: 0.6, depth: &[0.33], ..NONE }) },
    member("efficientnetv2_s",     (288, IMAGENET),  24, SMALL,  1280, NONE),
    member("efficientnetv2_m",     (320, IMAGENET),  24, MEDIUM, 1280, NONE),
    member("efficientnetv2_l",     (384, IMAGENET),  32, LARGE,  1280, NONE),
    member("efficientnetv2_rw_t",  (224, IMAGENET),  24, SMALL,  1280, Scale { width: 0.8, depth: &[0.9], ..NONE }),
    member("efficientnetv2_rw_s",  (288, IMAGENET),  24, SMALL_RW, 1792, NONE),
    member("efficientnetv2_rw_m",  (320, IMAGENET),  24, SMALL_RW, 1792, Scale { width: 1.2, depth: &[1.2, 1.2, 1.2, 1.2, 1.6], ..NONE }),
    member("tf_efficientnetv2_b0", (192, IMAGENET.with_crop(0.875)), 32, BASE, 1280, base(1.0, &[1.0])),
    member("tf_efficientnetv2_b1", (192, IMAGENET.with_crop(0.882)), 32, BASE, 1280, base(1.0, &[1.1])),
    member("tf_efficientnetv2_b2", (208, IMAGENET.with_crop(0.89)),  32, BASE, 1280, base(1.1, &[1.2])),
    member("tf_efficientnetv2_b3", (240, INCEPTION.with_crop(0.9)),  32, BASE, 1280, base(1.2, &[1.4])),
    member("tf_efficientnetv2_s",  (300, INCEPTION), 24, SMALL,  1280, NONE),
    member("tf_efficientnetv2_m",  (384, INCEPTION), 24, MEDIUM, 1280, NONE),
    member("tf_efficientnetv2_l",  (384, INCEPTION), 32, LARGE,  1280, NONE),
];

pub(super) fn models() -> Vec<Model> {
    let model = |d: Description| {
        let network = Network {
            stem: d.stem,
            stages: d.stages,
            scale: d.scale,
            head: Head::ThenPool(d.scale.channels(d.head)),
            activation: Activation::Silu,
            squeeze: Squeeze::OfInput,
            tensorflow: d.name.starts_with("tf_"),
        };
        Model {
            name: d.name.into(),
            family: "EfficientNetV2",
            source: "Tan & Le 2021; timm",
            resolution: d.resolution,
            num_classes: d.num_classes,
            preprocessing: d.preprocessing,
            build: Box::new(move |name, size| network.build(name, size)),
        }
    };
    TABLE.map(model).into()
}
