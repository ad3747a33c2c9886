#!/usr/bin/env bash
# Checks the CUDA path in one call, on a machine with a GPU and a CUDA build of PyTorch 2.11; ONNX Runtime with CUDA
# (PyPI's onnxruntime-gpu) is used where it is there. Needs no Rust: carry the binary and what it is to work on.
#
#   xtask/check-cuda.sh LANA [BUNDLE.lana…] [-- WEIGHTS.safetensors DATA [RUN]]
#
# LANA     the binary (target/release/lana, stripped if size matters)
# BUNDLE   lookup tables to measure and to check against networks measured whole. They hold no weights; made by
#            for runtime in torch onnxruntime; do
#              cargo run --release -p lana-latency --example table_error -- efficientnet_b2 cuda-$runtime-b128-fp16 compact b2-$runtime.lana
#            done
#          or by `lana profile RUN --bundle FILE --deployment cuda-torch-b128-fp16`
# WEIGHTS  weights of resnet56_cifar
# DATA     images as lana takes them, such as cifar10:test_batch.bin
# RUN      folder for a short run and the tables, left out: a new temporary one
#
# Variables: TORCH_LIB, the folder with libtorch_cuda.so, and ORT_DYLIB_PATH, the file libonnxruntime.so of a build with
# CUDA; what is not set is asked of Python. CHECK_S, seconds for each check of a table (180).
#
# What fails is said and the rest goes on; then the exit status is 1.
set -uo pipefail
lana=$1
shift
bundles=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    bundles+=("$1")
    shift
done
[ $# -gt 0 ] && shift
weights=${1:-} data=${2:-} run=${3:-$(mktemp -d)/run}
failed=0
mkdir -p "$(dirname "$run")"

ask() { python3 -c "$1" 2>/dev/null || true; }
torch=${TORCH_LIB:-$(ask 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')}
export LD_LIBRARY_PATH="$torch:${LD_LIBRARY_PATH:-}"
# The CUDA and cuDNN libraries of PyPI lie beside torch; ONNX Runtime looks for them by name.
for folder in "$torch"/../../nvidia/*/lib; do
    [ -d "$folder" ] && LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$folder"
done
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(ask 'import glob, importlib.util, os
found = importlib.util.find_spec("onnxruntime")
print(*glob.glob(os.path.join(os.path.dirname(found.origin), "capi", "libonnxruntime.so.*"))[:1])')}
if [ -n "$ORT_DYLIB_PATH" ]; then export ORT_DYLIB_PATH; else unset ORT_DYLIB_PATH; fi
echo "libtorch: ${torch:-not found}"
echo "ONNX Runtime: ${ORT_DYLIB_PATH:-not found}"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit --format=csv

step() {
    local title=$1
    shift
    echo
    echo "== $title"
    "$@" || { echo "FAILED ($?): $*"; failed=1; }
}

for bundle in "${bundles[@]}"; do
    name=$(basename "$bundle" .lana)
    table="$(dirname "$run")/$name.json"
    if [[ $name == *onnxruntime* && -z ${ORT_DYLIB_PATH:-} ]]; then
        echo
        echo "== $name: skipped, there is no ONNX Runtime"
        continue
    fi
    step "$name: the table, and how well it predicts random selections" \
        "$lana" profile --from-bundle "$bundle" --out "$table" --check --time-limit "${CHECK_S:-180}"
    # Another process and other selections: one check alone may be lucky.
    [ -f "$table" ] && step "$name: other selections" \
        "$lana" profile --from-bundle "$bundle" --out "$table" --check --time-limit "${CHECK_S:-180}" --seed 1
done

if [ -n "$data" ]; then
    for device in cpu cuda; do
        step "accuracy on $device" \
            "$lana" evaluate resnet56_cifar --weights "$weights" --data "$data" --device "$device" --json
    done
    step "a short run that trains, scores, selects and fine-tunes on the GPU, for libtorch in fp16 there" \
        "$lana" accelerate --teacher resnet56_cifar --weights "$weights" --train "$data" --val "$data" \
        --budget 0.5x --runtime torch --processor cuda --precision fp16 --batch 64 --device cuda \
        --images 2048 --epochs 1 --out "$run" --json
    teacher="$run/teacher/teacher.onnx" student="$run/budgets/0.5x/student/student.onnx"
    for precision in fp32 fp16 bf16; do
        step "teacher and student by libtorch in $precision" "$lana" measure "$teacher" "$student" \
            --runtime torch --processor cuda --precision "$precision" --batch 64
    done
    if [ -n "${ORT_DYLIB_PATH:-}" ]; then
        for precision in fp32 fp16; do
            step "teacher and student by ONNX Runtime in $precision" "$lana" measure "$teacher" "$student" \
                --processor cuda --precision "$precision" --batch 64
        done
    fi
fi
exit $failed
