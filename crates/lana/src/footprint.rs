//! What networks take in memory and on disk once they are deployed, as far as a pool can tell beforehand.
//!
//! *Memory* is the peak of [`Graph::peak_memory`]: a maximum over regions, so that a limit on it forbids operations
//! whose own region is above it, and needs the parts outside of layers to stay below it. *Size* is that of the ONNX file
//! ([`lana_onnx::file_size`]); it adds up but for the digits of some numbers in it, so that the program goes by the sum, and
//! candidates by the file itself.

use lana_graph::{Graph, GraphBuilder, Node, Shape};
use lana_latency::Precision;

use crate::{Footprint, Result};

impl Footprint {
    /// Bytes of the feature maps at their peak, for one image.
    pub fn memory_bytes(&self, precision: Precision) -> u64 {
        self.peak_elements * element_bytes(precision)
    }

    /// Bytes in the ONNX file.
    pub fn size_bytes(&self, precision: Precision) -> u64 {
        (self.file_bytes + self.weights * element_bytes(precision)).saturating_sub(4 * self.weights)
    }

    /// Of a whole network.
    ///
    /// # Errors
    /// If the network cannot be brought into its deployed form, which would be a fault of lana-graph.
    pub(crate) fn of(graph: &Graph) -> Result<Footprint> {
        let deployed = graph.deployed()?;
        Ok(Footprint {
            peak_elements: deployed.peak_memory(),
            weights: weights(&deployed),
            file_bytes: file_bytes(&deployed)?,
        })
    }

    /// Of an operation in the place of a layer of a teacher, which is given as it is deployed.
    pub(crate) fn at(teacher: &Graph, layer: &str, operation: &Graph) -> Result<Footprint> {
        let deployed = operation.deployed()?;
        let peak_elements = teacher.peak_memory_in(layer, &deployed)?;
        // Its nodes as they are called in the student.
        let named = |n: &Node| Node { name: format!("{layer}.{}", n.name), ..n.clone() };
        let nodes = deployed.nodes().iter().map(named).collect();
        let input = deployed.input_shape().clone();
        let named = Graph::new("", input.clone(), nodes, deployed.output(), Vec::new())?;
        Ok(Footprint {
            peak_elements,
            weights: weights(&deployed),
            file_bytes: file_bytes(&named)?.saturating_sub(file_bytes(&empty(input)?)?),
        })
    }

    /// Of what stands in no layer of a teacher, which is given as it is deployed, with its layers' own.
    pub(crate) fn outside(teacher: &Graph, own: &[Footprint]) -> Result<Footprint> {
        let sum = |of: fn(&Footprint) -> u64| own.iter().map(of).sum::<u64>();
        Ok(Footprint {
            peak_elements: teacher.peak_memory_outside(),
            weights: weights(teacher).saturating_sub(sum(|f| f.weights)),
            file_bytes: file_bytes(teacher)?.saturating_sub(sum(|f| f.file_bytes)),
        })
    }
}

/// Bytes of the ONNX file of a network with 32-bit weights.
fn file_bytes(deployed: &Graph) -> Result<u64> {
    Ok(lana_onnx::file_size(deployed, Precision::Fp32)?)
}

/// Bytes of the file that a network is deployed as.
pub(crate) fn file_size(graph: &Graph, precision: Precision) -> Result<u64> {
    Ok(lana_onnx::file_size(&graph.deployed()?, precision)?)
}

fn empty(input: Shape) -> Result<Graph> {
    let builder = GraphBuilder::new("", input);
    let input = builder.input();
    Ok(builder.finish(input)?)
}

fn weights(graph: &Graph) -> u64 {
    graph.parameters().iter().map(|p| p.shape.iter().product::<usize>() as u64).sum()
}

/// Bytes of a weight, or of an element of a feature map.
fn element_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::Fp32 => 4,
        Precision::Fp16 | Precision::Bf16 => 2,
    }
}

#[cfg(test)]
mod tests {
    use lana_models::pool::Pools;
    use lana_models::zoo::{self, ZooOptions};

    use super::*;
    use crate::context::pool_of;
    use crate::stages::profile::record;

    /// Assembles students of a real pool and compares what was foretold with what they are.
    #[test]
    fn what_a_pool_foretells_comes_true() {
        for (name, pool) in
            [("resnet20_cifar", "compact"), ("efficientnet_b0", "compact,repvgg-k3,vit-d1-w64-h4")]
        {
            let teacher = zoo::build(name, &ZooOptions::default()).unwrap();
            let pool = pool_of(&Pools::parse(pool, &[]).unwrap(), &teacher).unwrap();
            let record = record("", &[], &teacher, &pool).unwrap();
            let mut seed = 1_u64;
            for round in 0..12 {
                let mut student = teacher.clone();
                let mut foretold = record.outside;
                for (place, layer) in record.layers.iter().zip(&pool) {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let pick = if round == 0 { 0 } else { (seed >> 33) as usize % place.operations.len() };
                    let chosen = &place.operations[pick].footprint;
                    foretold.peak_elements = foretold.peak_elements.max(chosen.peak_elements);
                    foretold.weights += chosen.weights;
                    foretold.file_bytes += chosen.file_bytes;
                    if pick > 0 {
                        student = student.replace(&place.layer, &layer.operations[pick - 1].1).unwrap();
                    }
                }
                let real = Footprint::of(&student).unwrap();
                assert_eq!(foretold.peak_elements, real.peak_elements, "{name} {round}");
                assert_eq!(foretold.weights, real.weights, "{name} {round}");
                let error = foretold.file_bytes as f64 / real.file_bytes as f64 - 1.0;
                assert!(error.abs() < 0.003, "{name} {round}: {error}");
                for precision in [Precision::Fp32, Precision::Fp16] {
                    assert!(foretold.size_bytes(precision) > 0 && real.memory_bytes(precision) > 0);
                }
            }
        }
    }
}
