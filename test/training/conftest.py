# SPDX-License-Identifier: Apache-2.0
"""A set of two short videos and a small recipe for it."""

import json

import cv2
import numpy as np
import pytest
import yaml

FRAMES = 8

SMALL = {'input_size': [64, 64], 'width': 0.35, 'feature_channels': [16, 24],
         'lstm_channels': [8, 12], 'extra_channels': [16]}


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
    """Write two videos of a bright square that moves over noise, with their boxes."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for video in ('left', 'right'):
        (root / video).mkdir()
        for index in range(FRAMES):
            picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            x = 4 + 3 * index if video == 'left' else 36 - 3 * index
            picture[20:44, x:x + 24] = (40, 220, 240) if video == 'left' else (240, 60, 30)
            name = f'{video}/{index:03d}.png'
            assert cv2.imwrite(str(root / name), picture)
            images.append({'id': len(images) + 1, 'file_name': name, 'width': 64, 'height': 64,
                           'video': video, 'frame_index': index})
            annotations.append({'id': len(images), 'image_id': len(images), 'score': 0.9,
                                'category_id': 1 if video == 'left' else 2, 'track_id': 1,
                                'bbox': [x, 20, 24, 24]})
    (root / 'train.json').write_text(json.dumps({
        'images': images, 'annotations': annotations,
        'categories': [{'id': 1, 'name': 'yellow'}, {'id': 2, 'name': 'blue'}]}))
    return root


@pytest.fixture
def recipe_values():
    """Return a recipe of three short stages as plain values."""
    stage = {'epochs': 2, 'clips_per_epoch': 8, 'batch': 4, 'optimizer': 'adamw', 'ema': 0.9,
             'clip_length': 3, 'thinning': 1, 'plain_epochs': 1}
    rate = {'lr': 0.001}
    return {
        'name': 'tiny', 'classes': ['yellow', 'blue'], 'preset': 'features', 'network': SMALL,
        'seed': 3, 'workers': 0, 'threads': 1,
        'sources': [{'annotations': 'train.json', 'images': '.'}],
        'card': {'licence': 'CC0-1.0'},
        'stages': [
            {**stage, 'name': 'one', 'variant': 'baseline', 'clip_length': 1,
             'extra_frame': False, 'freeze_bn': 'backbone',
             'groups': {'backbone': rate, 'projection': rate, 'head': rate}},
            {**stage, 'name': 'two', 'groups': {'encoder': rate, 'head': rate},
             'loss': {'rollout': 0.5}},
            {**stage, 'name': 'three', 'groups': {'scheduler': rate}, 'scheduler_from': 0}]}


@pytest.fixture
def recipe_file(tmp_path, recipe_values):
    """Write the recipe."""
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump(recipe_values))
    return path
