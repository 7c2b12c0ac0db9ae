# SPDX-License-Identifier: Apache-2.0
"""The command `train`: killed and parallel processes, validation, TensorBoard."""

import logging
import os
import re
import signal
import subprocess
import sys
import time

import cv2
from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli import train
from forecast_detector_ros.detector.checkpoint import Card, load_checkpoint, save_checkpoint
from forecast_detector_ros.training.config import load_recipe
from forecast_detector_ros.training.snapshot import load_snapshot
from forecast_detector_ros.training.stage_run import build_network
from forecast_detector_ros.training.trainer import SNAPSHOT
import numpy as np
import pytest
from safetensors.torch import load_file
import torch
import yaml

RATE = {'lr': 0.001}
STAGE = {'epochs': 3, 'clips_per_epoch': 8, 'batch': 4, 'optimizer': 'adamw', 'ema': 0.9,
         'clip_length': 2, 'thinning': 1, 'plain_epochs': 1, 'clip_norm': 10.0, 'warmup': 2}
NETWORK = {'input_size': [64, 96], 'width': 0.35, 'feature_channels': [16, 24],
           'lstm_channels': [8, 12], 'extra_channels': [16]}
PROGRAM = ('forecast_detector_ros.cli', 'train')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Write three synthetic videos to train on, and two others."""
    root = tmp_path_factory.mktemp('data')
    write_synthetic_videos(root / 'train', seed=0, videos=3, frames=6, size=(64, 96))
    write_synthetic_videos(root / 'other', seed=1, videos=2, frames=7, size=(64, 96))
    return root


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe; only the first stage trains the extractor."""
    def write(stages=None, **keys):
        path = tmp_path / 'recipe.yaml'
        path.write_text(yaml.safe_dump({
            'name': 'tiny', 'classes': list(CLASSES), 'preset': 'features', 'network': NETWORK,
            'workers': 0,
            'threads': 1, 'device': 'cpu',
            'sources': [{'annotations': 'train/annotations.json', 'images': 'train'}],
            'stages': stages or [
                {**STAGE, 'name': 'first', 'loss': {'min_negatives': 3}, 'groups': {
                    'backbone': RATE, 'projection': RATE, 'encoder': RATE, 'head': RATE}},
                {**STAGE, 'name': 'second', 'reuse': 2, 'scheduler_from': 1,
                 'loss': {'min_negatives': 3, 'rollout': 0.5, 'decision_weights': [2.0, 1.0],
                          'forecast_scale': 'persistence'},
                 'groups': {'encoder': RATE, 'head': RATE, 'scheduler': RATE}}],
            **keys}))
        return path
    return write


@pytest.fixture
def start(recipe, data, tmp_path):
    """Write start weights whose features change from frame to frame."""
    network = build_network(load_recipe(recipe()).network_config(), 0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.extractor.train()
    pictures = np.stack([cv2.imread(str(path)) for path in sorted(data.glob('train/*/*.jpg'))])
    with torch.no_grad():
        network.extract(network.normalise_bgr(torch.from_numpy(pictures)))
    path = tmp_path / 'start.safetensors'
    save_checkpoint(path, network, Card('start', CLASSES, network.config), torch.float32)
    return path


VALIDATION = {'sources': [{'annotations': 'other/annotations.json', 'images': 'other'}],
              'every': 2, 'frames': 10}


def arguments(recipe, data, output, *more):
    return [str(recipe), '--data', str(data), '--output', str(output), '--log-every', '1', *more]


def process(launcher, recipe, data, output, *more):
    return subprocess.Popen(
        [sys.executable, *launcher, *PROGRAM, *arguments(recipe, data, output, *more)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})


def losses(text):
    """Return the losses of each log line, by stage and iteration."""
    result = {}
    for line in text.splitlines():
        match = re.search(r'(\w+) (\d+)/\d+  (loc .*?)  lr_', line)
        if match:
            # Speed, memory and time follow the rates.
            result[match[1], int(match[2])] = {
                name: float(value) for name, value in re.findall(r'(\w+) ([\d.]+)', match[3])}
    return result


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.slow
def test_training_killed_in_an_epoch_resumes_exactly(recipe, start, data, tmp_path):
    path = recipe(validation=VALIDATION)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    more = ('--start', str(start))
    assert train.main(arguments(path, data, whole, *more)) == 0
    # It is killed in the stage that trains the extractor, and in one with kept features.
    for stage, iteration in (('first', 3), ('second', 3)):
        run = process(['-m'], path, data, broken, '--snapshot-every', '0', *more)
        for line in run.stderr:
            if f'{stage} {iteration}/6' in line:
                # The short wait lets it die at any point of an iteration.
                time.sleep(0.05)
                run.send_signal(signal.SIGKILL)
                break
        run.stderr.read()
        assert run.wait() == -signal.SIGKILL
        state = load_snapshot(broken / SNAPSHOT)
        assert state.stage == stage and state.iteration < 6
    assert train.main(arguments(path, data, broken, *more)) == 0
    for name in ('first', 'second'):
        same(load_file(whole / f'{name}.safetensors'), load_file(broken / f'{name}.safetensors'))
    expected, found = (load_snapshot(folder / SNAPSHOT) for folder in (whole, broken))
    for part in ('network', 'average', 'best'):
        same(getattr(expected, part), getattr(found, part))
    assert (expected.iteration, expected.best_score) == (found.iteration, found.best_score)


@pytest.mark.slow
def test_losses_of_two_processes_equal_those_of_one(
        recipe, start, data, tmp_path, caplog):
    # These settings do not amplify float noise. AdamW makes full steps along noisy gradients.
    # Noise decides which of nearly equal negatives are hard. A random backbone is chaotic.
    stages = yaml.safe_load(recipe().read_text())['stages']
    for stage in stages:
        stage['optimizer'] = 'sgd'
        stage['loss']['min_negatives'] = 10000
        stage['groups'].pop('backbone', None)
    path = recipe(stages)
    more = ('--start', str(start))
    caplog.set_level(logging.INFO)
    assert train.main(arguments(path, data, tmp_path / 'one', *more)) == 0
    alone = '\n'.join(caplog.messages)
    two = process(['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '-m',
                   '--'], path, data, tmp_path / 'two', *more)
    together = two.communicate()[1]
    assert two.returncode == 0, together
    expected, found = losses(alone), losses(together)
    assert len(expected) == 12 and set(found) == set(expected)
    assert expected['first', 1]['persistence'] > 0.01
    assert {'loc', 'cls', 'for', 'persistence', 'dec', 'y_t', 'read'} <= set(
        expected['second', 6])
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=2e-3, abs=2e-4), key
    for name in ('first', 'second'):
        a, b = (load_file(tmp_path / folder / f'{name}.safetensors') for folder in ('one', 'two'))
        for key, value in a.items():
            # The files have half precision.
            torch.testing.assert_close(b[key], value, rtol=2e-3, atol=1e-4, msg=key)


def test_a_batch_that_cannot_be_shared_is_refused(recipe, data):
    from forecast_detector_ros.training.loader import load_sources
    from forecast_detector_ros.training.machine import Processes
    from forecast_detector_ros.training.stage_run import StageRun
    loaded = load_recipe(recipe())
    with pytest.raises(ValueError, match='batch is 4, must be a multiple of the 3 processes'):
        StageRun(loaded, loaded.stages[0], load_sources(loaded, data), Processes(0, 3), None, None,
                 None, 0.0)


def test_validation_keeps_the_best_weights(recipe, data, tmp_path, caplog, monkeypatch):
    scores = iter([0.5, 0.25, 0.75, 0.75])
    kept = []

    def measure(network, classes, videos):
        assert not network.training
        # 10 frames of two sequences of seven frames: five each, from the second one.
        assert [len(item.frames) for item in videos] == [5, 5]
        assert videos[0].frames[0].path.name == '000002.jpg'
        kept.append({key: value.clone() for key, value in network.state_dict().items()})
        return {'score': next(scores), 'other': 0.125}

    monkeypatch.setattr('forecast_detector_ros.evaluation.policy_sweep.measure', measure)
    caplog.set_level(logging.INFO)
    path = recipe(validation=VALIDATION)
    assert train.main(arguments(path, data, tmp_path / 'run')) == 0
    # Validation follows every second and the last epoch; each stage has its own best score.
    said = [line for line in caplog.messages if 'score' in line]
    assert said == [
        'first epoch 2: score 0.5000  other 0.1250  best so far',
        'first epoch 3: score 0.2500  other 0.1250',
        'second epoch 2: score 0.7500  other 0.1250  best so far',
        'second epoch 3: score 0.7500  other 0.1250  best so far']
    for name, index in (('first', 0), ('first.best', 0), ('second', 3), ('second.best', 3)):
        network, card = load_checkpoint(tmp_path / f'run/{name}.safetensors')
        for key, value in network.state_dict().items():
            assert torch.equal(value.half(), kept[index][key].half()), key


def test_validation_measures_every_policy(recipe, data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stage = {**STAGE, 'epochs': 1, 'groups': {'head': RATE}}
    path = recipe([{**stage, 'name': 'first', 'variant': 'baseline', 'clip_length': 1,
                    'extra_frame': False}, {**stage, 'name': 'second'}], validation=VALIDATION)
    assert train.main(arguments(path, data, tmp_path / 'run')) == 0
    first, second = (line for line in caplog.messages if 'score' in line)
    assert re.search(r'score 0\.\d{4}  ap50_read 0\.\d{4}  best so far$', first)
    assert re.search(r'score \S+  ap50_read \S+  ap50_alternate \S+  ap50_scheduler \S+  '
                     r'read_ratio [01]\.\d{4}  best so far$', second)


def test_validation_on_training_data_is_refused(recipe, data, tmp_path, capsys):
    path = recipe(validation={'sources': [
        {'annotations': 'train/annotations.json', 'images': 'train'}]})
    assert train.main(arguments(path, data, tmp_path / 'run')) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('train: sequence ') and 'is trained on' in line


def test_tensorboard_has_scalars_and_examples_and_resume_drops_later_ones(
        recipe, data, tmp_path):
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator').EventAccumulator
    stage = {**STAGE, 'name': 'only', 'scheduler_from': 0,
             'groups': {'encoder': RATE, 'scheduler': RATE, 'head': RATE}}
    command = arguments(recipe([stage]), data, tmp_path / 'run', '--tensorboard')
    # The training stops after the first iteration.
    assert train.main([*command, '--stop-after', '0']) == 0
    # A run that died may have written scalars of iterations after its snapshot.
    from torch.utils.tensorboard import SummaryWriter
    with SummaryWriter(tmp_path / 'run/tensorboard/only') as writer:
        writer.add_scalar('loss/loc', 1e6, 5)
    assert train.main(command) == 0
    found = accumulator(str(tmp_path / 'run/tensorboard/only'))
    found.Reload()
    assert {'loss/loc', 'loss/cls', 'loss/for', 'loss/persistence', 'loss/dec', 'lr/encoder',
            'scheduler/y_t', 'scheduler/read_ratio', 'speed/images_per_second',
            'speed/memory_gb'} <= set(found.Tags()['scalars'])
    events = found.Scalars('loss/loc')
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert max(event.value for event in events) < 1e6
    images = found.Images('examples')
    assert [event.step for event in images] == [2, 4, 6]
    # Four clips of three frames of 64x96 pixels, with lines between them.
    assert (images[0].height, images[0].width) == (4 * 66 + 2, 3 * 98 + 2)


def test_without_tensorboard_one_line_says_so(recipe, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    assert train.main(arguments(recipe(), data, tmp_path / 'run', '--tensorboard')) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        'train: TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('terminal', [True, False])
def test_bar_of_each_stage_in_a_terminal_alone(terminal, monkeypatch):
    shown = []

    class Bar:

        def __init__(self, title):
            self.title = title

        def __enter__(self):
            return lambda done, total: shown.append((self.title, done, total))

        def __exit__(self, *error):
            shown.append(f'end of {self.title}')

    monkeypatch.setattr(train, 'show_progress', Bar)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal, raising=False)
    bar = train.StageBar()
    for stage, done in (('a', 1), ('a', 2), ('b', 1)):
        bar.progress(stage, done, 2)
    bar.close()
    assert shown == ([('a', 1, 2), ('a', 2, 2), 'end of a', ('b', 1, 2), 'end of b']
                     if terminal else [])


@pytest.mark.parametrize('keys, words', [
    ({'device': 'cuda'}, 'device is cuda, but PyTorch finds no CUDA device; use cpu or auto'),
    ({'amp': 'fp16'}, 'amp is fp16, which needs CUDA; on cpu use bf16 or none')])
def test_missing_device_is_named(recipe, data, tmp_path, capsys, keys, words):
    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA')
    assert train.main(arguments(recipe(**keys), data, tmp_path / 'run')) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f'train: {words}'


def test_log_needs_a_number_of_iterations(recipe, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([*arguments(recipe(), data, tmp_path / 'run'), '--log-every', '0'])
    assert stop.value.code == 2 and 'must be an integer of at least 1' in capsys.readouterr().err
