//! Operations that are one together.
//!
//! Tools spell out what lana has a word for: `x · σ(x)` is SiLU, a convolution and the sum with a constant for each channel
//! one with a bias, a centred value divided by the root of its mean square layer normalisation. Here they are made that, so
//! that the network runs as fast as it can, and layers are seen for what they are. What nothing reads is left out.

use lana_graph::{Activation, Node, Op, Shape, Tensor, Value, Weights};

use super::array::Array;

/// A network in the making.
pub(super) struct Draft {
    pub(super) nodes: Vec<Node>,
    /// Of the input and of every node.
    pub(super) shapes: Vec<Shape>,
    pub(super) weights: Weights,
    pub(super) output: Value,
}

/// Makes the operation of a node one with those before it, if it can; it is given how often each value is read.
type Rule = fn(&mut Draft, usize, &[usize]) -> bool;

impl Draft {
    /// The same network of fewer operations.
    pub(super) fn simplified(self) -> Self {
        let mut plain = self.by_rules();
        match plain.carry_turning() {
            true => plain.by_rules(),
            false => plain,
        }
    }

    fn by_rules(mut self) -> Self {
        // What one rule makes another may need.
        let rules: [Rule; 12] = [
            Draft::nothing,
            Draft::turned_back,
            Draft::turned_twice,
            Draft::mean_of_turned,
            Draft::reshaped_twice,
            Draft::product,
            Draft::layer_norm,
            Draft::bias,
            Draft::factor_and_term,
            Draft::sum_of_parameters,
            Draft::padded_conv,
            Draft::padded_average,
        ];
        for rule in rules {
            let mut uses = self.uses();
            for node in (0..self.nodes.len()).rev() {
                if uses[node + 1] > 0 && rule(&mut self, node, &uses) {
                    uses = self.uses();
                }
            }
        }
        self.without_the_unread()
    }

    /// How often each value is read by what the output depends on.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.shapes.len()];
        uses[self.output.index()] = 1;
        for at in (0..self.nodes.len()).rev() {
            if uses[at + 1] > 0 {
                self.nodes[at].inputs.iter().for_each(|v| uses[v.index()] += 1);
            }
        }
        uses
    }

    /// The operation that makes a value, and what it reads first.
    fn maker(&self, value: Value) -> Option<(usize, &Op, Value)> {
        let node = value.node()?;
        Some((node, &self.nodes[node].op, self.nodes[node].inputs[0]))
    }

    /// As [`Draft::maker`], if nothing else reads the value.
    fn inner(&self, value: Value, uses: &[usize]) -> Option<(usize, &Op, Value)> {
        self.maker(value).filter(|_| uses[value.index()] == 1)
    }

    fn weight(&self, node: usize, suffix: &str) -> Option<&Tensor> {
        self.weights.get(&format!("{}.{suffix}", self.nodes[node].name))
    }

    /// Whoever read `old` reads `new`.
    fn redirect(&mut self, old: Value, new: Value) {
        for input in self.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|v| **v == old) {
            *input = new;
        }
        if self.output == old {
            self.output = new;
        }
    }

    fn become_one(&mut self, node: usize, op: Op, input: Value) -> bool {
        (self.nodes[node].op, self.nodes[node].inputs) = (op, vec![input]);
        true
    }

    /// A factor of 1, a term of 0.
    fn nothing(&mut self, node: usize, _: &[usize]) -> bool {
        let idle = matches!(self.nodes[node].op, Op::Scale { factor: 1.0 } | Op::Shift { term: 0.0 });
        if idle {
            self.redirect(Value::of_node(node), self.nodes[node].inputs[0]);
        }
        idle
    }

    /// An order of dimensions that is changed, and changed again behind operations on single elements or single dimensions:
    /// those follow both changes, which are one then, or none.
    fn turned_back(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::Transpose { order } = self.nodes[node].op.clone() else { return false };
        let (mut between, mut value) = (Vec::new(), self.nodes[node].inputs[0]);
        loop {
            match self.inner(value, uses) {
                Some((_, Op::Transpose { .. }, _)) if !between.is_empty() => break,
                Some((at, op, x)) if by_other_dimensions(op, &order).is_some() => {
                    between.push(at);
                    value = x;
                }
                _ => return false,
            }
        }
        // Each takes the place of the one behind it, and the first place is free.
        let mut slot = node;
        let name = self.nodes[node].name.clone();
        for at in between {
            let Some(op) = by_other_dimensions(&self.nodes[at].op, &order) else { return false };
            let moved = self.nodes[at].name.clone();
            let weight = format!("{moved}.weight");
            if let Some(Tensor { shape, data }) = self.weights.remove(&weight) {
                self.weights.insert(weight, Array::floats(shape, data).transposed(&order).to_tensor());
            }
            self.nodes[slot] = Node { name: moved, op, inputs: vec![Value::of_node(at)] };
            self.shapes[at + 1] = self.turned_shape(self.nodes[at].inputs[0], &order);
            slot = at;
        }
        self.nodes[slot] = Node { name, op: Op::Transpose { order }, inputs: vec![value] };
        true
    }

    fn turned_shape(&self, value: Value, order: &[usize]) -> Shape {
        let dims = self.shapes[value.index()].dims();
        Shape::of(&order.iter().map(|&at| dims[at]).collect::<Vec<_>>())
    }

    /// Two changes of the order of dimensions.
    fn turned_twice(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::Transpose { order } = &self.nodes[node].op else { return false };
        let Some((_, Op::Transpose { order: first }, x)) = self.inner(self.nodes[node].inputs[0], uses)
        else {
            return false;
        };
        let both: Vec<usize> = order.iter().map(|&at| first[at]).collect();
        if both.iter().copied().eq(0..both.len()) {
            self.redirect(Value::of_node(node), x);
            return true;
        }
        self.become_one(node, Op::Transpose { order: both }, x)
    }

    /// The mean over rows and columns of a feature map whose channels are last.
    fn mean_of_turned(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::Mean { axes } = &self.nodes[node].op else { return false };
        let Some((turn, Op::Transpose { order }, x)) = self.inner(self.nodes[node].inputs[0], uses) else {
            return false;
        };
        let mut of: Vec<usize> = axes.iter().map(|&at| order[at]).collect();
        of.sort_unstable();
        if order.len() != 3 || of != [1, 2] {
            return false;
        }
        let names = [turn, node].map(|at| self.nodes[at].name.clone());
        let [turned, mean] = names;
        let channels = self.shapes[x.index()].channels();
        self.nodes[turn] = Node { name: mean, op: Op::GlobalAveragePool, inputs: vec![x] };
        self.shapes[turn + 1] = Shape::image(channels, 1, 1);
        let shape = self.shapes[node + 1].dims().to_vec();
        self.nodes[node] =
            Node { name: turned, op: Op::Reshape { shape }, inputs: vec![Value::of_node(turn)] };
        true
    }

    /// Dimensions of which only the last matter.
    fn reshaped_twice(&mut self, node: usize, _: &[usize]) -> bool {
        if !matches!(self.nodes[node].op, Op::Reshape { .. }) {
            return false;
        }
        let first = self.nodes[node].inputs[0];
        let mut x = first;
        while let Some((_, Op::Reshape { .. }, before)) = self.maker(x) {
            x = before;
        }
        if self.shapes[x.index()] == self.shapes[node + 1] {
            self.redirect(Value::of_node(node), x);
            return true;
        }
        self.nodes[node].inputs[0] = x;
        x != first
    }

    /// Products that are activations, factors in any order.
    fn product(&mut self, node: usize, uses: &[usize]) -> bool {
        if !matches!(self.nodes[node].op, Op::Mul | Op::Scale { .. }) {
            return false;
        }
        let (mut factor, mut values, mut open) = (1.0_f64, Vec::new(), vec![Value::of_node(node)]);
        while let Some(value) = open.pop() {
            let root = value == Value::of_node(node);
            match if root { self.maker(value) } else { self.inner(value, uses) } {
                Some((_, Op::Scale { factor: f }, x)) => {
                    factor *= f64::from(*f);
                    open.push(x);
                }
                Some((at, Op::Mul, _)) => open.extend(&self.nodes[at].inputs),
                _ => values.push(value),
            }
            if values.len() + open.len() > 2 {
                return false;
            }
        }
        let is = |wanted: f64| (factor / wanted - 1.0).abs() < 1e-5;
        let found = match *values {
            [gate] if is(1.0 / 6.0) => self.six(gate, uses).map(|x| (Activation::HardSigmoid, x)),
            [a, b] => [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
                let (_, op, of) = self.inner(gate, uses)?;
                let kind = match op {
                    Op::Activation { kind: Activation::Sigmoid } if is(1.0) && of == x => Activation::Silu,
                    Op::Activation { kind: Activation::HardSigmoid } if is(1.0) && of == x => {
                        Activation::HardSwish
                    }
                    _ if is(1.0 / 6.0) && self.six(gate, uses) == Some(x) => Activation::HardSwish,
                    _ if self.normal(gate, factor, uses) == Some(x) => Activation::Gelu,
                    _ => return None,
                };
                Some((kind, x))
            }),
            _ => None,
        };
        match found {
            Some((kind, x)) => self.become_one(node, Op::Activation { kind }, x),
            None => false,
        }
    }

    /// The value `x` of which a value is `min(max(x + 3, 0), 6)`.
    fn six(&self, value: Value, uses: &[usize]) -> Option<Value> {
        let (_, Op::Activation { kind: Activation::Relu6 }, sum) = self.inner(value, uses)? else {
            return None;
        };
        match self.inner(sum, uses)? {
            (_, Op::Shift { term: 3.0 }, x) => Some(x),
            _ => None,
        }
    }

    /// The value `x` of which a value, times `factor`, is `(1 + erf(x / √2)) / 2`.
    fn normal(&self, value: Value, factor: f64, uses: &[usize]) -> Option<Value> {
        let near = |x: f64, wanted: f64| (x - wanted).abs() < 1e-5;
        let (_, Op::Shift { term }, mut inner) = self.inner(value, uses)? else { return None };
        let mut scale = factor;
        if let (_, Op::Scale { factor: own }, x) = self.inner(inner, uses)? {
            (scale, inner) = (scale * f64::from(*own), x);
        }
        let (_, Op::Activation { kind: Activation::Erf }, scaled) = self.inner(inner, uses)? else {
            return None;
        };
        match self.inner(scaled, uses)? {
            (_, Op::Scale { factor: root }, x) => {
                let fits = near(factor * f64::from(*term), 0.5)
                    && near(scale, 0.5)
                    && near(f64::from(*root), std::f64::consts::FRAC_1_SQRT_2);
                fits.then_some(x)
            }
            _ => None,
        }
    }

    /// `(x − mean(x)) / √(mean((x − mean(x))²) + eps) · weight + bias` over the last dimension.
    fn layer_norm(&mut self, node: usize, uses: &[usize]) -> bool {
        let Some((scale, x, eps)) = self.standardised(node, uses) else { return false };
        let flat = |tensor: &Tensor| Tensor { shape: vec![tensor.data.len()], data: tensor.data.clone() };
        let (Some(weight), Some(bias)) = (self.weight(scale, "weight"), self.weight(node, "weight")) else {
            return false;
        };
        let (weight, bias) = (flat(weight), flat(bias));
        let [old, name] = [scale, node].map(|at| self.nodes[at].name.clone());
        self.weights.remove(&format!("{old}.weight"));
        self.weights.insert(format!("{name}.weight"), weight);
        self.weights.insert(format!("{name}.bias"), bias);
        self.become_one(node, Op::LayerNorm { eps }, x)
    }

    /// The node that scales, the value that is normalised, and eps, where a node ends layer normalisation.
    fn standardised(&self, node: usize, uses: &[usize]) -> Option<(usize, Value, f64)> {
        let rank = self.shapes[node + 1].dims().len();
        let last = rank.checked_sub(1)?;
        let by_feature =
            |shared: &[usize]| shared.iter().copied().eq(0..last) || shared.is_empty() && last == 0;
        let Op::AddParameter { shared } = &self.nodes[node].op else { return None };
        let (scale, Op::MulParameter { shared: same }, normal) =
            self.inner(self.nodes[node].inputs[0], uses)?
        else {
            return None;
        };
        let (at, Op::Mul, _) = self.inner(normal, uses)? else { return None };
        if !by_feature(shared) || !by_feature(same) {
            return None;
        }
        let [a, b] = self.nodes[at].inputs[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(centred, by)| {
            // 1 / √(variance + eps), in one step or two.
            let mut exponent = 1.0;
            let mut value = by;
            while let Some((_, Op::Power { exponent: e }, x)) = self.inner(value, uses) {
                (exponent, value) = (exponent * e, x);
            }
            let (_, Op::Shift { term }, variance) = self.inner(value, uses)? else { return None };
            let (_, Op::Mean { axes }, square) = self.inner(variance, uses)? else { return None };
            let squares = match self.inner(square, uses)? {
                (_, Op::Power { exponent: 2.0 }, x) => self.same(x, centred),
                (at, Op::Mul, x) => self.same(x, centred) && self.nodes[at].inputs[1] == x,
                _ => false,
            };
            let x = self.centred(centred)?;
            let over_last = axes.iter().copied().eq([last]);
            (squares && over_last && exponent == -0.5 && *term > 0.0).then_some((
                scale,
                x,
                super::node::decimal(*term),
            ))
        })
    }

    /// The value `x` of which a value is `x − mean(x)` over the last dimension.
    fn centred(&self, value: Value) -> Option<Value> {
        let (at, Op::Add, _) = self.maker(value)? else { return None };
        let last = self.shapes[value.index()].dims().len() - 1;
        let [a, b] = self.nodes[at].inputs[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(x, minus)| {
            let (_, Op::Scale { factor: -1.0 }, mean) = self.maker(minus)? else { return None };
            match self.maker(mean)? {
                (_, Op::Mean { axes }, of) if of == x && axes.iter().copied().eq([last]) => Some(x),
                _ => None,
            }
        })
    }

    /// Whether two values are one, or both are the same value centred.
    fn same(&self, a: Value, b: Value) -> bool {
        a == b || self.centred(a).is_some() && self.centred(a) == self.centred(b)
    }

    /// A constant for each channel behind a convolution or a fully connected layer: its bias.
    fn bias(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return false };
        let Some((layer, op, _)) = self.inner(self.nodes[node].inputs[0], uses) else { return false };
        let shape = &self.shapes[layer + 1];
        let along = |axis: usize| is_along(axis, shape, shared);
        let fits = match op {
            Op::Linear { bias: false, .. } => along(shape.dims().len() - 1),
            Op::Conv2d(conv) => !conv.bias && along(0),
            _ => false,
        };
        let Some(tensor) = self.weight(node, "weight").filter(|_| fits) else { return false };
        let tensor = Tensor { shape: vec![tensor.data.len()], data: tensor.data.clone() };
        match &mut self.nodes[layer].op {
            Op::Linear { bias, .. } => *bias = true,
            Op::Conv2d(conv) => conv.bias = true,
            _ => return false,
        }
        self.weights.insert(format!("{}.bias", self.nodes[layer].name), tensor);
        self.redirect(Value::of_node(node), Value::of_node(layer));
        true
    }

    /// A factor and a term for each channel behind a convolution, as some tools write BatchNorm: folded into it, as others do.
    fn factor_and_term(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return false };
        let found = match self.inner(self.nodes[node].inputs[0], uses) {
            Some((at, Op::MulParameter { shared: same }, x)) if same == shared => Some((at, x)),
            _ => None,
        };
        let Some((scale, x)) = found else { return false };
        let Some((layer, Op::Conv2d(conv), _)) = self.inner(x, uses) else { return false };
        let (mut conv, name) = (conv.clone(), self.nodes[layer].name.clone());
        let bias = conv.bias.then(|| self.weight(layer, "bias").cloned()).flatten();
        let (Some(factors), Some(terms), Some(kernel), true) = (
            self.weight(scale, "weight"),
            self.weight(node, "weight"),
            self.weight(layer, "weight"),
            is_along(0, &self.shapes[layer + 1], shared) && bias.is_some() == conv.bias,
        ) else {
            return false;
        };
        let channels = conv.out_channels;
        if [factors.data.len(), terms.data.len()] != [channels; 2] {
            return false;
        }
        let (mut kernel, mut sums) = (kernel.clone(), terms.data.clone());
        let each = kernel.data.len() / channels;
        for (channel, &factor) in factors.data.iter().enumerate() {
            kernel.data[channel * each..][..each].iter_mut().for_each(|v| *v *= factor);
            sums[channel] += bias.as_ref().map_or(0.0, |bias| factor * bias.data[channel]);
        }
        conv.bias = true;
        self.nodes[layer].op = Op::Conv2d(conv);
        self.weights.insert(format!("{name}.weight"), kernel);
        self.weights.insert(format!("{name}.bias"), Tensor { shape: vec![channels], data: sums });
        self.redirect(Value::of_node(node), Value::of_node(layer));
        true
    }

    /// Two parameters added one behind the other, as a class token and the positions.
    fn sum_of_parameters(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return false };
        let found = match self.inner(self.nodes[node].inputs[0], uses) {
            Some((at, Op::AddParameter { shared: first }, x)) if first == shared => Some((at, x)),
            _ => None,
        };
        let Some((at, x)) = found else { return false };
        let (Some(a), Some(b)) = (self.weight(at, "weight"), self.weight(node, "weight")) else {
            return false;
        };
        let data = a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect();
        let sum = Tensor { shape: b.shape.clone(), data };
        self.weights.insert(format!("{}.weight", self.nodes[node].name), sum);
        self.nodes[node].inputs = vec![x];
        true
    }

    /// Zeros around what a convolution reads: its padding.
    fn padded_conv(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::Conv2d(conv) = &self.nodes[node].op else { return false };
        let Some((_, Op::Pad { pads, value: 0.0 }, x)) = self.inner(self.nodes[node].inputs[0], uses) else {
            return false;
        };
        let &[[0, 0], [top, bottom], [left, right]] = &pads[..] else { return false };
        let mut conv = conv.clone();
        for (own, more) in conv.padding.iter_mut().zip([top, left, bottom, right]) {
            *own = own.saturating_add(more);
        }
        self.become_one(node, Op::Conv2d(conv), x)
    }

    /// Zeros around what is averaged: padding that counts.
    fn padded_average(&mut self, node: usize, uses: &[usize]) -> bool {
        let Op::AveragePool { window, .. } = &self.nodes[node].op else { return false };
        let Some((_, Op::Pad { pads, value: 0.0 }, x)) = self.inner(self.nodes[node].inputs[0], uses) else {
            return false;
        };
        let &[[0, 0], [top, bottom], [left, right]] = &pads[..] else { return false };
        let even = top == bottom && left == right && window.padding == [0, 0] && !window.ceil_mode;
        if !even || top > window.kernel[0] / 2 || left > window.kernel[1] / 2 {
            return false;
        }
        let window = lana_graph::Window { padding: [top, left], ..window.clone() };
        self.become_one(node, Op::AveragePool { window, count_include_pad: true }, x)
    }

    fn without_the_unread(self) -> Self {
        let uses = self.uses();
        let mut now = vec![Value::INPUT; self.shapes.len()];
        let mut nodes = Vec::new();
        let mut shapes = vec![self.shapes[0].clone()];
        let mut weights = Weights::new();
        let mut old = self.weights;
        for (at, mut node) in self.nodes.into_iter().enumerate() {
            if uses[at + 1] == 0 {
                continue;
            }
            node.inputs.iter_mut().for_each(|v| *v = now[v.index()]);
            now[at + 1] = Value::of_node(nodes.len());
            let inputs: Vec<&Shape> = node.inputs.iter().map(|v| &shapes[v.index()]).collect();
            for (suffix, ..) in node.op.parameters(&inputs) {
                let name = format!("{}.{suffix}", node.name);
                if let Some(tensor) = old.remove(&name) {
                    weights.insert(name, tensor);
                }
            }
            shapes.push(self.shapes[at + 1].clone());
            nodes.push(node);
        }
        Draft { nodes, shapes, weights, output: now[self.output.index()] }
    }
}

/// Whether a parameter for values of a shape has one number for each place along a dimension, the same along all others.
fn is_along(axis: usize, shape: &Shape, shared: &[usize]) -> bool {
    let dims = shape.dims();
    (0..dims.len()).all(|at| at == axis || shared.contains(&at) || dims[at] == 1) && !shared.contains(&axis)
}

/// An operation on single elements or single dimensions for a value whose dimensions are in another order.
pub(super) fn by_other_dimensions(op: &Op, order: &[usize]) -> Option<Op> {
    let now = |old: &usize| order.iter().position(|at| at == old);
    let shared = |old: &[usize]| (0..order.len()).filter(|&at| old.contains(&order[at])).collect();
    let padded = |pads: &[[usize; 2]]| order.iter().map(|&at| pads[at]).collect();
    Some(match op {
        Op::Activation { .. } | Op::Scale { .. } | Op::Shift { .. } | Op::Power { .. } => op.clone(),
        Op::AddParameter { shared: old } => Op::AddParameter { shared: shared(old) },
        Op::MulParameter { shared: old } => Op::MulParameter { shared: shared(old) },
        Op::Pad { pads, value } => Op::Pad { pads: padded(pads), value: *value },
        Op::PadChannels { before, after } => {
            Op::Pad { pads: padded(&[[*before, *after], [0, 0], [0, 0]]), value: 0.0 }
        }
        Op::Select { axis, indices } => Op::Select { axis: now(axis)?, indices: indices.clone() },
        _ => return None,
    })
}
