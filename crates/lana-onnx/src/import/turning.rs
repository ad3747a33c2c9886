//! Changes of the order of dimensions, carried to where they end.
//!
//! A network that holds its feature maps by rows, columns, channels turns them in front of every convolution, which wants channels
//! first, and back behind it. Each change is carried over what does not mind the order, branches and sums too, until the next one
//! undoes it, or something needs the dimensions as they were.

use std::collections::HashMap;

use lana_graph::{Node, Op, Shape, Tensor, Value};

use super::array::Array;
use super::names::Names;
use super::simplify::{Draft, by_other_dimensions};

/// A value of the old network is that of the new one with its dimensions in this order.
#[derive(Clone, PartialEq)]
struct Turned {
    value: Value,
    order: Vec<usize>,
}

impl Turned {
    fn is_as_it_was(&self) -> bool {
        self.order.is_sorted()
    }
}

/// The network in the making.
struct Carrier {
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    /// What each old value is.
    known: Vec<Turned>,
    /// Old values that something needed as they were.
    settled: HashMap<Value, Value>,
    names: Names,
}

impl Draft {
    /// Puts every change of the order of dimensions where it ends, if there are fewer of them then; whether there are.
    pub(super) fn carry_turning(&mut self) -> bool {
        let count = |nodes: &[Node]| nodes.iter().filter(|n| matches!(n.op, Op::Transpose { .. })).count();
        let before = count(&self.nodes);
        if before < 2 {
            return false;
        }
        let input = Turned { value: Value::INPUT, order: (0..self.shapes[0].dims().len()).collect() };
        let mut carrier = Carrier {
            nodes: Vec::with_capacity(self.nodes.len()),
            shapes: vec![self.shapes[0].clone()],
            known: vec![input],
            settled: HashMap::new(),
            names: Names::of(self.nodes.iter().map(|node| node.name.clone())),
        };
        let mut parameters = Vec::new();
        for node in &self.nodes {
            if let Some(order) = carrier.carry(self, node) {
                parameters.push((format!("{}.weight", node.name), order));
            }
        }
        let output = carrier.settle(self, self.output);
        if count(&carrier.nodes) >= before {
            return false;
        }
        for (name, order) in parameters {
            if let Some(Tensor { shape, data }) = self.weights.remove(&name) {
                self.weights.insert(name, Array::floats(shape, data).transposed(&order).to_tensor());
            }
        }
        (self.nodes, self.shapes, self.output) = (carrier.nodes, carrier.shapes, output);
        true
    }
}

impl Carrier {
    /// Adds a node of the old network, before what changes the order of its inputs if it can stand there; gives the order in
    /// which its parameters are then.
    fn carry(&mut self, old: &Draft, node: &Node) -> Option<Vec<usize>> {
        let inputs: Vec<Turned> = node.inputs.iter().map(|v| self.known[v.index()].clone()).collect();
        if let (Op::Transpose { order }, [x]) = (&node.op, &inputs[..]) {
            let order = order.iter().map(|&at| x.order[at]).collect();
            self.known.push(Turned { value: x.value, order });
            return None;
        }
        if let (Op::Reshape { shape }, [x]) = (&node.op, &inputs[..])
            && let Some(order) = moved(old.shapes[node.inputs[0].index()].dims(), shape)
        {
            let order = order.iter().map(|&at| x.order[at]).collect();
            self.known.push(Turned { value: x.value, order });
            return None;
        }
        let turned = inputs.iter().find(|x| !x.is_as_it_was());
        if let Some(Turned { order, .. }) = turned
            && let Some(back) = self.before(node, &inputs, order)
        {
            return Some(back);
        }
        let inputs = node.inputs.iter().map(|&value| self.settle(old, value)).collect();
        let shape = old.shapes[self.known.len()].clone();
        let order = (0..shape.dims().len()).collect();
        let value = self.add(Node { inputs, ..node.clone() }, shape);
        self.known.push(Turned { value, order });
        None
    }

    /// Adds a node whose inputs all are in this order, or can be put into it for nothing, before that order is made; gives the
    /// reverse order. None if it is not to be had.
    fn before(&mut self, node: &Node, inputs: &[Turned], order: &[usize]) -> Option<Vec<usize>> {
        let back: Vec<usize> =
            (0..order.len()).map(|at| order.iter().position(|&o| o == at)).collect::<Option<_>>()?;
        let op = match &node.op {
            op @ (Op::Add | Op::Mul) => op.clone(),
            Op::Concat { axis } => Op::Concat { axis: order[*axis] },
            Op::Mean { axes } => {
                let mut axes: Vec<usize> = axes.iter().map(|&axis| order[axis]).collect();
                axes.sort_unstable();
                match (order.len(), &axes[..]) {
                    (3, [1, 2]) => Op::GlobalAveragePool,
                    _ => Op::Mean { axes },
                }
            }
            op => by_other_dimensions(op, &back)?,
        };
        // Where only dimensions of size 1 move, that is a Reshape.
        let mut fitting = Vec::with_capacity(inputs.len());
        for x in inputs {
            let shape = &self.shapes[x.value.index()];
            let left: Vec<usize> = back.iter().map(|&at| x.order.get(at).copied()).collect::<Option<_>>()?;
            if x.order.len() != order.len() || !is_idle(shape, &left) {
                return None;
            }
            fitting.push(turned(shape, &left));
        }
        let shape = op.infer(&fitting.iter().collect::<Vec<_>>()).ok()?;
        let mut values = Vec::with_capacity(inputs.len());
        for (x, fitting) in inputs.iter().zip(fitting) {
            values.push(match self.shapes[x.value.index()] == fitting {
                true => x.value,
                false => {
                    let name = self.unique(&node.name);
                    self.reshape(name, x.value, fitting)
                }
            });
        }
        let value = self.add(Node { name: node.name.clone(), op, inputs: values }, shape);
        self.known.push(Turned { value, order: order.to_vec() });
        Some(back)
    }

    /// A value of the old network as it was.
    fn settle(&mut self, old: &Draft, value: Value) -> Value {
        let now = self.known[value.index()].clone();
        if now.is_as_it_was() {
            return now.value;
        }
        if let Some(&settled) = self.settled.get(&value) {
            return settled;
        }
        let shape = old.shapes[value.index()].clone();
        let maker = value.node().map(|node| &old.nodes[node]);
        let name = match maker {
            Some(Node { name, op: Op::Transpose { .. } | Op::Reshape { .. }, .. }) => name.clone(),
            maker => self.unique(maker.map_or("image", |node| &node.name)),
        };
        let settled = match is_idle(&self.shapes[now.value.index()], &now.order) {
            true => self.reshape(name, now.value, shape),
            false => self
                .add(Node { name, op: Op::Transpose { order: now.order }, inputs: vec![now.value] }, shape),
        };
        self.settled.insert(value, settled);
        settled
    }

    fn reshape(&mut self, name: String, value: Value, shape: Shape) -> Value {
        let op = Op::Reshape { shape: shape.dims().to_vec() };
        self.add(Node { name, op, inputs: vec![value] }, shape)
    }

    fn add(&mut self, node: Node, shape: Shape) -> Value {
        self.nodes.push(node);
        self.shapes.push(shape);
        Value::of_node(self.nodes.len() - 1)
    }

    /// A name for what turns that which a node makes or reads.
    fn unique(&mut self, of: &str) -> String {
        self.names.unique(&format!("{of}.turned"), "turned")
    }
}

/// The order in which dimensions of size 1 have moved and all others stay, if that is all that has become of them.
fn moved(old: &[usize], new: &[usize]) -> Option<Vec<usize>> {
    let places = |whole: bool| (0..old.len()).filter(move |&at| (old[at] == 1) == whole);
    let (mut ones, mut others) = (places(true), places(false));
    let order: Option<Vec<usize>> =
        new.iter().map(|&size| if size == 1 { ones.next() } else { others.next() }).collect();
    let fits = |order: &Vec<usize>| {
        order.len() == old.len() && order.iter().zip(new).all(|(&at, &size)| old[at] == size)
    };
    order.filter(fits)
}

/// Whether elements stay in their order if the dimensions are put into this one.
fn is_idle(shape: &Shape, order: &[usize]) -> bool {
    order.iter().filter(|&&at| shape.dims()[at] != 1).is_sorted()
}

fn turned(shape: &Shape, order: &[usize]) -> Shape {
    Shape::of(&order.iter().map(|&at| shape.dims()[at]).collect::<Vec<_>>())
}
