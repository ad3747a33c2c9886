#!/usr/bin/env bash
# Checks the CUDA path in one call, on a machine with a GPU, a CUDA build of PyTorch 2.11 and onnxruntime in its Python.
# Needs no Rust there: carry the binary, the teacher's weights and some images.
#
#   xtask/check-cuda.sh LANA WEIGHTS.safetensors DATA [RUN]
#
# LANA     the binary (target/release/lana, stripped if size matters)
# WEIGHTS  weights of resnet56_cifar
# DATA     images as lana takes them, such as cifar10:test_batch.bin
# RUN      folder for a short run, left out: a new temporary one
set -euo pipefail
lana=$1 weights=$2 data=$3 run=${4:-$(mktemp -d)/run}

torch=$(python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
export LD_LIBRARY_PATH="$torch:${LD_LIBRARY_PATH:-}"
ORT_DYLIB_PATH=$(python3 -c 'import glob, os, onnxruntime
print(glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", "libonnxruntime.so.*"))[0])')
export ORT_DYLIB_PATH

echo "== the same accuracy on both devices"
for device in cpu cuda; do
    "$lana" evaluate resnet56_cifar --weights "$weights" --data "$data" --device "$device" --json
done

echo "== a short run that trains, scores, selects and fine-tunes on the GPU"
time "$lana" accelerate --teacher resnet56_cifar --weights "$weights" --train "$data" --val "$data" \
    --budget 0.5x --batch 64 --threads 1 --device cuda --images 2048 --epochs 1 --out "$run" --json
