use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Graph;

/// What a network or a part of it costs apart from time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of convolutions and fully connected layers for one sample.
    pub macs: u64,
    /// Trained parameters: running statistics do not count, as in PyTorch's `parameters()`.
    pub params: u64,
}

impl Graph {
    /// Cost of the whole network.
    pub fn cost(&self) -> Cost {
        self.cost_of(0..self.nodes().len())
    }

    /// Cost of a range of nodes, such as a layer's.
    pub fn cost_of(&self, nodes: Range<usize>) -> Cost {
        let mut cost = Cost::default();
        for index in nodes {
            let node = &self.nodes()[index];
            let inputs = self.input_shapes(index);
            let macs = node.op.macs(&inputs, self.shape(crate::Value::of_node(index)));
            cost.macs = cost.macs.saturating_add(macs);
            cost.params += node
                .op
                .parameters(&inputs)
                .iter()
                .filter(|(_, _, role)| role.is_trained())
                .map(|(_, shape, _)| shape.iter().product::<usize>() as u64)
                .sum::<u64>();
        }
        cost
    }
}
