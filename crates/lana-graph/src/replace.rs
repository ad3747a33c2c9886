//! Cutting networks and putting them together: how students are made.

use std::collections::HashSet;

use crate::{Error, Graph, Layer, Node, Parameter, Result, Value, Weights};

impl Graph {
    /// The part of the network that makes `to` out of `from`, as a network of its own.
    ///
    /// Layers that lie wholly inside come along. Names lose `prefix` (for a layer: its name and a dot) where they have
    /// it, unless two would be the same without it. It is an error if `to` needs anything but `from`.
    pub fn subgraph(&self, from: Value, to: Value, prefix: &str) -> Result<Graph> {
        let (first, last) = (from.index(), to.index());
        if last < first {
            return Err(Error::Graph {
                graph: self.name().to_string(),
                reason: format!("value {first} comes after value {last}, nothing lies between"),
            });
        }
        let mut needed = vec![false; last + 1];
        needed[last] = true;
        for value in (first + 1..=last).rev() {
            if needed[value] {
                for input in &self.nodes()[value - 1].inputs {
                    if input.index() < first {
                        return Err(Error::Graph {
                            graph: self.name().to_string(),
                            reason: format!(
                                "node `{}` also needs a value from before the cut",
                                self.nodes()[value - 1].name
                            ),
                        });
                    }
                    needed[input.index()] = true;
                }
            }
        }
        let prefix = self.removable(from, to, prefix);
        let short = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_string();
        let mut place = vec![None; last + 1];
        place[first] = Some(Value::INPUT);
        let mut nodes = Vec::new();
        for value in first + 1..=last {
            if needed[value] {
                let node = &self.nodes()[value - 1];
                let inputs = node.inputs.iter().filter_map(|v| place[v.index()]).collect();
                nodes.push(Node { name: short(&node.name), op: node.op.clone(), inputs });
                place[value] = Some(Value::of_node(nodes.len() - 1));
            }
        }
        let at = |v: Value| place.get(v.index()).copied().flatten();
        let mut layers = Vec::new();
        for layer in self.layers() {
            let whole = layer.nodes.clone().all(|n| n + 1 > first && n < last && needed[n + 1]);
            if let (true, Some(input), Some(output)) = (whole, at(layer.input), at(layer.output)) {
                let start = match at(Value::of_node(layer.nodes.start)) {
                    Some(value) if !layer.nodes.is_empty() => value.index() - 1,
                    _ => input.index(),
                };
                let nodes = start..start + layer.nodes.len();
                layers.push(Layer {
                    name: short(&layer.name),
                    stage: layer.stage.clone(),
                    nodes,
                    input,
                    output,
                });
            }
        }
        let output = at(to).unwrap_or(Value::INPUT);
        Graph::new(self.name(), self.shape(from).clone(), nodes, output, layers)
    }

    /// A layer as a network of its own: its nodes lose the layer's name as prefix, so that it can replace any layer of
    /// the same shapes.
    pub fn layer_graph(&self, layer: &str) -> Result<Graph> {
        let (_, found) = self.layer(layer)?;
        let graph = self.subgraph(found.input, found.output, &format!("{layer}."))?;
        let (_, input, nodes, output, _) = graph.into_parts();
        Graph::new(layer, input, nodes, output, Vec::new())
    }

    /// Of the weights of the network those of a layer, under the names that [`Graph::layer_graph`] gives its nodes. Nodes need not be
    /// called as their layer is: one that was put together of several has none of their names.
    ///
    /// # Errors
    /// If there is no such layer. Weights that are missing stay so.
    pub fn layer_weights(&self, layer: &str, weights: &Weights) -> Result<Weights> {
        let (_, found) = self.layer(layer)?;
        let prefix = format!("{layer}.");
        let prefix = self.removable(found.input, found.output, &prefix);
        let own = self.layer_parameters(layer)?.into_iter().filter_map(|parameter| {
            let node = &self.nodes()[parameter.node].name;
            let removed = node.len() - node.strip_prefix(prefix).unwrap_or(node).len();
            Some((parameter.name[removed..].to_string(), weights.get(&parameter.name)?.clone()))
        });
        Ok(own.collect())
    }

    /// Puts the weights of an operation in the place of a layer's, as [`Graph::replace`] does with its nodes.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn replace_weights(&self, layer: &str, weights: &mut Weights, operation: &Weights) -> Result<()> {
        for parameter in self.layer_parameters(layer)? {
            weights.remove(&parameter.name);
        }
        let prefix = self.operation_prefix(self.layer(layer)?.1);
        for (name, tensor) in operation.iter() {
            weights.insert(format!("{prefix}{name}"), tensor.clone());
        }
        Ok(())
    }

    /// What names between two values can lose and still be different: `prefix`, or nothing.
    fn removable<'a>(&self, from: Value, to: Value, prefix: &'a str) -> &'a str {
        let mut names = HashSet::new();
        let mut between = self.nodes()[from.index()..to.index()].iter();
        match between.all(|node| names.insert(node.name.strip_prefix(prefix).unwrap_or(&node.name))) {
            true => prefix,
            false => "",
        }
    }

    /// What is put in front of the names of an operation's nodes: the layer's name, and where nodes outside of the layer have that too,
    /// as in some files, a word of its own.
    fn operation_prefix(&self, layer: &Layer) -> String {
        let is_free = |prefix: &str| {
            let outside = self.nodes().iter().enumerate().filter(|(index, _)| !layer.nodes.contains(index));
            outside.into_iter().all(|(_, node)| !node.name.starts_with(prefix))
        };
        let mut prefix = format!("{}.", layer.name);
        while !is_free(&prefix) {
            prefix += "op.";
        }
        prefix
    }

    fn layer_parameters(&self, layer: &str) -> Result<Vec<Parameter>> {
        let (_, found) = self.layer(layer)?;
        Ok(self.parameters().into_iter().filter(|parameter| found.nodes.contains(&parameter.node)).collect())
    }

    /// The network with `operation` in the place of a layer. The operation's nodes get the layer's name as prefix (and `op.` behind it
    /// where nodes outside of the layer have that prefix too). An
    /// operation without nodes skips the layer. This is the only way a student is made.
    ///
    /// Where the layer's input is also read further on, past the layer, skipping makes those readers and the layer's own
    /// read the same value: putting an operation into the skipped layer afterwards would move them all. Start from the
    /// teacher again there.
    pub fn replace(&self, layer: &str, operation: &Graph) -> Result<Graph> {
        let (position, found) = self.layer(layer)?;
        let found = found.clone();
        let (want_in, want_out) = (self.shape(found.input), self.shape(found.output));
        if operation.input_shape() != want_in || operation.output_shape() != want_out {
            return Err(Error::Replacement {
                operation: operation.name().to_string(),
                layer: layer.to_string(),
                got_in: Box::new(operation.input_shape().clone()),
                got_out: Box::new(operation.output_shape().clone()),
                want_in: Box::new(want_in.clone()),
                want_out: Box::new(want_out.clone()),
            });
        }
        let start = found.nodes.start;
        let inner = |v: Value| match v.node() {
            None => found.input,
            Some(n) => Value::of_node(start + n),
        };
        let new_output = inner(operation.output());
        // Where an operation passes its input on although it has nodes, those nodes are dead: leave them out.
        let added: &[Node] = if operation.output() == Value::INPUT { &[] } else { operation.nodes() };
        let shift = |n: usize| n + added.len() - found.nodes.len();
        let outer = |v: Value| match v.node() {
            _ if v == found.output => new_output,
            Some(n) if n >= found.nodes.end => Value::of_node(shift(n)),
            _ => v,
        };
        let mut nodes = self.nodes()[..start].to_vec();
        let prefix = self.operation_prefix(&found);
        nodes.extend(added.iter().map(|n| Node {
            name: format!("{prefix}{}", n.name),
            op: n.op.clone(),
            inputs: n.inputs.iter().map(|&v| inner(v)).collect(),
        }));
        nodes.extend(self.nodes()[found.nodes.end..].iter().map(|n| Node {
            name: n.name.clone(),
            op: n.op.clone(),
            inputs: n.inputs.iter().map(|&v| outer(v)).collect(),
        }));
        let mut layers = Vec::with_capacity(self.layers().len());
        for (index, old) in self.layers().iter().enumerate() {
            let (range, input, output) = match index.cmp(&position) {
                std::cmp::Ordering::Less => (old.nodes.clone(), old.input, old.output),
                std::cmp::Ordering::Equal => (start..start + added.len(), old.input, new_output),
                std::cmp::Ordering::Greater => {
                    (shift(old.nodes.start)..shift(old.nodes.end), outer(old.input), outer(old.output))
                }
            };
            layers.push(Layer { nodes: range, input, output, ..old.clone() });
        }
        Graph::new(self.name(), self.input_shape().clone(), nodes, outer(self.output()), layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, GraphBuilder, Shape, Tensor};

    /// A layer `b` in which `conv` and `b.conv` stand, beside a node `b.conv2` outside of it.
    fn network() -> Result<Graph> {
        let mut b = GraphBuilder::new("network", Shape::image(4, 8, 8));
        let x = b.activation("stem", Value::INPUT, Activation::Relu)?;
        let y = b.conv("conv", x, 4, 3, 1, 1)?;
        let y = b.conv("b.conv", y, 4, 1, 1, 1)?;
        let z = b.conv("b.conv2", y, 4, 1, 1, 1)?;
        let (name, input, nodes, output, _) = b.finish(z)?.into_parts();
        let layer = Layer { name: "b".into(), stage: "b".into(), nodes: 1..3, input: x, output: y };
        Graph::new(name, input, nodes, output, vec![layer])
    }

    #[test]
    fn names_that_would_be_the_same_keep_what_tells_them_apart() {
        let graph = network().unwrap();
        let own = graph.layer_graph("b").unwrap();
        let names = |graph: &Graph| graph.nodes().iter().map(|n| n.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&own), ["conv", "b.conv"]);
        let all = graph.parameters();
        let weights: Weights = all.iter().map(|p| (p.name.clone(), Tensor::full(&p.shape, 0.5))).collect();
        let layer_weights = graph.layer_weights("b", &weights).unwrap();
        layer_weights.check(&own).unwrap();

        // What stands in the layer's place is told from `b.conv2`, which is not in it.
        let mut b = GraphBuilder::new("operation", own.input_shape().clone());
        let y = b.conv("conv2", Value::INPUT, 4, 3, 1, 1).unwrap();
        let operation = b.finish(y).unwrap();
        let student = graph.replace("b", &operation).unwrap();
        assert_eq!(names(&student), ["stem", "b.op.conv2", "b.conv2"]);
        let theirs: Weights =
            operation.parameters().iter().map(|p| (p.name.clone(), Tensor::full(&p.shape, 0.1))).collect();
        let mut replaced = weights;
        graph.replace_weights("b", &mut replaced, &theirs).unwrap();
        replaced.check(&student).unwrap();
    }
}
