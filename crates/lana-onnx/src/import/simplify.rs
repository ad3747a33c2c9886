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
    /// How often each value is read by what the output depends on.
    uses: Vec<usize>,
    /// The values that take the place of others, which nodes go on naming until a rule has gone through all of them. Those come
    /// earlier in the network.
    instead: Vec<Value>,
}

/// Makes the operation of a node one with those before it, if it can.
type Rule = fn(&mut Draft, usize);

/// Products that are looked at together, at most: activations are made of fewer.
const MOST_FACTORS: usize = 16;

impl Draft {
    pub(super) fn new(nodes: Vec<Node>, shapes: Vec<Shape>, weights: Weights, output: Value) -> Self {
        Draft { nodes, shapes, weights, output, uses: Vec::new(), instead: Vec::new() }
    }

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
        self.uses = self.counted();
        for rule in rules {
            self.instead = (0..self.shapes.len()).map(value_at).collect();
            for node in (0..self.nodes.len()).rev() {
                if self.uses[node + 1] > 0 {
                    rule(&mut self, node);
                }
            }
            self.settle();
        }
        self.without_the_unread()
    }

    /// How often each value is read by what the output depends on.
    fn counted(&self) -> Vec<usize> {
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
    fn inner(&self, value: Value) -> Option<(usize, &Op, Value)> {
        self.maker(value).filter(|_| self.uses[value.index()] == 1)
    }

    fn weight(&self, node: usize, suffix: &str) -> Option<&Tensor> {
        self.weights.get(&format!("{}.{suffix}", self.nodes[node].name))
    }

    /// Whoever reads what `node` gives reads `new`, an earlier value, once the rule at work has gone through all nodes. Till then
    /// those before it are all that it looks at, and none of these read it.
    fn redirect(&mut self, node: usize, new: Value) {
        let old = node + 1;
        self.instead[old] = new;
        self.uses[new.index()] += self.uses[old];
        self.uses[old] = 0;
        let unread = self.nodes[node].inputs.clone();
        self.release(unread);
    }

    /// Puts the values that take the place of others there.
    fn settle(&mut self) {
        for at in 0..self.instead.len() {
            self.instead[at] = self.instead[self.instead[at].index()];
        }
        for value in self.nodes.iter_mut().flat_map(|n| &mut n.inputs).chain([&mut self.output]) {
            *value = self.instead[value.index()];
        }
    }

    /// One reader less of each of these values. What nobody reads any more reads nothing.
    fn release(&mut self, mut values: Vec<Value>) {
        while let Some(value) = values.pop() {
            let uses = &mut self.uses[value.index()];
            *uses -= 1;
            if let (0, Some(maker)) = (*uses, value.node()) {
                values.extend(&self.nodes[maker].inputs);
            }
        }
    }

    /// Has a node read these values, which something reads already.
    fn reread(&mut self, node: usize, inputs: Vec<Value>) {
        inputs.iter().for_each(|value| self.uses[value.index()] += 1);
        let old = std::mem::replace(&mut self.nodes[node].inputs, inputs);
        self.release(old);
    }

    fn become_one(&mut self, node: usize, op: Op, input: Value) {
        self.nodes[node].op = op;
        self.reread(node, vec![input]);
    }

    /// A factor of 1, a term of 0.
    fn nothing(&mut self, node: usize) {
        if matches!(self.nodes[node].op, Op::Scale { factor: 1.0 } | Op::Shift { term: 0.0 }) {
            self.redirect(node, self.nodes[node].inputs[0]);
        }
    }

    /// An order of dimensions that is changed, and changed again behind operations on single elements or single dimensions:
    /// those follow both changes, which are one then, or none.
    fn turned_back(&mut self, node: usize) {
        let Op::Transpose { order } = self.nodes[node].op.clone() else { return };
        let (mut between, mut value) = (Vec::new(), self.nodes[node].inputs[0]);
        loop {
            match self.inner(value) {
                Some((_, Op::Transpose { .. }, _)) if !between.is_empty() => break,
                Some((at, op, x)) if by_other_dimensions(op, &order).is_some() => {
                    between.push(at);
                    value = x;
                }
                _ => return,
            }
        }
        // Each takes the place of the one behind it, and the first place is free.
        let mut slot = node;
        let name = self.nodes[node].name.clone();
        for at in between {
            let Some(op) = by_other_dimensions(&self.nodes[at].op, &order) else { return };
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
    }

    fn turned_shape(&self, value: Value, order: &[usize]) -> Shape {
        let dims = self.shapes[value.index()].dims();
        Shape::of(&order.iter().map(|&at| dims[at]).collect::<Vec<_>>())
    }

    /// Two changes of the order of dimensions.
    fn turned_twice(&mut self, node: usize) {
        let Op::Transpose { order } = &self.nodes[node].op else { return };
        let Some((_, Op::Transpose { order: first }, x)) = self.inner(self.nodes[node].inputs[0]) else {
            return;
        };
        let both: Vec<usize> = order.iter().map(|&at| first[at]).collect();
        if both.iter().copied().eq(0..both.len()) {
            return self.redirect(node, x);
        }
        self.become_one(node, Op::Transpose { order: both }, x);
    }

    /// The mean over rows and columns of a feature map whose channels are last.
    fn mean_of_turned(&mut self, node: usize) {
        let Op::Mean { axes } = &self.nodes[node].op else { return };
        let Some((turn, Op::Transpose { order }, x)) = self.inner(self.nodes[node].inputs[0]) else {
            return;
        };
        let mut of: Vec<usize> = axes.iter().map(|&at| order[at]).collect();
        of.sort_unstable();
        if order.len() != 3 || of != [1, 2] {
            return;
        }
        let names = [turn, node].map(|at| self.nodes[at].name.clone());
        let [turned, mean] = names;
        let channels = self.shapes[x.index()].channels();
        self.nodes[turn] = Node { name: mean, op: Op::GlobalAveragePool, inputs: vec![x] };
        self.shapes[turn + 1] = Shape::image(channels, 1, 1);
        let shape = self.shapes[node + 1].dims().to_vec();
        self.nodes[node] =
            Node { name: turned, op: Op::Reshape { shape }, inputs: vec![Value::of_node(turn)] };
    }

    /// Dimensions of which only the last matter.
    fn reshaped_twice(&mut self, node: usize) {
        if !matches!(self.nodes[node].op, Op::Reshape { .. }) {
            return;
        }
        let mut x = self.nodes[node].inputs[0];
        let mut passed = Vec::new();
        while let Some((at, Op::Reshape { .. }, before)) = self.maker(x) {
            passed.push(at);
            x = before;
        }
        // Those on the way read the same, so that the next one that reads them is there at once.
        for at in passed {
            match self.uses[at + 1] {
                0 => self.nodes[at].inputs = vec![x],
                _ => self.reread(at, vec![x]),
            }
        }
        match self.shapes[x.index()] == self.shapes[node + 1] {
            true => self.redirect(node, x),
            false => self.reread(node, vec![x]),
        }
    }

    /// Products that are activations, factors in any order.
    fn product(&mut self, node: usize) {
        if !matches!(self.nodes[node].op, Op::Mul | Op::Scale { .. }) {
            return;
        }
        let (mut factor, mut values, mut open) = (1.0_f64, Vec::new(), vec![Value::of_node(node)]);
        let mut looked_at = 0;
        while let Some(value) = open.pop() {
            let root = value == Value::of_node(node);
            looked_at += 1;
            match if root { self.maker(value) } else { self.inner(value) } {
                Some((_, Op::Scale { factor: f }, x)) => {
                    factor *= f64::from(*f);
                    open.push(x);
                }
                Some((at, Op::Mul, _)) => open.extend(&self.nodes[at].inputs),
                _ => values.push(value),
            }
            if values.len() + open.len() > 2 || looked_at > MOST_FACTORS {
                return;
            }
        }
        let is = |wanted: f64| (factor / wanted - 1.0).abs() < 1e-5;
        let found = match *values {
            [gate] if is(1.0 / 6.0) => self.six(gate).map(|x| (Activation::HardSigmoid, x)),
            [a, b] => [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
                let (_, op, of) = self.inner(gate)?;
                let kind = match op {
                    Op::Activation { kind: Activation::Sigmoid } if is(1.0) && of == x => Activation::Silu,
                    Op::Activation { kind: Activation::HardSigmoid } if is(1.0) && of == x => {
                        Activation::HardSwish
                    }
                    _ if is(1.0 / 6.0) && self.six(gate) == Some(x) => Activation::HardSwish,
                    _ if self.normal(gate, factor) == Some(x) => Activation::Gelu,
                    _ => return None,
                };
                Some((kind, x))
            }),
            _ => None,
        };
        if let Some((kind, x)) = found {
            self.become_one(node, Op::Activation { kind }, x);
        }
    }

    /// The value `x` of which a value is `min(max(x + 3, 0), 6)`.
    fn six(&self, value: Value) -> Option<Value> {
        let (_, Op::Activation { kind: Activation::Relu6 }, sum) = self.inner(value)? else {
            return None;
        };
        match self.inner(sum)? {
            (_, Op::Shift { term: 3.0 }, x) => Some(x),
            _ => None,
        }
    }

    /// The value `x` of which a value, times `factor`, is `(1 + erf(x / √2)) / 2`.
    fn normal(&self, value: Value, factor: f64) -> Option<Value> {
        let near = |x: f64, wanted: f64| (x - wanted).abs() < 1e-5;
        let (_, Op::Shift { term }, mut inner) = self.inner(value)? else { return None };
        let mut scale = factor;
        if let (_, Op::Scale { factor: own }, x) = self.inner(inner)? {
            (scale, inner) = (scale * f64::from(*own), x);
        }
        let (_, Op::Activation { kind: Activation::Erf }, scaled) = self.inner(inner)? else {
            return None;
        };
        match self.inner(scaled)? {
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
    fn layer_norm(&mut self, node: usize) {
        let Some((scale, x, eps)) = self.standardised(node) else { return };
        let flat = |tensor: &Tensor| Tensor { shape: vec![tensor.data.len()], data: tensor.data.clone() };
        let (Some(weight), Some(bias)) = (self.weight(scale, "weight"), self.weight(node, "weight")) else {
            return;
        };
        let (weight, bias) = (flat(weight), flat(bias));
        let [old, name] = [scale, node].map(|at| self.nodes[at].name.clone());
        self.weights.remove(&format!("{old}.weight"));
        self.weights.insert(format!("{name}.weight"), weight);
        self.weights.insert(format!("{name}.bias"), bias);
        self.become_one(node, Op::LayerNorm { eps }, x);
    }

    /// The node that scales, the value that is normalised, and eps, where a node ends layer normalisation.
    fn standardised(&self, node: usize) -> Option<(usize, Value, f64)> {
        let rank = self.shapes[node + 1].dims().len();
        let last = rank.checked_sub(1)?;
        let by_feature =
            |shared: &[usize]| shared.iter().copied().eq(0..last) || shared.is_empty() && last == 0;
        let Op::AddParameter { shared } = &self.nodes[node].op else { return None };
        let (scale, Op::MulParameter { shared: same }, normal) = self.inner(self.nodes[node].inputs[0])?
        else {
            return None;
        };
        let (at, Op::Mul, _) = self.inner(normal)? else { return None };
        if !by_feature(shared) || !by_feature(same) {
            return None;
        }
        let [a, b] = self.nodes[at].inputs[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(centred, by)| {
            // 1 / √(variance + eps), in one step or two.
            let mut exponent = 1.0;
            let mut value = by;
            while let Some((_, Op::Power { exponent: e }, x)) = self.inner(value) {
                (exponent, value) = (exponent * e, x);
            }
            let (_, Op::Shift { term }, variance) = self.inner(value)? else { return None };
            let (_, Op::Mean { axes }, square) = self.inner(variance)? else { return None };
            let squares = match self.inner(square)? {
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
    fn bias(&mut self, node: usize) {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return };
        let Some((layer, op, _)) = self.inner(self.nodes[node].inputs[0]) else { return };
        let shape = &self.shapes[layer + 1];
        let along = |axis: usize| is_along(axis, shape, shared);
        let fits = match op {
            Op::Linear { bias: false, .. } => along(shape.dims().len() - 1),
            Op::Conv2d(conv) => !conv.bias && along(0),
            _ => false,
        };
        let Some(tensor) = self.weight(node, "weight").filter(|_| fits) else { return };
        let tensor = Tensor { shape: vec![tensor.data.len()], data: tensor.data.clone() };
        match &mut self.nodes[layer].op {
            Op::Linear { bias, .. } => *bias = true,
            Op::Conv2d(conv) => conv.bias = true,
            _ => return,
        }
        self.weights.insert(format!("{}.bias", self.nodes[layer].name), tensor);
        self.redirect(node, Value::of_node(layer));
    }

    /// A factor and a term for each channel behind a convolution, as some tools write BatchNorm: folded into it, as others do.
    fn factor_and_term(&mut self, node: usize) {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return };
        let found = match self.inner(self.nodes[node].inputs[0]) {
            Some((at, Op::MulParameter { shared: same }, x)) if same == shared => Some((at, x)),
            _ => None,
        };
        let Some((scale, x)) = found else { return };
        let Some((layer, Op::Conv2d(conv), _)) = self.inner(x) else { return };
        let (mut conv, name) = (conv.clone(), self.nodes[layer].name.clone());
        let bias = conv.bias.then(|| self.weight(layer, "bias").cloned()).flatten();
        let (Some(factors), Some(terms), Some(kernel), true) = (
            self.weight(scale, "weight"),
            self.weight(node, "weight"),
            self.weight(layer, "weight"),
            is_along(0, &self.shapes[layer + 1], shared) && bias.is_some() == conv.bias,
        ) else {
            return;
        };
        let channels = conv.out_channels;
        if [factors.data.len(), terms.data.len()] != [channels; 2] {
            return;
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
        self.redirect(node, Value::of_node(layer));
    }

    /// Two parameters added one behind the other, as a class token and the positions.
    fn sum_of_parameters(&mut self, node: usize) {
        let Op::AddParameter { shared } = &self.nodes[node].op else { return };
        let found = match self.inner(self.nodes[node].inputs[0]) {
            Some((at, Op::AddParameter { shared: first }, x)) if first == shared => Some((at, x)),
            _ => None,
        };
        let Some((at, x)) = found else { return };
        let (Some(a), Some(b)) = (self.weight(at, "weight"), self.weight(node, "weight")) else {
            return;
        };
        let data = a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect();
        let sum = Tensor { shape: b.shape.clone(), data };
        self.weights.insert(format!("{}.weight", self.nodes[node].name), sum);
        self.reread(node, vec![x]);
    }

    /// Zeros around what a convolution reads: its padding.
    fn padded_conv(&mut self, node: usize) {
        let Op::Conv2d(conv) = &self.nodes[node].op else { return };
        let Some((_, Op::Pad { pads, value: 0.0 }, x)) = self.inner(self.nodes[node].inputs[0]) else {
            return;
        };
        let &[[0, 0], [top, bottom], [left, right]] = &pads[..] else { return };
        let mut conv = conv.clone();
        for (own, more) in conv.padding.iter_mut().zip([top, left, bottom, right]) {
            *own = own.saturating_add(more);
        }
        self.become_one(node, Op::Conv2d(conv), x);
    }

    /// Zeros around what is averaged: padding that counts.
    fn padded_average(&mut self, node: usize) {
        let Op::AveragePool { window, .. } = &self.nodes[node].op else { return };
        let Some((_, Op::Pad { pads, value: 0.0 }, x)) = self.inner(self.nodes[node].inputs[0]) else {
            return;
        };
        let &[[0, 0], [top, bottom], [left, right]] = &pads[..] else { return };
        let even = top == bottom && left == right && window.padding == [0, 0] && !window.ceil_mode;
        if !even || top > window.kernel[0] / 2 || left > window.kernel[1] / 2 {
            return;
        }
        let window = lana_graph::Window { padding: [top, left], ..window.clone() };
        self.become_one(node, Op::AveragePool { window, count_include_pad: true }, x);
    }

    fn without_the_unread(self) -> Self {
        let uses = self.counted();
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
        Draft::new(nodes, shapes, weights, now[self.output.index()])
    }
}

/// The value in a place among all of a network.
fn value_at(place: usize) -> Value {
    place.checked_sub(1).map_or(Value::INPUT, Value::of_node)
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
