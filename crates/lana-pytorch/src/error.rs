/// Why a network cannot be written as PyTorch modules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A module cannot have a parameter and a submodule of one name.
    #[error(
        "PyTorch has no place for node `{node}`: `{parameter}` is a parameter already; rename the node in graph.json and its \
         parameters in weights.safetensors"
    )]
    Name {
        /// The node whose name begins with the parameter's.
        node: String,
        /// The parameter's name.
        parameter: String,
    },
    /// Modules would be nested deeper than PyTorch can walk.
    #[error(
        "the name of node `{node}…` has too many parts; rename the node in graph.json and its parameters in weights.safetensors"
    )]
    Deep {
        /// How its name begins.
        node: String,
    },
}
