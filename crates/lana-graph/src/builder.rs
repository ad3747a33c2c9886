use crate::{Activation, Conv2d, Error, Graph, Layer, Node, Op, Result, Shape, Value};

/// Builds a graph node by node. Names are paths; [`GraphBuilder::scoped`] puts a prefix before those of a block.
pub struct GraphBuilder {
    name: String,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    layers: Vec<Layer>,
    prefix: String,
    eps: f64,
    momentum: f64,
    same_padding: bool,
}

impl GraphBuilder {
    /// An empty graph that takes `input`.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        GraphBuilder {
            name: name.into(),
            nodes: Vec::new(),
            shapes: vec![input],
            layers: Vec::new(),
            prefix: String::new(),
            eps: 1e-5,
            momentum: 0.1,
            same_padding: false,
        }
    }

    /// Sets `eps` and `momentum` of the batch normalisations to come (PyTorch's 1e-5 and 0.1 before that).
    pub fn with_batch_norm(mut self, eps: f64, momentum: f64) -> Self {
        (self.eps, self.momentum) = (eps, momentum);
        self
    }

    /// Pads the convolutions to come as TensorFlow's "SAME" does rather than by `kernel / 2` on every side: with just the
    /// zeros that `⌈size / stride⌉` rows and columns take, the odd one at the bottom or right.
    ///
    /// How many those are depends on the size of the feature map: with stride 2 an even size gets one less than an odd one.
    pub fn with_same_padding(mut self, same_padding: bool) -> Self {
        self.same_padding = same_padding;
        self
    }

    /// The graph's input.
    pub fn input(&self) -> Value {
        Value::INPUT
    }

    /// Shape of a value made so far.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.shapes[value.0]
    }

    /// Runs `block` with `prefix.` before the names of its nodes.
    pub fn scoped<T>(&mut self, prefix: &str, block: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = self.prefix.len();
        self.prefix.push_str(prefix);
        self.prefix.push('.');
        let result = block(self);
        self.prefix.truncate(outer);
        result
    }

    /// Runs `block`, whose nodes become the layer `name` of `stage`; their names get the layer's as prefix.
    pub fn layer(
        &mut self,
        name: &str,
        stage: &str,
        input: Value,
        block: impl FnOnce(&mut Self, Value) -> Result<Value>,
    ) -> Result<Value> {
        let start = self.nodes.len();
        let output = self.scoped(name, |b| block(b, input))?;
        let nodes = start..self.nodes.len();
        self.layers.push(Layer { name: name.into(), stage: stage.into(), nodes, input, output });
        Ok(output)
    }

    /// Adds a node and returns its value.
    pub fn node(&mut self, name: &str, op: Op, inputs: &[Value]) -> Result<Value> {
        let name = format!("{}{name}", self.prefix);
        let shapes: Vec<_> = inputs.iter().map(|v| &self.shapes[v.0]).collect();
        let shape = op.infer(&shapes).map_err(|reason| Error::Shape { node: name.clone(), reason })?;
        self.shapes.push(shape);
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        Ok(Value::of_node(self.nodes.len() - 1))
    }

    /// A square convolution without bias, padded by `kernel / 2` unless [`GraphBuilder::with_same_padding`] says
    /// otherwise, in `groups` groups.
    pub fn conv(
        &mut self,
        name: &str,
        x: Value,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Result<Value> {
        self.conv_full(name, x, out_channels, kernel, stride, groups, false)
    }

    /// As [`GraphBuilder::conv`], with or without a bias.
    #[allow(clippy::too_many_arguments)]
    pub fn conv_full(
        &mut self,
        name: &str,
        x: Value,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
        bias: bool,
    ) -> Result<Value> {
        let conv = Conv2d {
            in_channels: self.shape(x).channels(),
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: self.padding(x, kernel, stride),
            groups,
            bias,
        };
        self.node(name, Op::Conv2d(conv), &[x])
    }

    /// Zeros at top, left, bottom, right of `x`.
    fn padding(&self, x: Value, kernel: usize, stride: usize) -> [usize; 4] {
        match (self.same_padding, self.shape(x).as_image()) {
            (true, Some((_, h, w))) if stride > 0 => {
                let total = |size: usize| {
                    (size.div_ceil(stride).saturating_sub(1) * stride + kernel).saturating_sub(size)
                };
                let (rows, columns) = (total(h), total(w));
                [rows / 2, columns / 2, rows - rows / 2, columns - columns / 2]
            }
            _ => [kernel / 2; 4],
        }
    }

    /// A batch normalisation.
    pub fn batch_norm(&mut self, name: &str, x: Value) -> Result<Value> {
        self.node(name, Op::BatchNorm { eps: self.eps, momentum: self.momentum }, &[x])
    }

    /// A non-linearity.
    pub fn activation(&mut self, name: &str, x: Value, kind: Activation) -> Result<Value> {
        self.node(name, Op::Activation { kind }, &[x])
    }

    /// The sum of two values.
    pub fn add(&mut self, name: &str, x: Value, y: Value) -> Result<Value> {
        self.node(name, Op::Add, &[x, y])
    }

    /// The finished graph, whose output is `output`.
    pub fn finish(self, output: Value) -> Result<Graph> {
        let input = self.shapes[0].clone();
        Graph::new(self.name, input, self.nodes, output, self.layers)
    }
}
