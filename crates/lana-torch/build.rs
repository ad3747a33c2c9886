//! Tells the linker where libtorch is, so that tests and binaries find it when they run.
//!
//! torch-sys' build script knows where libtorch is and says so to the crates that depend on it. A linker argument
//! reaches only the package that gives it, so each crate between here and the binary does as this one does: it sets the
//! run path of its own tests and binaries, and passes the place on to its dependents (`links` in Cargo.toml).
//!
//! It also compiles `src/fused.cpp` against the headers beside that libtorch.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/fused.cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    // torch-sys gives no place on Windows, which has no run path.
    if let Ok(directory) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::metadata=LIBTORCH_LIB={directory}");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
        let home = std::env::var("LIBTORCH_INCLUDE").map_or_else(
            |_| Path::new(&directory).parent().map(Path::to_path_buf).unwrap_or_default(),
            Into::into,
        );
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .define("_GLIBCXX_USE_CXX11_ABI", "1")
            .include(home.join("include"))
            .include(home.join("include/torch/csrc/api/include"))
            // Its loops are the training: fast in debug builds too.
            .opt_level(3)
            .flag_if_supported("-fno-math-errno")
            .flag_if_supported("-fno-trapping-math")
            .flag_if_supported("-ffp-contract=fast")
            .warnings(false)
            .file("src/fused.cpp")
            .compile("lana_fused");
    }
}
