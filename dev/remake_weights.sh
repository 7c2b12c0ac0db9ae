#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train the three checkpoints from their first iteration to their last, and export them:
#   dev/remake_weights.sh PYTHON DATA BACKBONE OUTPUT
# Relative paths start from the checkout. The same command continues after a stop. At the end the
# checkpoints are in OUTPUT/checkpoints.
set -euo pipefail

if [[ $# != 4 || -z $2 || -z $3 || -z $4 ]]; then
    echo 'Error: DATA is the folder that the recipes start from, BACKBONE the file of weights of' \
        'MobileNetV2: make weights DATA=folder BACKBONE=file' >&2
    exit 2
fi
python=$1 data=$2 backbone=$3 output=$4
cd "$(dirname "$0")/.."

forecast_detector() { "$python" -m forecast_detector_ros.cli "$@"; }

train() {
    forecast_detector train "config/training/$1.yaml" --data "$data" --output "$output/$1" "${@:2}"
}

# The last stage of the recipe gives the checkpoint.
finish() {
    mkdir -p "$output/checkpoints"
    cp "$output/$1/$2.safetensors" "$output/checkpoints/$1.safetensors"
    cp "$output/$1/$2.yaml" "$output/checkpoints/$1.yaml"
    local checkpoint=$output/checkpoints/$1.safetensors
    forecast_detector export --package --checkpoint "$checkpoint"
    forecast_detector export --checkpoint "$checkpoint" --int8 --images "$data" \
        --calibrate "$data/teacher/train_video.json" --calibration-frames 300
}

train default --backbone "$backbone"
finish default scheduler
for name in small large; do
    train "$name" --start "$output/checkpoints/default.safetensors"
    finish "$name" motion
done
