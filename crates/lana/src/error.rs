use std::path::{Path, PathBuf};

/// What can go wrong in the pipeline. [`Error::exit_status`] and [`Error::hint`] are what the command line makes of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, a configuration field or an input file is wrong.
    #[error("{message}")]
    Input {
        /// What is wrong, with the name of the argument, field or file.
        message: String,
        /// The cure.
        hint: String,
    },
    /// No selection can meet the budget.
    #[error("{message}")]
    Infeasible {
        /// Which budget, the smallest reachable cost, the layer that binds.
        message: String,
        /// What to relax.
        hint: String,
    },
    /// A stage was asked for whose predecessor has not run.
    #[error("{run}: {missing} is not there yet")]
    NotReady {
        /// The run directory.
        run: String,
        /// What is missing.
        missing: String,
        /// The command that makes it.
        command: String,
    },
    /// Another process works on the run.
    #[error("{run}: another lana process (number {process}) works on this run")]
    Busy {
        /// The run directory.
        run: String,
        /// Its process number.
        process: String,
    },
    /// The file system cannot keep other processes out of the run.
    #[error("{}: it cannot be locked, so that another process could work on the run unnoticed: {source}", path.display())]
    Unlockable {
        /// The file that was to be locked.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of the run directory is damaged and what depends on it cannot be redone by itself.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The exported network does not compute what libtorch computes.
    #[error(
        "{}: ONNX Runtime and libtorch differ by {difference:.1e} (relative to the largest logit), more than {limit:.0e}",
        path.display()
    )]
    Export {
        /// The exported file.
        path: PathBuf,
        /// Largest difference of a logit.
        difference: f64,
        /// What is tolerated.
        limit: f64,
    },
    /// Weights could not be fetched.
    #[error("`{what}` cannot be fetched: {reason}")]
    Fetch {
        /// What was asked for.
        what: String,
        /// The address of the file.
        url: String,
        /// What stood in the way.
        reason: String,
    },
    /// A fresh process that was to measure a network failed.
    #[error("{} could not measure in a process of its own: {reason}", program.display())]
    Fresh {
        /// The program.
        program: PathBuf,
        /// What happened to it.
        reason: String,
    },
    /// A training left the finite numbers, or its loss rose far above that of the beginning.
    #[error(
        "{title} diverged: the loss became {loss:.4} at step {step} with learning rate {rate:.3e}; last good checkpoint: {checkpoint}"
    )]
    Diverged {
        /// What was trained.
        title: String,
        /// The update after which.
        step: u64,
        /// The loss, or its mean over the last updates.
        loss: f64,
        /// The learning rate then.
        rate: f64,
        /// The file of the last checkpoint and its step, or that there is none.
        checkpoint: String,
    },
    /// Networks: graphs and weights.
    #[error(transparent)]
    Graph(#[from] lana_graph::Error),
    /// Teachers and operations.
    #[error(transparent)]
    Models(#[from] lana_models::Error),
    /// Images.
    #[error(transparent)]
    Data(#[from] lana_data::Error),
    /// Running and training.
    #[error(transparent)]
    Torch(#[from] lana_torch::Error),
    /// ONNX files.
    #[error(transparent)]
    Onnx(#[from] lana_onnx::Error),
    /// Networks as PyTorch text.
    #[error(transparent)]
    Pytorch(#[from] lana_pytorch::Error),
    /// Timing.
    #[error(transparent)]
    Latency(#[from] lana_latency::Error),
    /// Selection.
    #[error(transparent)]
    Select(#[from] lana_select::Error),
}

impl Error {
    /// A wrong argument, field or file, with its cure.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Input { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// Exit status of the process: 1 failed, 2 wrong arguments or input, 3 no selection can meet the budget.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Infeasible { .. } => 3,
            Error::Input { .. }
            | Error::NotReady { .. }
            | Error::Graph(_)
            | Error::Models(_)
            | Error::Data(_)
            | Error::Onnx(_)
            | Error::Pytorch(_) => 2,
            Error::Latency(error) if error.is_input() => 2,
            Error::Select(error) if error.is_input() => 2,
            Error::Torch(lana_torch::Error::Graph(_)) => 2,
            Error::Io { source, .. } | Error::Latency(lana_latency::Error::Io { source, .. })
                if is_misnamed(source) =>
            {
                2
            }
            _ => 1,
        }
    }

    /// Whether there was no room for a file.
    pub(crate) fn is_out_of_room(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_out_of_room(source))
    }

    /// The cure in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Input { hint, .. } | Error::Infeasible { hint, .. } if !hint.is_empty() => hint.clone(),
            Error::NotReady { command, .. } => format!("run `{command}` first"),
            Error::Busy { .. } => "wait for it, or stop it; nothing is lost".into(),
            Error::Unlockable { .. } => {
                "put the run on a file system that has locks: a local disk, NFS mounted without `nolock`, Lustre with `flock`".into()
            }
            Error::Io { source, .. } | Error::Latency(lana_latency::Error::Io { source, .. }) => match source.kind() {
                _ if is_out_of_room(source) => {
                    "free some space and give the same command again; finished work is kept".into()
                }
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a place you may write to, or change its rights".into()
                }
                _ if is_misnamed(source) => "check the path: is it there, and of the right kind?".into(),
                _ => return None,
            },
            Error::Fetch { url, .. } => {
                format!(
                    "download {url} by any means and give --weights FILE; HF_ENDPOINT names a mirror of the hub"
                )
            }
            Error::Fresh { .. } => "is there memory for a second copy of the networks? give the same command again".into(),
            Error::Damaged { .. } => "delete the file and give the same command again".into(),
            Error::Diverged { .. } => {
                "lower `learning_rate` (or raise `warmup_epochs`) in the recipe, which begins anew; the same recipe goes on from the \
                 checkpoint"
                    .into()
            }
            Error::Torch(lana_torch::Error::NoCuda(_)) => "use --device cpu".into(),
            Error::Graph(
                lana_graph::Error::MissingWeight { .. }
                | lana_graph::Error::UnexpectedWeight { .. }
                | lana_graph::Error::WeightShape { .. },
            )
            | Error::Torch(lana_torch::Error::Graph(_)) => {
                "are these the weights of this teacher? `lana zoo` lists the architectures; for a head with other classes than \
                 the network's own give --num-classes"
                    .into()
            }
            _ => return None,
        })
    }
}

/// Whether the system's reason is that there is no room: on the disk, in one's share of it, or for a file that large.
fn is_out_of_room(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

/// Whether the system's reason is that a path names nothing, or something of another kind.
fn is_misnamed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), AlreadyExists | IsADirectory | NotADirectory | NotFound)
}
