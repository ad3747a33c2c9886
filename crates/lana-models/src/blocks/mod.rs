//! What networks are built of.
//!
//! Each block is a function (or a small description with a `build` method) that adds nodes to a
//! [`lana_graph::GraphBuilder`] and returns the value it made. Names of nodes are those of timm where timm has the block,
//! so that its weights load unchanged. All feature maps are channels × height × width; `stride` divides height and width,
//! rounding up.

mod attention;
mod bottleneck;
mod conv;
mod fused;
mod gates;
mod mbconv;
mod residual;
mod resnest;
mod split;
mod squeeze;
mod stem;

pub(crate) use attention::attention_weights;
pub use attention::{LambdaLayer, RelativeAttention, Transformer};
pub use bottleneck::Bottleneck;
pub use conv::{Conv, conv_bn, conv_bn_act, make_divisible, round_channels};
pub use fused::FusedMbConv;
pub use gates::{EfficientAttention, Gates};
pub use mbconv::MbConv;
pub use residual::{BasicBlock, Ending, Shortcut};
pub use resnest::{AverageDown, ResNestBlock};
pub use split::SplitAttention;
pub use squeeze::SqueezeExcite;
pub use stem::Stem;
