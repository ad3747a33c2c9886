//! How much memory the feature maps of a network take while it runs.
//!
//! A value is alive from the step that makes it (the input: from the start) to the last step that reads it (the output: to
//! the end). Nodes run in their order, one after the other; while node `n` runs, what it reads and what it makes are alive
//! together: nothing is computed in place. So
//!
//! ```text
//! memory(n) = Σ elements(v)   over all values v with  made(v) ≤ n ≤ last read(v)
//! peak      = max memory(n)   over all nodes n
//! ```
//!
//! in elements, for one sample. Weights, and what kernels need for themselves, are not in it.
//!
//! The peak is no sum over layers, but a maximum over regions: while a layer runs, alive are what stands in it, its input,
//! and the values that pass around it. The last two do not depend on what stands in other layers; so the peak of a
//! student is the largest of [`Graph::peak_memory_in`] of its layers, each with its operation in the teacher, and
//! [`Graph::peak_memory_outside`] of the teacher's layers. (At most that, where a value passes around layers: one that is
//! skipped may make two such values one.)

use crate::{Graph, Layer, Result, Value};

impl Graph {
    /// Most elements of feature maps, of one sample, that are alive at once while the network runs. Take
    /// [`Graph::deployed`] for what is deployed.
    pub fn peak_memory(&self) -> u64 {
        self.memory().into_iter().max().unwrap_or_else(|| self.input_shape().elements() as u64)
    }

    /// The same while nodes run that stand in no layer; 0 if all do.
    pub fn peak_memory_outside(&self) -> u64 {
        let inside = |node: usize| self.layers().iter().any(|layer| layer.nodes.contains(&node));
        let memory = self.memory().into_iter().enumerate();
        memory.filter(|(node, _)| !inside(*node)).map(|(_, alive)| alive).max().unwrap_or(0)
    }

    /// The same while the nodes of a layer run if `operation` stands in its place; 0 if the operation skips the layer.
    /// Both networks are taken as they are: give [`Graph::deployed`] of both for what is deployed.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn peak_memory_in(&self, layer: &str, operation: &Graph) -> Result<u64> {
        let (_, layer) = self.layer(layer)?;
        let (around, input_stays) = self.around(layer);
        if operation.output() == Value::INPUT {
            return Ok(0);
        }
        let mut last = operation.last_reads();
        if input_stays {
            last[0] = operation.nodes().len();
        }
        Ok(around + operation.alive(&last).into_iter().max().unwrap_or(0))
    }

    /// Elements of the values that pass around a layer, and whether its input is read behind it.
    fn around(&self, layer: &Layer) -> (u64, bool) {
        let last = self.last_reads();
        let read_behind = |value: usize| last[value] >= layer.nodes.end;
        let before = (0..=layer.nodes.start).filter(|&v| v != layer.input.index() && read_behind(v));
        (before.map(|v| self.shape(Value(v)).elements() as u64).sum(), read_behind(layer.input.index()))
    }

    /// Elements alive while each node runs.
    fn memory(&self) -> Vec<u64> {
        self.alive(&self.last_reads())
    }

    fn alive(&self, last: &[usize]) -> Vec<u64> {
        let (mut alive, mut most) = (0_u64, Vec::with_capacity(self.nodes().len()));
        // What ceases to be alive behind each node.
        let mut freed = vec![0_u64; self.nodes().len() + 1];
        let make = |value: usize, first: usize, freed: &mut Vec<u64>| {
            let elements = self.shape(Value(value)).elements() as u64;
            freed[last[value].max(first)] += elements;
            elements
        };
        alive += make(0, 0, &mut freed);
        for node in 0..self.nodes().len() {
            alive += make(node + 1, node, &mut freed);
            most.push(alive);
            alive -= freed[node];
        }
        most
    }

    /// The last node that reads each value; behind the last node for the output, 0 for what nobody reads.
    pub(crate) fn last_reads(&self) -> Vec<usize> {
        let mut last = vec![0; self.nodes().len() + 1];
        for (index, node) in self.nodes().iter().enumerate() {
            for input in &node.inputs {
                last[input.index()] = index;
            }
        }
        last[self.output().index()] = self.nodes().len();
        last
    }
}
