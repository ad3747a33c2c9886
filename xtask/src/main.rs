//! Project tasks, run as `cargo xtask TASK`.
//!
//! One file per task: [`bench`](mod@bench) times parts of the project beside others, [`setup`] fetches the native
//! libraries, [`demo`] runs the demonstration, [`parity`] compares the zoo with timm, [`test`](mod@test) runs every check. A
//! new task is a file with a `run` function and a variant of [`Task`].
//!
//! xtask itself builds with nothing but Rust and a linker: it must run before libtorch is there.

mod bench;
mod command;
mod demo;
mod failure;
mod parity;
mod python;
mod setup;
mod test;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project tasks of lana.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// What there is to do.
#[derive(Subcommand)]
enum Task {
    /// Fetch libtorch and ONNX Runtime into third_party/ (does nothing when they are there)
    Setup,
    /// Run `lana demo`, optimised, after setup
    Demo {
        /// Arguments of `lana demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Time parts of the project beside what else there is
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
    /// Compare the zoo's networks, or what becomes of images, with timm's, number by number (in a virtual environment under
    /// target/)
    Parity {
        /// Networks to compare [default: a small one of each family]
        names: Vec<String>,
        /// Compare all that timm has
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Compare images instead: decoding, resizing and the operations of RandAugment, with PIL's and timm's
        #[arg(long, conflicts_with_all = ["names", "all"])]
        data: bool,
        /// Compare ONNX files instead: what both exporters of PyTorch write of networks of torchvision and timm, with what lana
        /// makes of it, in ONNX Runtime. With --all every network, otherwise a few
        #[arg(long, conflicts_with = "data")]
        onnx: bool,
        /// Compare the PyTorch text of teachers and students instead, with ONNX Runtime and with timm's
        #[arg(long, conflicts_with_all = ["all", "data", "onnx"])]
        students: bool,
    },
    /// Check formatting, lints and documentation, and run every test, after setup
    Test,
}

/// What can be timed.
#[derive(Subcommand)]
enum Bench {
    /// The training of operations, beside the paper's schedule in PyTorch (in a virtual environment under target/)
    Phase1 {
        /// Teachers to time [default: resnet56_cifar and efficientnet_b0]
        names: Vec<String>,
        /// Threads of both sides
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Turns of both sides
        #[arg(long, default_value = "3")]
        rounds: NonZeroUsize,
        /// Folder with weights/ and data/cifar10/; without it weights and images are random
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// A step of fine-tuning, beside a PyTorch script with channels_last (in a virtual environment under target/)
    Finetune {
        /// Networks to time [default: resnet56_cifar and efficientnet_b0]
        names: Vec<String>,
        /// Threads of both sides
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Turns of both sides
        #[arg(long, default_value = "3")]
        rounds: NonZeroUsize,
    },
    /// Students beside their controls: the table of accuracy (about two hours on two cores, in as many calls as you like)
    Accuracy(Box<bench::accuracy::Arguments>),
    /// Decoding and augmenting images, beside torchvision's DataLoader (in a virtual environment under target/)
    Data(bench::data::Arguments),
    /// The exact solver, beside HiGHS and CBC (in a virtual environment under target/)
    Select {
        /// Arguments of `cargo bench -p lana-select`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What the families of operations reach in phase 1 against their latency (about an hour on two cores)
    Pool(bench::pool::Arguments),
    /// What scoring saves by running only what lies behind each layer
    Score(bench::score::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Demo { arguments } => demo::run(&arguments),
        Task::Bench { bench: Bench::Select { arguments } } => bench::select(&arguments),
        Task::Bench { bench: Bench::Phase1 { names, threads, rounds, data } } => {
            bench::phase1::run(&names, threads, rounds.get(), data.as_deref())
        }
        Task::Bench { bench: Bench::Finetune { names, threads, rounds } } => {
            bench::finetune::run(&names, threads, rounds.get())
        }
        Task::Bench { bench: Bench::Accuracy(arguments) } => bench::accuracy::run(&arguments),
        Task::Bench { bench: Bench::Data(arguments) } => bench::data::run(&arguments),
        Task::Bench { bench: Bench::Pool(arguments) } => bench::pool::run(&arguments),
        Task::Bench { bench: Bench::Score(arguments) } => bench::score::run(&arguments),
        Task::Parity { data: true, .. } => parity::data(),
        Task::Parity { onnx: true, names, all, .. } => parity::onnx::run(&names, all),
        Task::Parity { students: true, names, .. } => {
            parity::python().and_then(|python| parity::students::run(&python, &names))
        }
        Task::Parity { names, all, .. } => parity::run(&names, all),
        Task::Test => test::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{}", failure::render(&error));
        ExitCode::FAILURE
    })
}
