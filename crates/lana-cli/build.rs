//! Sets the run path to libtorch; `crates/lana-torch/build.rs` explains.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(directory) = std::env::var("DEP_LANA_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
