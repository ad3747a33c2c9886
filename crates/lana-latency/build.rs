//! Says where set-up puts ONNX Runtime; and sets the run path to libtorch (`crates/lana-torch/build.rs` explains), where
//! this crate depends on lana-torch.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(directory) = env::var("DEP_LANA_TORCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }

    // The place, whether or not the library is there yet: it is looked for when the program runs.
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let extension = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "dylib",
        _ => "so",
    };
    if let Some(root) = Path::new(&manifest).ancestors().nth(2) {
        let library = root.join("third_party/onnxruntime/lib").join(format!("libonnxruntime.{extension}"));
        println!("cargo::rustc-env=LANA_ORT_DYLIB={}", library.display());
    }
}
