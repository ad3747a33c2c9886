//! The device, and what the process must set before libtorch starts to work.

use std::fmt;
use std::sync::OnceLock;

use crate::{Error, Result};

/// Where tensors live and kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl Device {
    pub(crate) fn raw(self) -> tch::Device {
        match self {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda => tch::Device::Cuda(0),
        }
    }

    /// Waits until everything that was started on the device is done.
    pub fn synchronize(self) {
        if self == Device::Cuda {
            tch::Cuda::synchronize(0);
        }
    }

    /// The CUDA device, or why there is none. Loads libtorch's CUDA library on the first call.
    pub fn cuda() -> Result<Self> {
        static LOADED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        LOADED.get_or_init(load_cuda).clone().map_err(Error::NoCuda)?;
        match tch::Cuda::is_available() {
            true => Ok(Device::Cuda),
            false => Err(Error::NoCuda("libtorch's CUDA library is loaded but finds no usable GPU".into())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

/// Loads libtorch's CUDA part into the process, which registers its kernels: the binary itself is linked to the CPU
/// part alone, so that one binary serves both.
#[allow(unsafe_code)]
fn load_cuda() -> std::result::Result<(), String> {
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the library's initialisers register kernels with the libtorch that is already loaded; they are meant
        // to run at any time before CUDA is used. It is never unloaded.
        let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
        library.map(std::mem::forget).map_err(|e| {
            format!(
                "{e}; point LD_LIBRARY_PATH at the `lib` folder of a CUDA build of PyTorch 2.11 \
                 (python3 -c \"import torch; print(torch.__path__[0] + '/lib')\")"
            )
        })
    }
    #[cfg(not(unix))]
    Err("only supported on Linux".into())
}

/// Prepares the process, once however often it is called; best before threads start. Raises the allocator's thresholds, and makes every
/// kernel run on the thread that calls it, since work is divided by operations and batches instead.
///
/// glibc gives every large tensor pages of its own and returns them at once, which costs 30 to 40 % of the time in the
/// kernel. Without that the frozen ResNet-56 went from 304 to 503 images/s. With one arena for all threads the operations of
/// EfficientNet-B0 are trained 1.45 times as fast.
pub fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        raise_allocator_thresholds();
        tch::set_num_threads(1);
    });
}

#[allow(unsafe_code)]
fn raise_allocator_thresholds() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets tunables of the allocator.
    unsafe {
        // The mmap threshold itself cannot be raised above 32 MiB, which large batches exceed.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        // An arena of a thread's own consists of pieces of 64 MiB, which are unmapped whenever they are empty.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the system: for moments after which other sizes are needed, whose gaps would stay unused.
#[allow(unsafe_code)]
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim touches only what nobody holds.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Runs `work` with that many threads inside each kernel, then goes back to one.
pub fn with_kernel_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    tch::set_num_threads(threads.max(1) as i32);
    let result = work();
    tch::set_num_threads(1);
    result
}
