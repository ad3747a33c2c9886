//! Tells the linker where libtorch is, so that tests and binaries find it when they run.
//!
//! torch-sys' build script knows where libtorch is and says so to the crates that depend on it. A linker argument
//! reaches only the package that gives it, so each crate between here and the binary does as this one does: it sets the
//! run path of its own tests and binaries, and passes the place on to its dependents (`links` in Cargo.toml).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys gives no place on Windows, which has no run path.
    if let Ok(directory) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::metadata=LIBTORCH_LIB={directory}");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
