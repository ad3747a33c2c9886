//! Each operation as PyTorch has it: a module where there is one, otherwise an expression.

use lana_graph::{Activation, Graph, Op, Shape, Value, Window};

use crate::names::{number, pair};

/// Classes that PyTorch has no module for, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Helper {
    PaddedConv2d,
    AddParameter,
    MulParameter,
    DropPath,
}

impl Helper {
    pub(crate) const ALL: [Helper; 4] =
        [Helper::PaddedConv2d, Helper::AddParameter, Helper::MulParameter, Helper::DropPath];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Helper::PaddedConv2d => "PaddedConv2d",
            Helper::AddParameter => "AddParameter",
            Helper::MulParameter => "MulParameter",
            Helper::DropPath => "DropPath",
        }
    }

    /// Its definition.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Helper::PaddedConv2d => {
                r#"class PaddedConv2d(nn.Conv2d):
    """A convolution behind `zeros` columns left and right, rows above and below."""

    def __init__(self, *sizes, zeros, **options):
        super().__init__(*sizes, **options)
        self.zeros = zeros

    def forward(self, x):
        return super().forward(functional.pad(x, self.zeros))
"#
            }
            Helper::AddParameter => {
                r#"class AddParameter(nn.Module):
    """Adds a trained tensor, the same for every sample: a learned position embedding."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))

    def forward(self, x):
        return x + self.weight
"#
            }
            Helper::MulParameter => {
                r#"class MulParameter(nn.Module):
    """Multiplies by a trained tensor, the same for every sample: a layer scale."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return x * self.weight
"#
            }
            Helper::DropPath => {
                r#"class DropPath(nn.Module):
    """In training, sets whole samples to zero with probability `rate` and scales the others by 1 / (1 - rate)."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * kept / (1 - self.rate)
"#
            }
        }
    }
}

/// The helper that an operation's module is made of.
pub(crate) fn helper(op: &Op) -> Option<Helper> {
    match op {
        Op::Conv2d(conv) => {
            let [top, left, bottom, right] = conv.padding;
            (top != bottom || left != right).then_some(Helper::PaddedConv2d)
        }
        Op::AddParameter { .. } => Some(Helper::AddParameter),
        Op::MulParameter { .. } => Some(Helper::MulParameter),
        Op::DropPath { .. } => Some(Helper::DropPath),
        _ => None,
    }
}

/// How a node stands in the text.
pub(crate) enum Form {
    /// A module, by what makes it.
    Module(String),
    /// An expression of its inputs.
    Expression(Expression),
}

/// What an expression does with its inputs, which are names.
pub(crate) enum Expression {
    /// Stands between the two inputs.
    Infix(&'static str),
    /// Stands behind the input.
    Suffix(String),
    /// Stands around the input: before and behind it.
    Call(&'static str, String),
    /// Puts the inputs one behind the other along a dimension (the batch counted).
    Concat(usize),
    /// Takes slices along a dimension (the batch counted) that are not evenly spaced.
    Gather {
        /// The dimension.
        axis: usize,
        /// Positions along it.
        indices: Vec<usize>,
    },
}

impl Expression {
    /// The text, given the names of the inputs and, for [`Expression::Gather`], that of the tensor of indices.
    pub(crate) fn text(&self, inputs: &[&str], indices: &str) -> String {
        let x = inputs.first().copied().unwrap_or_default();
        match self {
            Expression::Infix(sign) => inputs.join(&format!(" {sign} ")),
            Expression::Suffix(suffix) => format!("{x}{suffix}"),
            Expression::Call(before, behind) => format!("{before}{x}{behind}"),
            Expression::Concat(axis) => format!("torch.cat([{}], dim={axis})", inputs.join(", ")),
            Expression::Gather { axis, .. } => format!("{x}.index_select({axis}, {indices})"),
        }
    }
}

/// The form of node number `node`.
pub(crate) fn form(graph: &Graph, node: usize) -> Form {
    let shapes = graph.input_shapes(node);
    let x = shapes[0];
    let suffix = |text: String| Form::Expression(Expression::Suffix(text));
    Form::Module(match &graph.nodes()[node].op {
        Op::Conv2d(conv) => {
            let [top, left, bottom, right] = conv.padding;
            let mut text = match top == bottom && left == right {
                true => format!("nn.Conv2d({}, {}", conv.in_channels, conv.out_channels),
                false => format!("PaddedConv2d({}, {}", conv.in_channels, conv.out_channels),
            };
            text += &format!(", {}", pair(conv.kernel));
            if conv.stride != [1, 1] {
                text += &format!(", stride={}", pair(conv.stride));
            }
            if top != bottom || left != right {
                text += &format!(", zeros=({left}, {right}, {top}, {bottom})");
            } else if [top, left] != [0, 0] {
                text += &format!(", padding={}", pair([top, left]));
            }
            if conv.is_dilated() {
                text += &format!(", dilation={}", pair(conv.dilation));
            }
            if conv.groups != 1 {
                text += &format!(", groups={}", conv.groups);
            }
            text + without_bias(conv.bias) + ")"
        }
        Op::BatchNorm { eps, momentum } => {
            let mut text = format!("nn.BatchNorm2d({}", x.channels());
            if *eps != 1e-5 {
                text += &format!(", eps={}", number(eps));
            }
            if *momentum != 0.1 {
                text += &format!(", momentum={}", number(momentum));
            }
            text + ")"
        }
        Op::Activation { kind } => match kind {
            Activation::Relu => "nn.ReLU()",
            Activation::Relu6 => "nn.ReLU6()",
            Activation::Silu => "nn.SiLU()",
            Activation::Sigmoid => "nn.Sigmoid()",
            Activation::HardSwish => "nn.Hardswish()",
            Activation::HardSigmoid => "nn.Hardsigmoid()",
            Activation::Gelu => "nn.GELU()",
            Activation::Tanh => "nn.Tanh()",
            Activation::Erf => return suffix(".erf()".into()),
            Activation::Elu => "nn.ELU()",
            Activation::Softplus => "nn.Softplus()",
        }
        .into(),
        Op::Add => return Form::Expression(Expression::Infix("+")),
        Op::Mul => return Form::Expression(Expression::Infix("*")),
        Op::MatMul => return Form::Expression(Expression::Infix("@")),
        Op::Concat { axis } => return Form::Expression(Expression::Concat(axis + 1)),
        Op::SumParts { parts } => return suffix(format!(".unflatten(1, ({parts}, -1)).sum(dim=1)")),
        Op::SoftmaxParts { parts } => {
            return suffix(format!(".unflatten(1, ({parts}, -1)).softmax(dim=1).flatten(1, 2)"));
        }
        Op::ShuffleChannels { outer, inner } => {
            return suffix(format!(".unflatten(1, ({outer}, {inner}, -1)).transpose(1, 2).flatten(1, 3)"));
        }
        Op::MaxPool { window } => format!("nn.MaxPool2d({})", windows(window)),
        Op::AveragePool { window, count_include_pad } => {
            let counted = if *count_include_pad { "" } else { ", count_include_pad=False" };
            format!("nn.AvgPool2d({}{counted})", windows(window))
        }
        Op::GlobalAveragePool => "nn.AdaptiveAvgPool2d(1)".into(),
        Op::Mean { axes } => {
            let axes: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
            return suffix(format!(".mean(dim=[{}], keepdim=True)", list(&axes)));
        }
        Op::Flatten => "nn.Flatten()".into(),
        Op::Linear { out_features, bias } => {
            format!("nn.Linear({}, {out_features}{})", last(x), without_bias(*bias))
        }
        Op::Reshape { shape } => return suffix(format!(".reshape(-1, {})", list(shape))),
        Op::Transpose { order } => {
            let order: Vec<usize> = order.iter().map(|at| at + 1).collect();
            return suffix(format!(".permute(0, {})", list(&order)));
        }
        Op::Select { axis, indices } => {
            return match slice(indices, x.dims()[*axis]) {
                Some(slice) => suffix(format!("[{}{slice}]", ":, ".repeat(axis + 1))),
                None => Form::Expression(Expression::Gather { axis: axis + 1, indices: indices.clone() }),
            };
        }
        Op::Softmax { axis } => return suffix(format!(".softmax(dim={})", axis + 1)),
        Op::LogSoftmax { axis } => return suffix(format!(".log_softmax(dim={})", axis + 1)),
        Op::LayerNorm { eps } => {
            let eps = if *eps == 1e-5 { String::new() } else { format!(", eps={}", number(eps)) };
            format!("nn.LayerNorm({}{eps})", last(x))
        }
        Op::Scale { factor } => return suffix(format!(" * {}", number(factor))),
        Op::Shift { term } => {
            let sign = if term.is_sign_negative() { "-" } else { "+" };
            return suffix(format!(" {sign} {}", number(term.abs())));
        }
        Op::Power { exponent } => return suffix(format!(" ** {}", number(exponent))),
        op @ Op::AddParameter { .. } => format!("AddParameter({})", weight(op, &shapes)),
        op @ Op::MulParameter { .. } => format!("MulParameter({})", weight(op, &shapes)),
        Op::Conv3d { out_channels, kernel, padding, bias } => {
            let padding = match padding {
                [0, 0, 0] => String::new(),
                padding => format!(", padding=({})", list(padding)),
            };
            let (inputs, kernel) = (x.channels(), list(kernel));
            format!("nn.Conv3d({inputs}, {out_channels}, ({kernel}){padding}{})", without_bias(*bias))
        }
        Op::Subsample { stride } => return suffix(format!("[:, :, ::{stride}, ::{stride}]")),
        Op::PadChannels { before, after } => {
            let zeros = format!(", (0, 0, 0, 0, {before}, {after}))");
            return Form::Expression(Expression::Call("functional.pad(", zeros));
        }
        Op::Pad { pads, value } => {
            // PyTorch counts from the last dimension.
            let pads: Vec<usize> = pads.iter().rev().flatten().copied().collect();
            let value = if *value == 0.0 { String::new() } else { format!(", value={}", number(value)) };
            let behind = format!(", ({}){value})", list(&pads));
            return Form::Expression(Expression::Call("functional.pad(", behind));
        }
        Op::Resize { size: [height, width], align_corners } => {
            let corners = if *align_corners { ", align_corners=True" } else { "" };
            format!("nn.Upsample(({height}, {width}), mode=\"bilinear\"{corners})")
        }
        Op::Dropout { rate } => format!("nn.Dropout({})", number(rate)),
        Op::DropPath { rate } => format!("DropPath({})", number(rate)),
    })
}

/// Dimensions of what a node gives, the batch left open.
pub(crate) fn shape(graph: &Graph, value: Value) -> String {
    dims(graph.shape(value))
}

/// The same of a shape.
pub(crate) fn dims(shape: &Shape) -> String {
    format!("[n, {}]", list(shape.dims()))
}

fn last(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or_default()
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The shape of an operation's parameter.
fn weight(op: &Op, shapes: &[&Shape]) -> String {
    op.parameters(shapes).first().map(|(_, shape, _)| list(shape)).unwrap_or_default()
}

fn without_bias(bias: bool) -> &'static str {
    if bias { "" } else { ", bias=False" }
}

fn windows(window: &Window) -> String {
    let mut text = pair(window.kernel);
    // PyTorch's step is the kernel unless it is told otherwise.
    if window.stride != window.kernel {
        text += &format!(", stride={}", pair(window.stride));
    }
    if window.padding != [0, 0] {
        text += &format!(", padding={}", pair(window.padding));
    }
    if window.ceil_mode {
        text += ", ceil_mode=True";
    }
    text
}

/// Ascending, evenly spaced positions among `size` as a slice.
fn slice(indices: &[usize], size: usize) -> Option<String> {
    let mut steps = indices.windows(2).map(|pair| pair[1].checked_sub(pair[0]));
    let step = steps.next().unwrap_or(Some(1)).filter(|&step| step > 0)?;
    if !steps.all(|other| other == Some(step)) {
        return None;
    }
    let (first, last) = (*indices.first()?, *indices.last()?);
    let start = if first == 0 { String::new() } else { first.to_string() };
    let end = if last + step >= size { String::new() } else { (last + 1).to_string() };
    Some(if step == 1 { format!("{start}:{end}") } else { format!("{start}:{end}:{step}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenly_spaced_positions_are_slices() {
        for (indices, size, expected) in [
            (&[0, 1, 2][..], 6, Some(":3")),
            (&[3, 4, 5], 6, Some("3:")),
            (&[2], 6, Some("2:3")),
            (&[5], 6, Some("5:")),
            (&[0, 2, 4], 6, Some("::2")),
            (&[1, 3], 6, Some("1:4:2")),
            (&[0, 0], 6, None),
            (&[2, 1], 6, None),
            (&[0, 1, 3], 6, None),
        ] {
            assert_eq!(slice(indices, size).as_deref(), expected, "{indices:?}");
        }
    }
}
