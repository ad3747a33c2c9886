//! ResNets for 32×32 images (He et al. 2015, section 4.2): 6n + 2 layers deep, three stages of n basic blocks with 16,
//! 32 and 64 channels, shortcuts without parameters (option A).
//!
//! Parameter names and the order of the shortcut's zero channels are those of the widely used weights of
//! github.com/akamaster/pytorch_resnet_cifar10.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Result, Shape};

use super::{Model, Preprocessing, Size};
use crate::blocks::{BasicBlock, Conv, Shortcut, conv_bn_act};

/// Depth in the name, blocks per stage (n).
const TABLE: [(usize, usize); 5] = [(20, 3), (32, 5), (44, 7), (56, 9), (110, 18)];

/// Channels of the stages.
const WIDTHS: [usize; 3] = [16, 32, 64];

pub(super) fn models() -> Vec<Model> {
    let model = |(depth, blocks): (usize, usize)| Model {
        name: format!("resnet{depth}_cifar"),
        family: "CIFAR ResNet",
        source: "He et al. 2015; github.com/akamaster/pytorch_resnet_cifar10",
        resolution: 32,
        num_classes: 10,
        preprocessing: Preprocessing::IMAGENET,
        build: Box::new(move |name, size| build(name, blocks, size)),
    };
    TABLE.map(model).into()
}

fn build(name: &str, blocks: usize, size: Size) -> Result<Graph> {
    let mut b = GraphBuilder::new(name, Shape::image(3, size.resolution, size.resolution));
    let x = b.input();
    let mut x =
        conv_bn_act(&mut b, x, ["conv1", "bn1", "act1"], Conv::dense(WIDTHS[0], 3, 1), Activation::Relu)?;
    for (number, out) in WIDTHS.into_iter().enumerate() {
        let stage = format!("layer{}", number + 1);
        for block in 0..blocks {
            let stride = if number > 0 && block == 0 { 2 } else { 1 };
            let shortcut = Shortcut::option_a(b.shape(x).channels(), out, stride);
            let block_name = format!("{stage}.{block}");
            x = b.layer(&block_name, &stage, x, |b, x| BasicBlock { out, stride, shortcut }.build(b, x))?;
        }
    }
    let x = b.node("avgpool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("linear", Op::Linear { out_features: size.num_classes, bias: true }, &[x])?;
    // timm's schedule for ResNets: from 0 at the first block to the whole rate at the last.
    size.with_drops(b.finish(x)?, |block, blocks| block as f64 / (blocks - 1) as f64)
}
