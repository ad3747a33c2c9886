//! Sets the run path to libtorch and passes it on; `crates/lana-torch/build.rs` explains.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(directory) = std::env::var("DEP_LANA_TORCH_LIBTORCH_LIB") {
        println!("cargo::metadata=LIBTORCH_LIB={directory}");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
