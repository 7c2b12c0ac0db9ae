# SPDX-License-Identifier: Apache-2.0
"""The recipes of the paper have its numbers, differ only as documented, and train."""

from collections import Counter
from dataclasses import replace
import json
from pathlib import Path
import re

import cv2
from forecast_detector_ros.annotations.imagenet_vid import VID_CLASSES
from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.annotations.video_json import load_video_json
from forecast_detector_ros.cli.train import main as train
from forecast_detector_ros.clips.augment import AugmentConfig
from forecast_detector_ros.detector.checkpoint import load_checkpoint
from forecast_detector_ros.training.config import load_recipe
from forecast_detector_ros.training.recipe_file import read_recipe
from forecast_detector_ros.training.schedule import learning_rate
import pytest
import torch
import yaml

FOLDER = Path(__file__).parents[2] / 'config' / 'training'
SHIPPED = Path(__file__).parents[2] / 'checkpoints'

SMALL_INPUT = {'input_size': [64, 64]}
SMALL = {**SMALL_INPUT, 'width': 0.35, 'feature_channels': [16], 'lstm_channels': [16],
         'extra_channels': [16]}


def rates(stage, group, *epochs):
    """Return a group's learning rates after the warm-up, at the start of epochs counted from 0."""
    per_epoch = stage.clips_per_epoch // stage.batch
    return pytest.approx([learning_rate(stage.groups[group], replace(stage, warmup=0),
                                        epoch * per_epoch) for epoch in epochs])


def test_paper_has_the_numbers_of_section_4_2():
    recipe = load_recipe(FOLDER / 'paper.yaml')
    first, second = recipe.stages
    assert recipe.classes == tuple(VID_CLASSES.values())
    network = recipe.network_config()
    assert (network.levels, network.feature_channels, network.width) == ((32,), (1280,), 1.0)
    assert (first.variant, second.variant) == ('baseline', 'complete')
    assert (second.clip_length, second.extra_frame, second.batch) == (10, True, 12)
    assert (second.optimizer, second.weight_decay) == ('sgd', 5e-4)
    assert (second.epochs, second.scheduler_from, second.plain_epochs) == (40, 25, 2)
    assert second.thinning == 25
    for group in ('backbone', 'head'):
        assert rates(second, group, 0, 17, 18, 29, 30, 39) == [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]
    assert rates(second, 'encoder', 0, 17, 18, 30) == [1e-4, 1e-4, 1e-5, 1e-6]
    assert rates(second, 'scheduler', 25, 29, 30, 34, 35) == [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    loss = second.loss
    assert (loss.alpha, loss.beta, loss.gamma, loss.lambda_) == (1.0, 1.0, 1.0, 0.7)
    assert (loss.reliable_iou, loss.reliable_against, loss.rollout) == (0.7, 'truth', 0.0)
    # The defaults that are switched off do not belong to SSD's augmentation.
    assert second.augment == first.augment == AugmentConfig(
        still_motion_probability=0.0, paste_still_probability=0.0, paste_video_probability=0.0,
        paste_empty_probability=0.0)


def test_paper_trains_single_frames_of_vid_and_det_and_then_clips_of_vid_alone():
    recipe = load_recipe(FOLDER / 'paper.yaml')
    first, second = recipe.stages
    assert [(source.format, source.kind) for source in recipe.sources] == [
        ('imagenet_vid', 'video'), ('imagenet_det', 'still')]
    assert (first.clip_length, first.extra_frame, first.still_fraction) == (1, False, 0.5)
    assert second.still_fraction == 0.0
    assert recipe.cache == 'none'


def test_stable_differs_from_paper_in_rates_and_their_safeguards():
    paper, stable = (load_recipe(FOLDER / f'{name}.yaml') for name in ('paper', 'stable'))
    common = {'groups': {}, 'warmup': 0, 'clip_norm': 0.0, 'ema': 0.0}

    def bare(recipe):
        return replace(recipe, name='', card={}, stages=tuple(
            replace(stage, **common) for stage in recipe.stages))

    assert bare(paper) == bare(stable)
    for stage in stable.stages:
        assert (stage.clip_norm, stage.warmup > 0, stage.ema > 0) == (10.0, True, True)
    second = stable.stages[1]
    assert {name: group.lr for name, group in second.groups.items()} == {
        'encoder': 1e-2, 'backbone': 1e-3, 'projection': 1e-3, 'head': 1e-3, 'scheduler': 1e-3}


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """Write synthetic videos as ImageNet VID and one frame of each as DET, with their lists."""
    root = tmp_path_factory.mktemp('imagenet')
    made = root / 'made'
    path = write_synthetic_videos(made, seed=5, videos=2, frames=12, size=(64, 96))
    lists: dict[str, list[str]] = {'VID_train_15frames': [], 'DET_train_30classes': []}
    for number, video in enumerate(load_video_json(path, made, CLASSES)):
        snippet = f'train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_{number:08d}'
        lists['VID_train_15frames'].append(f'{snippet} 1 0 {len(video.frames)}')
        for index, frame in enumerate(video.frames):
            write_imagenet(root, 'VID', f'{snippet}/{index:06d}', frame)
        picture = f'train/ILSVRC2013_train/n{number:08d}'
        lists['DET_train_30classes'].append(f'{picture} 1')
        write_imagenet(root, 'DET', picture, video.frames[0])
    (root / 'lists').mkdir()
    for name, lines in lists.items():
        (root / 'lists' / f'{name}.txt').write_text('\n'.join(lines))
    return root


def write_imagenet(root, part, name, frame):
    """Write a picture and its XML; the shapes have the names of the first classes of VID."""
    picture = root / f'ILSVRC2015/Data/{part}/{name}.JPEG'
    xml = root / f'ILSVRC2015/Annotations/{part}/{name}.xml'
    for path in (picture, xml):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(cv2.imencode('.jpg', cv2.imread(str(frame.path)))[1].tobytes())
    objects = ''
    for label, box in zip(frame.labels, frame.boxes.astype(int)):
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), box - (0, 0, 1, 1))
        objects += (f'<object><name>{list(VID_CLASSES)[label]}</name><bndbox>'
                    + ''.join(f'<{key}>{value}</{key}>' for key, value in corners)
                    + '</bndbox></object>')
    xml.write_text(f'<annotation><size><width>{frame.width}</width><height>{frame.height}</height>'
                   f'</size>{objects}</annotation>')


def shortened(path, text, network):
    """Write a recipe with a smaller network and two iterations a stage, one with the scheduler."""
    # The recipe that it extends is in the folder of recipes.
    path.write_text(text.replace('extends: ', f'extends: {FOLDER}/'))
    values = read_recipe(path)
    values.update(workers=0, threads=1, network={**values.get('network', {}), **network})
    for stage in values['stages']:
        stage.update(epochs=min(stage['epochs'], 2), clips_per_epoch=2, batch=2, plain_epochs=1)
        stage['clip_length'] = min(stage['clip_length'], 3)
        if stage.get('scheduler_from'):
            stage['scheduler_from'] = 1
    path.write_text(yaml.safe_dump(values))
    return path


def run(recipe, data, output, caplog):
    """Train; return the last log line of the last stage, and the card of its checkpoint."""
    with caplog.at_level('INFO'):
        assert train([str(recipe), '--data', str(data), '--output', str(output)]) == 0
    last = [line for line in caplog.messages if re.match(r'joint 2/2 ', line)]
    assert (output / 'baseline.safetensors').exists()
    return last[-1], load_checkpoint(output / 'joint.safetensors')[1]


@pytest.mark.parametrize('name, variant, network', [
    # The first row has the paper's channels, which need no projection.
    ('paper', 'complete', SMALL_INPUT), ('paper', 'without_forecast', SMALL),
    ('paper', 'without_combination', SMALL), ('paper', 'recurrent', SMALL),
    ('stable', 'complete', SMALL)])
def test_a_row_of_table_2_is_one_line_and_trains(name, variant, network, imagenet, tmp_path,
                                                 caplog):
    text = (FOLDER / f'{name}.yaml').read_text()
    marked = 'variant: complete  # <- Table 2'
    assert text.count(marked) == 1
    text = text.replace(marked, f'variant: {variant}')
    recipe = shortened(tmp_path / 'short.yaml', text, network)
    line, card = run(recipe, imagenet, tmp_path / 'run', caplog)
    assert card.network.variant == variant
    for loss in ('loc', 'cls', 'for', 'dec'):
        forecasts = loss in ('loc', 'cls') or variant != 'recurrent'
        assert bool(re.search(rf'\b{loss} \d', line)) == forecasts, line


def test_shapes_trains_on_the_synthetic_set(tmp_path, caplog):
    write_synthetic_videos(tmp_path, seed=6, videos=2, frames=8, size=(64, 64))
    text = (FOLDER / 'shapes.yaml').read_text()
    assert text.count('variant: complete  # <- Table 2') == 1
    line, card = run(shortened(tmp_path / 'short.yaml', text, SMALL_INPUT), tmp_path,
                     tmp_path / 'run', caplog)
    assert tuple(card.classes) == CLASSES
    assert re.search(r'\bdec \d', line), line


def shipped_card(name):
    return load_checkpoint(SHIPPED / f'{name}.safetensors')[1]


@pytest.mark.parametrize('name', ['default', 'small', 'large'])
def test_a_shipped_card_agrees_with_its_recipe(name):
    recipe = load_recipe(FOLDER / f'{name}.yaml')
    card = shipped_card(name)
    found = recipe.network_config(recipe.stages[-1])
    assert replace(card.network, expansion_channels=None) == found
    for key, value in recipe.card.items():
        if key != 'provenance':
            shipped = getattr(card, key)
            assert (list(shipped) if isinstance(value, list) else shipped) == value, key
    assert recipe.classes == card.classes


def test_the_shipped_recipes_follow_one_another(tmp_path):
    """Short trainings of `small` and `large` start from one of `default`, as those shipped do."""
    data = tmp_path / 'data'
    path = write_synthetic_videos(data, seed=6, videos=2, frames=12, size=(64, 64))
    # The boxes of a frame are in the order of its objects, which gives the tracks.
    values = json.loads(path.read_text())
    counts = Counter()
    for box in values['annotations']:
        counts[box['image_id']] += 1
        box['track_id'] = counts[box['image_id']]
    path.write_text(json.dumps(values))
    tiny = {'width': 0.35, 'feature_channels': [8, 8, 8], 'lstm_channels': [8, 8, 8],
            'neck_channels': 8, 'extra_channels': [8]}
    start = []
    for name, last in (('default', 'scheduler'), ('small', 'motion'), ('large', 'motion')):
        recipe = shortened(tmp_path / f'{name}.yaml', (FOLDER / f'{name}.yaml').read_text(), tiny)
        values = yaml.safe_load(recipe.read_text())
        values.update(classes=list(CLASSES), prune=False, sources=[
            {'annotations': path.name, 'images': '.'}])
        recipe.write_text(yaml.safe_dump(values))
        output = tmp_path / name
        assert train([str(recipe), '--data', str(data), '--output', str(output), *start]) == 0
        network, card = load_checkpoint(output / f'{last}.safetensors')
        assert card.network.input_size == shipped_card(name).network.input_size
        weights = network.state_dict()
        if not start:
            first = weights
            start = ['--start', str(output / f'{last}.safetensors')]
        kept = {key for key, value in weights.items() if torch.equal(value, first[key])}
        assert kept >= {key for key in weights if key.startswith(('motion.', 'scheduler.'))}
        assert (kept == weights.keys()) == (name == 'default')
