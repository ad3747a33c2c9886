use lana_graph::Shape;

/// What can go wrong when networks run or train.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused: out of memory, a broken installation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// Weights and graph do not belong together.
    #[error(transparent)]
    Graph(#[from] lana_graph::Error),
    /// A batch does not hold what it says.
    #[error("a batch of {images} images of {shape} cannot be made of {got} numbers")]
    Batch {
        /// Numbers there are.
        got: usize,
        /// Images there should be.
        images: usize,
        /// Shape of one.
        shape: Shape,
    },
    /// `--device cuda` where there is none.
    #[error("no CUDA device: {0}")]
    NoCuda(String),
    /// Training left the finite numbers.
    #[error(
        "the loss became {loss} at step {step} (learning rate {rate}); lower the learning rate or check the images"
    )]
    Diverged {
        /// Step of this run of training.
        step: u64,
        /// The loss.
        loss: f64,
        /// The learning rate then.
        rate: f64,
    },
    /// Feature maps that cannot be compared.
    #[error("the student gives {student} feature maps to compare, the teacher {teacher}")]
    Maps {
        /// Of the student.
        student: usize,
        /// Of the teacher.
        teacher: usize,
    },
    /// A checkpoint does not belong to what is being trained.
    #[error("the checkpoint does not fit: {0}")]
    Checkpoint(String),
}
