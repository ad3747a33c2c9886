//! What is fetched: which wheels, which of their files, and what is added to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::TORCH_VERSION;
use super::platform::Platform;
use crate::failure::Failure;

/// A directory in `third_party`.
pub(super) struct Component {
    /// Its name.
    pub(super) directory: &'static str,
    sources: &'static [Source],
    /// Writes what no wheel has into the directory; returns the files and their sizes.
    pub(super) finish: fn(&Path, &Platform) -> anyhow::Result<Files>,
}

/// Files by their path in the component's directory, with their sizes in bytes.
pub(super) type Files = BTreeMap<String, u64>;

/// A wheel and what is taken from it.
pub(super) struct Source {
    /// The pinned requirement, as pip takes it.
    pub(super) requirement: &'static str,
    /// Where a file of the wheel goes in the component's directory; `None` leaves it out.
    pub(super) select: fn(&str, &Platform) -> Option<String>,
    /// The wheel's size, and that of what is taken from it, in megabytes; rounded up, largest platform.
    megabytes: (u64, u64),
    linux_only: bool,
}

/// libtorch, for the CPU.
///
/// The Linux wheels of torch are made for CUDA, and `libtorch_cpu.so` refers to two of NVIDIA's libraries, which must
/// load even where there is no GPU. They are small; the large ones (`libtorch_cuda.so`, cuDNN) are left out.
pub(super) fn libtorch() -> Component {
    Component {
        directory: "libtorch",
        sources: &[
            Source {
                requirement: "torch==2.11.0",
                select: select_torch,
                megabytes: (531, 500),
                linux_only: false,
            },
            Source {
                requirement: "nvidia-cuda-cupti==13.0.85",
                select: select_nvidia,
                megabytes: (11, 5),
                linux_only: true,
            },
            Source {
                requirement: "nvidia-cuda-runtime==13.0.96",
                select: select_nvidia,
                megabytes: (3, 1),
                linux_only: true,
            },
        ],
        finish: finish_libtorch,
    }
}

/// ONNX Runtime, for the CPU.
pub(super) fn onnxruntime() -> Component {
    Component {
        directory: "onnxruntime",
        sources: &[Source {
            requirement: "onnxruntime==1.32.0",
            select: select_onnxruntime,
            megabytes: (28, 36),
            linux_only: false,
        }],
        finish: finish_onnxruntime,
    }
}

impl Component {
    /// The wheels it is made of.
    pub(super) fn sources(&self, platform: &Platform) -> impl Iterator<Item = &'static Source> + use<> {
        let linux = platform.is_linux();
        self.sources.iter().filter(move |source| linux || !source.linux_only)
    }

    /// The pinned requirements of its wheels.
    pub(super) fn requirements(&self, platform: &Platform) -> Vec<String> {
        self.sources(platform).map(|source| source.requirement.to_owned()).collect()
    }

    /// How much is downloaded, about.
    pub(super) fn download_megabytes(&self, platform: &Platform) -> u64 {
        self.sources(platform).map(|source| source.megabytes.0).sum()
    }

    /// The most room taken at any moment: pip keeps a copy of the wheel while it saves it, then the wheel lies beside
    /// what is unpacked from it.
    pub(super) fn peak_megabytes(&self, platform: &Platform) -> u64 {
        let largest = self.sources(platform).map(|source| source.megabytes.0).max().unwrap_or(0);
        let unpacked: u64 = self.sources(platform).map(|source| source.megabytes.1).sum();
        largest + unpacked.max(largest) + 20
    }
}

/// torch's headers, and its libraries but for those that need CUDA or Python.
///
/// On Linux `libtorch.so` is left out as well: it is only a name for `libtorch_cpu.so` and `libtorch_cuda.so`, and
/// would ask for the second. [`finish_libtorch`] writes another.
fn select_torch(path: &str, platform: &Platform) -> Option<String> {
    const LEFT_OUT: &[&str] = &[
        "libtorch_cuda",
        "libtorch_python",
        "libtorch_nvshmem",
        "libtorch_global_deps",
        "libc10_cuda",
        "libcaffe2_nvrtc",
        "libshm.",
    ];

    if path.starts_with("torch/include/") {
        return path.strip_prefix("torch/").map(str::to_owned);
    }
    let file = path.strip_prefix("torch/lib/")?;
    let left_out = LEFT_OUT.iter().any(|prefix| file.starts_with(prefix))
        || (platform.is_linux() && file == "libtorch.so");
    (is_library(file, platform) && !left_out).then(|| format!("lib/{file}"))
}

/// The library that libtorch refers to, of the several in NVIDIA's wheels.
fn select_nvidia(path: &str, _platform: &Platform) -> Option<String> {
    let (_, file) = path.rsplit_once('/')?;
    (path.starts_with("nvidia/") && (file.starts_with("libcupti.so.") || file.starts_with("libcudart.so.")))
        .then(|| format!("lib/{file}"))
}

/// ONNX Runtime's library and the stub its execution providers share.
fn select_onnxruntime(path: &str, platform: &Platform) -> Option<String> {
    let file = path.strip_prefix("onnxruntime/capi/")?;
    (file.starts_with("libonnxruntime") && is_library(file, platform)).then(|| format!("lib/{file}"))
}

/// Whether `file`, a name without folders, is a shared library.
fn is_library(file: &str, platform: &Platform) -> bool {
    let ending = if platform.is_linux() {
        file.ends_with(".so") || file.contains(".so.")
    } else {
        file.ends_with(".dylib")
    };
    file.starts_with("lib") && ending && !file.contains('/')
}

/// `build-version`, which torch-sys checks, and on Linux two linker scripts:
///
/// * `libtorch.so` stands for `libtorch_cpu.so` alone,
/// * `libgomp.so` for the OpenMP runtime libtorch brings, so that no other is linked and none need be installed.
fn finish_libtorch(directory: &Path, platform: &Platform) -> anyhow::Result<Files> {
    let library = if platform.is_linux() { "libtorch_cpu.so" } else { "libtorch_cpu.dylib" };
    if !directory.join("lib").join(library).exists() || !directory.join("include/torch").exists() {
        return Err(Failure::error(
            format!("the torch wheel has no {library} or no headers where they are expected"),
            "pip's index gave another build of torch; try without PIP_INDEX_URL, or set LIBTORCH to one of your own",
        ));
    }
    let mut files = Files::new();
    let mut write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        files.insert(name.to_owned(), text.len() as u64);
        anyhow::Ok(())
    };
    write("build-version", format!("{TORCH_VERSION}\n"))?;
    if platform.is_linux() {
        write("lib/libtorch.so", "INPUT ( -ltorch_cpu )\n".to_owned())?;
        if let Some(gomp) = find_library(directory, "libgomp")? {
            write("lib/libgomp.so", format!("INPUT ( {gomp} )\n"))?;
        }
    }
    Ok(files)
}

/// `libonnxruntime.so` (`.dylib`), a link to the library, whose own name carries the version.
fn finish_onnxruntime(directory: &Path, platform: &Platform) -> anyhow::Result<Files> {
    let prefix = if platform.is_linux() { "libonnxruntime.so." } else { "libonnxruntime." };
    let name = if platform.is_linux() { "lib/libonnxruntime.so" } else { "lib/libonnxruntime.dylib" };
    let library = find_library(directory, prefix)?.ok_or_else(|| {
        Failure::error(
            "the onnxruntime wheel has no library where it is expected",
            "pip's index gave another build of onnxruntime; set ORT_DYLIB_PATH to one of your own",
        )
    })?;
    let path = directory.join(name);
    link(&library, &path).with_context(|| format!("writing {}", path.display()))?;
    let size = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
    Ok(Files::from([(name.to_owned(), size)]))
}

#[cfg(unix)]
fn link(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// No platform without symbolic links has wheels; this keeps xtask compiling there, to say so.
#[cfg(not(unix))]
fn link(target: &str, path: &Path) -> std::io::Result<()> {
    fs::copy(path.with_file_name(target), path).map(|_| ())
}

/// The name of the first file in `directory/lib` that starts with `prefix`.
fn find_library(directory: &Path, prefix: &str) -> anyhow::Result<Option<String>> {
    let lib = directory.join("lib");
    let mut found = Vec::new();
    for entry in fs::read_dir(&lib).with_context(|| format!("reading {}", lib.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::super::platform::PLATFORMS;
    use super::*;

    fn platform(name: &str) -> &'static Platform {
        PLATFORMS.iter().find(|platform| platform.name == name).unwrap()
    }

    #[test]
    fn torch_is_reduced_to_headers_and_cpu_libraries() {
        let linux = platform("linux-x86_64");
        for (path, place) in [
            ("torch/lib/libtorch_cpu.so", Some("lib/libtorch_cpu.so")),
            ("torch/lib/libc10.so", Some("lib/libc10.so")),
            ("torch/lib/libgomp.so.1", Some("lib/libgomp.so.1")),
            ("torch/lib/libgomp-a34b3233.so.1", Some("lib/libgomp-a34b3233.so.1")),
            ("torch/include/ATen/ATen.h", Some("include/ATen/ATen.h")),
            (
                "torch/include/torch/csrc/api/include/torch/all.h",
                Some("include/torch/csrc/api/include/torch/all.h"),
            ),
            ("torch/lib/libtorch.so", None),
            ("torch/lib/libtorch_cuda.so", None),
            ("torch/lib/libtorch_cuda_linalg.so", None),
            ("torch/lib/libtorch_python.so", None),
            ("torch/lib/libtorch_nvshmem.so", None),
            ("torch/lib/libtorch_global_deps.so", None),
            ("torch/lib/libc10_cuda.so", None),
            ("torch/lib/libcaffe2_nvrtc.so", None),
            ("torch/lib/libshm.so", None),
            ("torch/lib/libshm/libshm.h", None),
            ("torch/nn/modules/conv.py", None),
            ("torch/bin/protoc", None),
        ] {
            assert_eq!(select_torch(path, linux).as_deref(), place, "{path}");
        }
    }

    #[test]
    fn torch_on_other_platforms() {
        let arm = platform("linux-aarch64");
        assert_eq!(
            select_torch("torch/lib/libarm_compute.so", arm).as_deref(),
            Some("lib/libarm_compute.so")
        );
        assert_eq!(select_torch("torch/lib/libgfortran.so.5", arm).as_deref(), Some("lib/libgfortran.so.5"));
        let mac = platform("macos-aarch64");
        assert_eq!(select_torch("torch/lib/libtorch.dylib", mac).as_deref(), Some("lib/libtorch.dylib"));
        assert_eq!(select_torch("torch/lib/libomp.dylib", mac).as_deref(), Some("lib/libomp.dylib"));
        assert_eq!(select_torch("torch/lib/libshm.dylib", mac), None);
        assert_eq!(select_torch("torch/lib/libtorch_python.dylib", mac), None);
    }

    #[test]
    fn one_library_of_each_nvidia_wheel() {
        let linux = platform("linux-x86_64");
        let select = |path| select_nvidia(path, linux);
        assert_eq!(select("nvidia/cu13/lib/libcupti.so.13").as_deref(), Some("lib/libcupti.so.13"));
        assert_eq!(select("nvidia/cu13/lib/libcudart.so.13").as_deref(), Some("lib/libcudart.so.13"));
        assert_eq!(select("nvidia/cu13/lib/libnvperf_host.so"), None);
        assert_eq!(select("nvidia/cu13/lib/libcudart_static.a"), None);
        assert_eq!(select("nvidia/cu13/include/cupti.h"), None);
    }

    #[test]
    fn onnxruntime_without_its_python_module() {
        let linux = platform("linux-x86_64");
        let select = |path| select_onnxruntime(path, linux);
        assert_eq!(
            select("onnxruntime/capi/libonnxruntime.so.1.32.0").as_deref(),
            Some("lib/libonnxruntime.so.1.32.0")
        );
        assert_eq!(
            select("onnxruntime/capi/libonnxruntime_providers_shared.so").as_deref(),
            Some("lib/libonnxruntime_providers_shared.so")
        );
        assert_eq!(
            select("onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so"),
            None
        );
        assert_eq!(
            select_onnxruntime("onnxruntime/capi/libonnxruntime.1.32.0.dylib", platform("macos-aarch64"))
                .as_deref(),
            Some("lib/libonnxruntime.1.32.0.dylib")
        );
    }

    #[test]
    fn nvidia_wheels_are_for_linux() {
        let torch = libtorch();
        assert_eq!(torch.requirements(platform("macos-aarch64")), ["torch==2.11.0"]);
        assert_eq!(
            torch.requirements(platform("linux-x86_64")),
            ["torch==2.11.0", "nvidia-cuda-cupti==13.0.85", "nvidia-cuda-runtime==13.0.96"]
        );
        assert!(torch.requirements(platform("linux-x86_64"))[0].ends_with(TORCH_VERSION));
    }

    #[test]
    fn libtorch_gets_its_linker_scripts() {
        let directory = tempfile::tempdir().unwrap();
        let lib = directory.path().join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::create_dir_all(directory.path().join("include/torch")).unwrap();
        let linux = platform("linux-x86_64");
        assert!(finish_libtorch(directory.path(), linux).is_err());

        fs::write(lib.join("libtorch_cpu.so"), "").unwrap();
        fs::write(lib.join("libgomp.so.1"), "").unwrap();
        let files = finish_libtorch(directory.path(), linux).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["build-version", "lib/libgomp.so", "lib/libtorch.so"]);
        assert_eq!(fs::read_to_string(lib.join("libtorch.so")).unwrap(), "INPUT ( -ltorch_cpu )\n");
        assert_eq!(fs::read_to_string(lib.join("libgomp.so")).unwrap(), "INPUT ( libgomp.so.1 )\n");
    }

    #[test]
    fn onnxruntime_gets_a_name_without_version() {
        let directory = tempfile::tempdir().unwrap();
        let lib = directory.path().join("lib");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("libonnxruntime.so.1.32.0"), "library").unwrap();
        let files = finish_onnxruntime(directory.path(), platform("linux-x86_64")).unwrap();
        assert_eq!(files, Files::from([("lib/libonnxruntime.so".to_owned(), 7)]));
        assert_eq!(fs::read_to_string(lib.join("libonnxruntime.so")).unwrap(), "library");
    }
}
