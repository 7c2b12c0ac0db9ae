# SPDX-License-Identifier: Apache-2.0
"""The steps of docs/guide/adapt.md, from a video to an adapted checkpoint."""

from dataclasses import replace
from pathlib import Path

import cv2
from forecast_detector_ros.cli import label, train
from forecast_detector_ros.detector.checkpoint import default_checkpoint, load_checkpoint
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.training.config import load_recipe
from forecast_detector_ros.training.trainer import load_start
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
import yaml

RECIPE = Path(__file__).resolve().parents[2] / 'config/training/adapt.yaml'


def test_recipe_fits_the_default_checkpoint():
    recipe, (_, card) = load_recipe(RECIPE), load_checkpoint(default_checkpoint())
    assert recipe.classes == tuple(card.classes) == label.CLASSES
    assert recipe.network_config() == replace(card.network, expansion_channels=None)
    load_start(default_checkpoint(), recipe)


@pytest.mark.slow
def test_from_a_video_to_an_adapted_checkpoint(tmp_path, write_onnx):
    teacher = write_onnx({'boxes': np.array([[20, 20, 90, 80]], np.float32),
                          'labels': np.array([18], np.int64),
                          'scores': np.array([0.9], np.float32)}, [1, 3, 'H', 'W'])
    clip, data = tmp_path / 'walk.avi', tmp_path / 'data'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*'MJPG'), 25.0, (128, 96))
    for number in range(12):
        writer.write(np.full((96, 128, 3), 20 * number, np.uint8))
    writer.release()
    assert label.main([str(clip), '--frames', str(data), '--teacher', str(teacher), '--output',
                       str(data / 'labels.json')]) == 0
    # The shipped recipe, shortened
    values = yaml.safe_load(RECIPE.read_text())
    values.update(workers=0, threads=1)
    for stage in values['stages']:
        stage.update(epochs=1, clips_per_epoch=2, batch=2, warmup=0)
    (tmp_path / 'short.yaml').write_text(yaml.safe_dump(values))
    assert train.main([str(tmp_path / 'short.yaml'), '--data', str(data), '--output',
                       str(tmp_path / 'run'), '--start', str(default_checkpoint())]) == 0
    before = load_file(default_checkpoint())
    after = load_file(tmp_path / 'run/scheduler.safetensors')
    changed = {key.split('.')[0] for key in before if not torch.equal(before[key], after[key])}
    assert 'extractor' not in changed and {'head', 'motion'} <= changed
    detector = Detector.load(tmp_path / 'run/scheduler.safetensors')
    assert detector.labels == label.CLASSES
