use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Op, Result, Role, Shape};

/// A value of a graph: its input (index 0) or the result of a node (index of the node plus one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(pub(crate) usize);

impl Value {
    /// The graph's input.
    pub const INPUT: Value = Value(0);

    /// The result of node number `node`.
    pub fn of_node(node: usize) -> Self {
        Value(node + 1)
    }

    /// Position among the graph's values: 0 is the input.
    pub fn index(self) -> usize {
        self.0
    }

    /// The node that makes the value; none for the input.
    pub fn node(self) -> Option<usize> {
        self.0.checked_sub(1)
    }
}

/// One operation at its place: `name` is its path in the network (`layer1.0.conv1`) and the prefix of its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Path in the network, unique in the graph.
    pub name: String,
    /// What it computes.
    #[serde(flatten)]
    pub op: Op,
    /// From what.
    pub inputs: Vec<Value>,
}

/// A replaceable region: a contiguous range of nodes with one input value and one output value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Path of the block, such as `layer1.0`; unique in the graph, and as a rule the prefix of its nodes' names
    /// (not in one that is put together of several blocks, or found in a file that names nodes otherwise).
    pub name: String,
    /// The stage it belongs to, such as `layer1`: layers of one stage share their resolution.
    pub stage: String,
    /// Its nodes. Empty when the layer is skipped.
    pub nodes: Range<usize>,
    /// The value it takes.
    pub input: Value,
    /// The value it gives; equal to `input` when the layer is skipped.
    pub output: Value,
}

/// A parameter of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Full name: the node's name, a dot, the name within the operation (`layer1.0.conv1.weight`).
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// The node it belongs to.
    pub node: usize,
}

/// A network with one input and one output: nodes in topological order, static shapes but for the batch.
///
/// A graph is always well formed: it is made by [`crate::GraphBuilder`], by cutting and replacing, or read from JSON,
/// and each of these checks order, names, shapes and layers.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    output: Value,
    layers: Vec<Layer>,
}

/// The graph as it stands in JSON; shapes are inferred again when it is read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    name: String,
    input: Shape,
    output: Value,
    nodes: Vec<Node>,
    layers: Vec<Layer>,
}

impl TryFrom<Plain> for Graph {
    type Error = Error;

    fn try_from(plain: Plain) -> Result<Self> {
        Graph::new(plain.name, plain.input, plain.nodes, plain.output, plain.layers)
    }
}

impl From<Graph> for Plain {
    fn from(graph: Graph) -> Self {
        let input = graph.input_shape().clone();
        Plain { name: graph.name, input, output: graph.output, nodes: graph.nodes, layers: graph.layers }
    }
}

impl Graph {
    /// Makes a graph of its parts, inferring every shape. Errors name the node or layer that is wrong.
    pub fn new(
        name: impl Into<String>,
        input: Shape,
        nodes: Vec<Node>,
        output: Value,
        layers: Vec<Layer>,
    ) -> Result<Self> {
        let name = name.into();
        let wrong = |reason: String| Error::Graph { graph: name.clone(), reason };
        if !Shape::is_sane(input.dims()) {
            return Err(wrong(format!("input shape {input} is too large")));
        }
        if input.elements() == 0 {
            return Err(wrong(format!("input shape {input} is empty")));
        }
        let mut names = HashSet::new();
        let mut shapes = vec![input];
        for (index, node) in nodes.iter().enumerate() {
            if node.name.is_empty() || !names.insert(node.name.as_str()) {
                return Err(wrong(format!("node {index} has the empty or repeated name `{}`", node.name)));
            }
            let inputs =
                node.inputs.iter().map(|v| shapes.get(v.0)).collect::<Option<Vec<_>>>().ok_or_else(|| {
                    wrong(format!("node `{}` takes a value that no earlier node makes", node.name))
                })?;
            let shape =
                node.op.infer(&inputs).map_err(|reason| Error::Shape { node: node.name.clone(), reason })?;
            shapes.push(shape);
        }
        if output.0 >= shapes.len() {
            return Err(wrong("its output is a value that no node makes".into()));
        }
        let graph = Graph { name, nodes, shapes, output, layers };
        graph.check_layers()?;
        Ok(graph)
    }

    fn check_layers(&self) -> Result<()> {
        let mut names = HashSet::new();
        let mut free_from = 0;
        let last_reads = self.last_reads();
        for layer in &self.layers {
            let wrong = |reason: &str| {
                Err(Error::Graph {
                    graph: self.name.clone(),
                    reason: format!("layer `{}` {reason}", layer.name),
                })
            };
            if !names.insert(layer.name.as_str()) {
                return wrong("stands twice");
            }
            let Range { start, end } = layer.nodes;
            if start > end || end > self.nodes.len() || start < free_from {
                return wrong("overlaps another or reaches beyond the graph");
            }
            free_from = end;
            let inside = |v: Value| v.node().is_some_and(|n| layer.nodes.contains(&n));
            if layer.input.0 > start || layer.output.0 >= self.shapes.len() {
                return wrong("takes or gives a value that is not there");
            }
            if start == end && layer.input != layer.output || start < end && !inside(layer.output) {
                return wrong("does not make its output");
            }
            for node in &self.nodes[layer.nodes.clone()] {
                if node.inputs.iter().any(|&v| !inside(v) && v != layer.input) {
                    return wrong("reads a second value from outside");
                }
            }
            if (start..end).any(|node| node + 1 != layer.output.0 && last_reads[node + 1] >= end) {
                return wrong("has an inner value that is read from outside");
            }
        }
        Ok(())
    }

    /// Reads a graph from JSON.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        serde_json::from_str(&text)
            .map_err(|e| Error::File { path: path.to_path_buf(), reason: format!("not a network: {e}") })
    }

    /// The graph as JSON, one node a line.
    pub fn to_json(&self) -> String {
        let line = |value: serde_json::Value| value.to_string();
        let list = |items: Vec<String>| match items.is_empty() {
            true => "[]".to_string(),
            false => format!("[\n    {}\n  ]", items.join(",\n    ")),
        };
        format!(
            "{{\n  \"name\": {},\n  \"input\": {},\n  \"output\": {},\n  \"nodes\": {},\n  \"layers\": {}\n}}\n",
            line(self.name.as_str().into()),
            line(self.input_shape().dims().into()),
            self.output.0,
            list(self.nodes.iter().map(|n| line(serde_json::json!(n))).collect()),
            list(self.layers.iter().map(|l| line(serde_json::json!(l))).collect()),
        )
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same graph by another name.
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Replaceable regions in the order of the network.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layer of that name, with its position.
    pub fn layer(&self, name: &str) -> Result<(usize, &Layer)> {
        self.layers.iter().enumerate().find(|(_, l)| l.name == name).ok_or_else(|| Error::UnknownLayer {
            graph: self.name.clone(),
            layer: name.to_string(),
            known: self.layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The value the graph gives.
    pub fn output(&self) -> Value {
        self.output
    }

    /// Shape of a value, without the batch.
    ///
    /// # Panics
    /// If the value belongs to a larger graph.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.shapes[value.0]
    }

    /// Shape of the input, without the batch.
    pub fn input_shape(&self) -> &Shape {
        &self.shapes[0]
    }

    /// Shape of the output, without the batch.
    pub fn output_shape(&self) -> &Shape {
        &self.shapes[self.output.0]
    }

    /// Shapes of the values a node takes.
    pub fn input_shapes(&self, node: usize) -> Vec<&Shape> {
        self.nodes[node].inputs.iter().map(|v| self.shape(*v)).collect()
    }

    /// Every parameter, in the order of the nodes.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for (suffix, shape, role) in node.op.parameters(&self.input_shapes(index)) {
                list.push(Parameter { name: format!("{}.{suffix}", node.name), shape, role, node: index });
            }
        }
        list
    }

    /// The values that every path from the input to the output passes, in order, both ends included.
    pub fn cuts(&self) -> Vec<Value> {
        let mut last_use = vec![0; self.shapes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|value| last_use[value.0] = index + 1);
        }
        last_use[self.output.0] = self.nodes.len() + 1;
        let mut found = vec![Value::INPUT];
        // How far values are read that are older than the one that is looked at.
        let mut reach = last_use[0];
        for (value, &last) in last_use.iter().enumerate().skip(1) {
            // Read by nodes up to number `reach`, counted from one: the node that makes this value at most.
            if reach <= value && last > 0 {
                found.push(Value(value));
            }
            reach = reach.max(last);
        }
        found
    }

    /// How many nodes (and, for the last value, the outside world) read each value.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.shapes.len()];
        for value in self.nodes.iter().flat_map(|n| &n.inputs) {
            uses[value.0] += 1;
        }
        uses[self.output.0] += 1;
        uses
    }

    pub(crate) fn into_parts(self) -> (String, Shape, Vec<Node>, Value, Vec<Layer>) {
        let input = self.shapes[0].clone();
        (self.name, input, self.nodes, self.output, self.layers)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} -> {}", self.name, self.input_shape(), self.output_shape())?;
        for (i, n) in self.nodes.iter().enumerate() {
            let inputs: Vec<_> = n.inputs.iter().map(|v| v.0).collect();
            writeln!(f, "  {:3} {} {:?} {:?} -> {}", i + 1, n.name, n.op, inputs, self.shapes[i + 1])?;
        }
        Ok(())
    }
}
