#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Test and measure the CUDA back-end on a machine with an NVIDIA GPU and PyTorch; ROS is not needed.
#   dev/cuda_check.sh [--output FOLDER] [--limit SECONDS] [--dry-run]
# --dry-run does the same on the processor, with small counts. PYTHON=... chooses the interpreter.
# Needs: torch, torchvision, numpy, opencv-python, safetensors, PyYAML; pytest for the CUDA tests.
# Optional, with a note if missing: onnx and onnxruntime-gpu; Matplotlib, which has a photograph.
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec "${PYTHON:-python3}" -m dev.cuda_check "$@"
