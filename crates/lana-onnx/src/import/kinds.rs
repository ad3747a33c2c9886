//! The types of nodes that can be read, and what can be said against a node whatever it reads.

use super::node::{Read, flag, float, int, ints, obstacle, word};
use crate::proto::{NodeProto, data_type};

/// Types of nodes that can be read, some of them as parts of shapes alone.
const KINDS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "Cos",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Types that lana has no operation for: what such nodes give must not depend on the image.
const OF_CONSTANTS: &[&str] = &[
    "And",
    "Ceil",
    "ConstantOfShape",
    "Cos",
    "CumSum",
    "Equal",
    "Exp",
    "Floor",
    "GatherND",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Log",
    "Mod",
    "Not",
    "Or",
    "Range",
    "ReduceMin",
    "ReduceProd",
    "Round",
    "Sin",
    "Where",
];

/// Whether the type is one that can be read at all.
pub(super) fn is_known(kind: &str) -> bool {
    KINDS.binary_search(&kind).is_ok()
}

/// What can be said against a node that reads something of the image before anything is known about that: so all that cannot be
/// read is reported at once, also what stands behind something unknown.
pub(super) fn check(node: &NodeProto, kind: &str) -> Read<()> {
    if OF_CONSTANTS.binary_search(&kind).is_ok() {
        return obstacle("only of constants");
    }
    let one_of = |name: &str, usual: &str, known: &[&str]| match word(node, name, usual) {
        found if known.contains(&found) => Ok(()),
        other => obstacle(format!("{name} {}", crate::text::shown(other))),
    };
    match kind {
        "Conv" => one_of("auto_pad", "NOTSET", PADDINGS),
        "MaxPool" | "AveragePool" => {
            if ints(node, "dilations").is_some_and(|apart| apart.iter().any(|&d| d != 1)) {
                return obstacle("dilated");
            }
            if node.output.get(1).is_some_and(|name| !name.is_empty()) {
                return obstacle("with the places of the maxima");
            }
            if ints(node, "kernel_shape").is_none() {
                return obstacle("without kernel_shape");
            }
            one_of("auto_pad", "NOTSET", PADDINGS)
        }
        "Resize" => {
            if flag(node, "antialias", false)
                || word(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
                || ints(node, "axes").is_some()
            {
                return obstacle("with antialias, axes or a policy for the aspect ratio");
            }
            match word(node, "mode", "nearest") {
                "nearest" => {
                    let rounded = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];
                    let places = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"];
                    one_of("nearest_mode", rounded[0], &rounded)?;
                    one_of("coordinate_transformation_mode", places[0], &places)
                }
                "linear" => Ok(()),
                // Bicubic interpolation belongs into preprocessing; nothing in lana does it to feature maps.
                mode => obstacle(format!("mode {}, only nearest and linear", crate::text::shown(mode))),
            }
        }
        "Gemm" if flag(node, "transA", false) => obstacle("of a transposed value"),
        "BatchNormalization" if flag(node, "training_mode", false) => {
            obstacle("in training mode; export the model for inference")
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" if node.input.len() != 2 => {
            obstacle(format!("of {} inputs", node.input.len()))
        }
        "Cast" => match int(node, "to") {
            Some(to) if to == i64::from(data_type::FLOAT) => Ok(()),
            to => obstacle(format!("of a value to ONNX data type {}", to.unwrap_or(0))),
        },
        "Gelu" => one_of("approximate", "none", &["none", "tanh"]),
        "Celu" => match float(node, "alpha") {
            Some(alpha) if !alpha.is_normal() => obstacle(format!("alpha {alpha}")),
            _ => Ok(()),
        },
        "DepthToSpace" => one_of("mode", "DCR", &["DCR", "CRD"]),
        "Pad" => one_of("mode", "constant", &["constant", "edge", "reflect"]),
        _ => Ok(()),
    }
}

/// How the padding of a window may be given.
const PADDINGS: &[&str] = &["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"];

#[cfg(test)]
mod tests {
    use super::{KINDS, OF_CONSTANTS};

    #[test]
    fn lists_are_in_order() {
        assert!(KINDS.is_sorted() && OF_CONSTANTS.is_sorted());
        assert!(OF_CONSTANTS.iter().all(|kind| super::is_known(kind)));
    }
}
