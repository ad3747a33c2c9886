"""Makes the torch of this virtual environment importable without the CUDA libraries it is linked to.

The package index has torch for Linux only with CUDA: the wheel asks for gigabytes of libraries that it needs to be
imported, not to compute on the CPU. So it is installed without them, its own CUDA part is deleted, and small libraries
with the names and symbols that the loader looks for take their place. Nothing in them is meant to be called: torch
finds no GPU and never does. Where torch can be imported as it is (macOS), nothing happens.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PACKAGES = Path(sysconfig.get_path("purelib"))
LIBRARIES = PACKAGES / "torch" / "lib"
# The CUDA half of torch, which is replaced or not needed, and what torch's Python half is linked to beside it.
TORCH_CUDA = "libtorch_cuda.so"
UNNEEDED = ["libtorch_cuda_linalg.so", "libtorch_nvshmem.so"]
CUDNN = "libcudnn.so.9"
OTHERS = ["libcufile.so.0"]
# What is linked to those.
USERS = [LIBRARIES / "libtorch_python.so", PACKAGES / "torchvision" / "_C.so"]


def importable() -> bool:
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0


def build(name: str, symbols: list[str], *options: str) -> None:
    """Makes the library `name` with `symbols` among torch's own."""
    head = 'extern void *class_type_info[] __asm__("_ZTVN10__cxxabiv117__class_type_infoE");\n'
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stub.c"
        source.write_text(head + "\n".join(map(definition, symbols)))
        command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", LIBRARIES / name, source]
        subprocess.run([*command, *options, "-lstdc++"], check=True)


def definition(symbol: str) -> str:
    """A definition of a C++ symbol in C, by what its name says it is."""
    if symbol.startswith("_ZTI"):
        # A std::type_info: Python classes are registered by its name.
        return f'void *{symbol}[] = {{&class_type_info[2], "{symbol[4:]}"}};'
    if symbol.startswith("_ZTV"):
        return f"void *{symbol}[256];"
    # Some give a reference, which is written to while libraries are loaded.
    return f"void *{symbol}(void) {{ static void *nothing[256]; return nothing; }}"


def missing() -> list[tuple[str, str]]:
    """Symbols that the loader does not find, with the library version they are asked for in, or nothing."""
    found: set[tuple[str, str]] = set()
    for user in USERS:
        path = os.pathsep.join([str(LIBRARIES), str(PACKAGES / "nvidia" / "cu13" / "lib")])
        command = ["ldd", "-r", user]
        report = subprocess.run(command, capture_output=True, text=True, env={"LD_LIBRARY_PATH": path})
        found.update(re.findall(r"undefined symbol: (\w+)(?:, version (\S+))?", report.stdout + report.stderr))
    # Python's own come from the interpreter.
    return sorted(pair for pair in found if not re.match("_?Py", pair[0]))


def main() -> None:
    if importable():
        return
    for name in [TORCH_CUDA, *UNNEEDED]:
        (LIBRARIES / name).unlink(missing_ok=True)
    for name in [TORCH_CUDA, CUDNN, *OTHERS]:
        build(name, [])
    symbols = missing()
    build(TORCH_CUDA, [name for name, version in symbols if not version])
    with tempfile.NamedTemporaryFile("w", suffix=".map") as script:
        script.write(f"{CUDNN} {{ global: *; }};")
        script.flush()
        build(CUDNN, [name for name, version in symbols if version == CUDNN], f"-Wl,--version-script={script.name}")
    if not importable():
        sys.exit("torch cannot be imported on this machine")


if __name__ == "__main__":
    main()
