//! MobileNets: the inverted residual's first networks (V2, Sandler et al. 2018), and those with squeeze-and-excitation and
//! hard swish found by search (V3, Howard et al. 2019). Names, rounding and preprocessing are timm's.

use lana_graph::Activation::{HardSwish, Relu, Relu6};

use super::stages::{Head, Network, Scale, Squeeze, cn, ds, ir};
use super::{Model, Preprocessing};

/// One member of the family.
struct Description {
    name: &'static str,
    source: &'static str,
    network: Network,
}

const V2: Network = Network {
    stem: 32,
    stages: &[
        &[ds(1, 3, 1, 16)],
        &[ir(2, 3, 2, 6.0, 24)],
        &[ir(3, 3, 2, 6.0, 32)],
        &[ir(4, 3, 2, 6.0, 64)],
        &[ir(3, 3, 1, 6.0, 96)],
        &[ir(3, 3, 2, 6.0, 160)],
        &[ir(1, 3, 1, 6.0, 320)],
    ],
    scale: Scale::NONE,
    head: Head::ThenPool(1280),
    activation: Relu6,
    squeeze: Squeeze::OfInput,
    tensorflow: false,
};

const V3_LARGE: Network = Network {
    stem: 16,
    stages: &[
        &[ds(1, 3, 1, 16).act(Relu)],
        &[ir(1, 3, 2, 4.0, 24).act(Relu), ir(1, 3, 1, 3.0, 24).act(Relu)],
        &[ir(3, 5, 2, 3.0, 40).se(0.25).act(Relu)],
        &[ir(1, 3, 2, 6.0, 80), ir(1, 3, 1, 2.5, 80), ir(2, 3, 1, 2.3, 80)],
        &[ir(2, 3, 1, 6.0, 112).se(0.25)],
        &[ir(3, 5, 2, 6.0, 160).se(0.25)],
        &[cn(1, 1, 1, 960)],
    ],
    scale: Scale::NONE,
    head: Head::PoolFirst(1280),
    activation: HardSwish,
    squeeze: Squeeze::OfExpanded,
    tensorflow: false,
};

const V3_SMALL: Network = Network {
    stages: &[
        &[ds(1, 3, 2, 16).se(0.25).act(Relu)],
        &[ir(1, 3, 2, 4.5, 24).act(Relu), ir(1, 3, 1, 3.67, 24).act(Relu)],
        &[ir(1, 5, 2, 4.0, 40).se(0.25), ir(2, 5, 1, 6.0, 40).se(0.25)],
        &[ir(2, 5, 1, 3.0, 48).se(0.25)],
        &[ir(3, 5, 2, 6.0, 96).se(0.25)],
        &[cn(1, 1, 1, 576)],
    ],
    head: Head::PoolFirst(1024),
    ..V3_LARGE
};

const SANDLER: &str = "Sandler et al. 2018; timm";
const HOWARD: &str = "Howard et al. 2019; timm";

const TABLE: [Description; 4] = [
    Description { name: "mobilenetv2_100", source: SANDLER, network: V2 },
    Description {
        name: "mobilenetv2_140",
        source: SANDLER,
        network: Network { scale: Scale { width: 1.4, ..Scale::NONE }, head: Head::ThenPool(1792), ..V2 },
    },
    Description { name: "mobilenetv3_large_100", source: HOWARD, network: V3_LARGE },
    Description { name: "mobilenetv3_small_100", source: HOWARD, network: V3_SMALL },
];

pub(super) fn models() -> Vec<Model> {
    let model = |d: Description| Model {
        name: d.name.into(),
        family: "MobileNet",
        source: d.source,
        resolution: 224,
        num_classes: 1000,
        preprocessing: Preprocessing::IMAGENET.with_crop(0.875),
        build: Box::new(move |name, size| d.network.build(name, size)),
    };
    TABLE.map(model).into()
}
