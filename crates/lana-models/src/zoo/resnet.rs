//! ResNets for ImageNet (He et al. 2015) and ResNeSts (Zhang et al. 2020), by timm's names: a stem to a quarter of the
//! resolution, four stages of residual blocks, mean, classifier.
//!
//! Wherever a block changes the shape its shortcut is a projection. As in torchvision and timm the step of a bottleneck is
//! in its 3×3 convolution.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Result, Shape, Value};

use super::{Interpolation, Model, Preprocessing, Size};
use crate::blocks::{AverageDown, BasicBlock, Bottleneck, Ending, ResNestBlock, Shortcut, Stem};

/// One member of the family.
#[derive(Clone, Copy)]
struct Description {
    name: &'static str,
    resolution: usize,
    preprocessing: Preprocessing,
    stem: Stem,
    block: Block,
    /// Blocks of each stage.
    blocks: [usize; 4],
}

/// The residual block.
#[derive(Clone, Copy)]
enum Block {
    Basic,
    Bottleneck,
    /// With split attention: `radix` versions of each channel, in `cardinality` groups of `width` channels for 64 of a
    /// bottleneck ("4s2x40d" is radix 4, cardinality 2, width 40).
    Split {
        radix: usize,
        cardinality: usize,
        width: usize,
        average_down: AverageDown,
    },
}

/// Channels of the stages: outside a basic block, inside a bottleneck.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Output channels of a bottleneck for each of the stage's.
const EXPANSION: usize = 4;

const SPLIT: Block = Block::Split { radix: 2, cardinality: 1, width: 64, average_down: AverageDown::Last };
const SPLIT_1S4X24D: Block =
    Block::Split { radix: 1, cardinality: 4, width: 24, average_down: AverageDown::First };
const SPLIT_4S2X40D: Block =
    Block::Split { radix: 4, cardinality: 2, width: 40, average_down: AverageDown::First };
/// The stem of the variants "d".
const D: Stem = Stem::Deep { width: 32 };
/// The stem of the variants "e".
const E: Stem = Stem::Deep { width: 64 };

#[rustfmt::skip]
const TABLE: [Description; 13] = {
    use Block::{Basic, Bottleneck};
    use Interpolation::{Bicubic, Bilinear};
    use Stem::Plain;
    [
        row("resnet18",           224, 0.95,  Bicubic,  Plain, Basic,         [2, 2, 2, 2]),
        row("resnet34",           224, 0.95,  Bicubic,  Plain, Basic,         [3, 4, 6, 3]),
        row("resnet50",           224, 0.95,  Bicubic,  Plain, Bottleneck,    [3, 4, 6, 3]),
        row("resnet101",          224, 0.95,  Bicubic,  Plain, Bottleneck,    [3, 4, 23, 3]),
        row("resnet152",          224, 0.95,  Bicubic,  Plain, Bottleneck,    [3, 8, 36, 3]),
        row("resnest14d",         224, 0.875, Bilinear, D,     SPLIT,         [1, 1, 1, 1]),
        row("resnest26d",         224, 0.875, Bilinear, D,     SPLIT,         [2, 2, 2, 2]),
        row("resnest50d",         224, 0.875, Bilinear, D,     SPLIT,         [3, 4, 6, 3]),
        row("resnest50d_1s4x24d", 224, 0.875, Bicubic,  D,     SPLIT_1S4X24D, [3, 4, 6, 3]),
        row("resnest50d_4s2x40d", 224, 0.875, Bicubic,  D,     SPLIT_4S2X40D, [3, 4, 6, 3]),
        row("resnest101e",        256, 0.875, Bilinear, E,     SPLIT,         [3, 4, 23, 3]),
        row("resnest200e",        320, 0.909, Bicubic,  E,     SPLIT,         [3, 24, 36, 3]),
        row("resnest269e",        416, 0.928, Bicubic,  E,     SPLIT,         [3, 30, 48, 8]),
    ]
};

const fn row(
    name: &'static str,
    resolution: usize,
    crop: f32,
    interpolation: Interpolation,
    stem: Stem,
    block: Block,
    blocks: [usize; 4],
) -> Description {
    let preprocessing = Preprocessing { interpolation, ..Preprocessing::IMAGENET.with_crop(crop) };
    Description { name, resolution, preprocessing, stem, block, blocks }
}

pub(super) fn models() -> Vec<Model> {
    let model = |d: Description| {
        let (family, source) = match d.block {
            Block::Split { .. } => ("ResNeSt", "Zhang et al. 2020; names as in timm"),
            _ => ("ResNet", "He et al. 2015; names as in timm"),
        };
        Model {
            name: d.name.into(),
            family,
            source,
            resolution: d.resolution,
            num_classes: 1000,
            preprocessing: d.preprocessing,
            build: Box::new(move |_, size| build(&d, size)),
        }
    };
    TABLE.map(model).into()
}

fn build(d: &Description, size: Size) -> Result<Graph> {
    let mut b = GraphBuilder::new(d.name, Shape::image(3, size.resolution, size.resolution));
    let x = b.input();
    let mut x = d.stem.build(&mut b, x, Activation::Relu)?;
    for (number, (blocks, width)) in d.blocks.into_iter().zip(WIDTHS).enumerate() {
        let stage = format!("layer{}", number + 1);
        for block in 0..blocks {
            let stride = if number > 0 && block == 0 { 2 } else { 1 };
            x = b.layer(&format!("{stage}.{block}"), &stage, x, |b, x| {
                add_block(b, x, d.block, width, stride)
            })?;
        }
    }
    let x = b.node("global_pool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("fc", Op::Linear { out_features: size.num_classes, bias: true }, &[x])?;
    // timm's schedule for ResNets: from 0 at the first block to the whole rate at the last. Its ResNeSt blocks hand the rate to
    // their input, where it does nothing but drop projections; here it drops the branch in all of them.
    size.with_drops(b.finish(x)?, |block, blocks| block as f64 / (blocks - 1) as f64)
}

fn add_block(b: &mut GraphBuilder, x: Value, block: Block, width: usize, stride: usize) -> Result<Value> {
    let activation = Activation::Relu;
    let out = if let Block::Basic = block { width } else { width * EXPANSION };
    let shortcut = match b.shape(x).channels() == out && stride == 1 {
        true => Shortcut::Identity,
        false => Shortcut::Projection { out, stride, average: matches!(block, Block::Split { .. }) },
    };
    let ending = Ending { shortcut, activation: Some(activation) };
    match block {
        Block::Basic => BasicBlock { out, stride, shortcut }.build(b, x),
        Block::Bottleneck => {
            Bottleneck { out, hidden: width, kernel: 3, stride, groups: 1, activation, ending }.build(b, x)
        }
        Block::Split { radix, cardinality, width: group_width, average_down } => {
            let hidden = width * group_width / 64 * cardinality;
            ResNestBlock { out, hidden, radix, cardinality, stride, average_down, activation, ending }
                .build(b, x)
        }
    }
}
