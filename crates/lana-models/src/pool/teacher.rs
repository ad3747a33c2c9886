//! The two operations every method has: the teacher's own layer, and skipping it.

use lana_graph::{Graph, Value, Weights};

use super::preset::listed;
use super::{Family, NotApplicable, any};

pub(super) static TEACHER: Family = Family {
    name: "teacher",
    summary: "the teacher's own layer",
    parameters: &[],
    check: any,
    members: |_| listed(&["teacher"]),
    initialisation: "the teacher's weights",
    build: |layer, _| Ok(layer.clone()),
    initialise: |start| Ok(start.layer_weights.clone()),
};

pub(super) static IDENTITY: Family = Family {
    name: "identity",
    summary: "skips the layer, where input and output have the same shape",
    parameters: &[],
    check: any,
    members: |_| listed(&["identity"]),
    initialisation: "nothing to initialise",
    build: |layer, _| {
        let (input, output) = (layer.input_shape(), layer.output_shape());
        if input != output {
            return Err(NotApplicable::new(format!("the layer maps {input} to {output}")));
        }
        Ok(Graph::new("identity", input.clone(), Vec::new(), Value::INPUT, Vec::new())?)
    },
    initialise: |_| Ok(Weights::new()),
};
