# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of several commands."""
import json

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli import program
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import pytest
import torch


@pytest.fixture(scope='session')
def write_checkpoint(tmp_path_factory):
    """Return a function that writes a small network with random weights for some classes."""
    def write(classes):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        network = ForecastDetector(NetworkConfig(
            classes=len(classes), input_size=(64, 96), width=0.35, levels=(32,),
            feature_channels=(16,), lstm_channels=(8,), extra_channels=(8,),
            scheduler_channels=8, forecast_mode='residual'))
        path = tmp_path_factory.mktemp('checkpoint') / 'small.safetensors'
        save_checkpoint(path, network,
                        Card('small', classes, network.config, score_threshold=0.2))
        return path
    return write


@pytest.fixture(scope='module')
def checkpoint(write_checkpoint):
    """Write a small network with random weights for the classes of synthetic videos."""
    return write_checkpoint(CLASSES)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Write two synthetic videos of five frames; return the annotation file."""
    return write_synthetic_videos(tmp_path_factory.mktemp('videos'), videos=2, frames=5)


@pytest.fixture
def davis(videos, tmp_path):
    """Write one of the videos as a sequence with one annotated object."""
    folder = tmp_path / 'davis/walk'
    folder.mkdir(parents=True)
    document = json.loads(videos.read_text())
    frames = []
    for image in document['images'][:5]:
        name = image['file_name'].split('/')[1]
        (folder / name).write_bytes((videos.parent / image['file_name']).read_bytes())
        frames.append({'file': name, 'box_xywh': [10, 10, 50, 40]})
    (folder / 'boxes.json').write_text(json.dumps({
        'category': 'disc', 'width': 160, 'height': 120, 'frames': frames}))
    labels = tmp_path / 'labels.json'
    labels.write_text(json.dumps({
        'images': [{'id': i, 'file_name': f'walk/{frame["file"]}', 'width': 160, 'height': 120,
                    'video': 'walk', 'frame_index': i} for i, frame in enumerate(frames)],
        'categories': document['categories'],
        'annotations': [{'id': 1, 'image_id': 0, 'category_id': 1, 'bbox': [10, 10, 50, 40],
                         'score': 0.9}]}))
    return folder.parent, labels


@pytest.fixture
def evaluate(capsys):
    """Return a function that runs an evaluation and returns exit code, stdout and stderr."""
    def run(*arguments):
        code = program.main(['evaluate', *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err
    return run


@pytest.fixture
def interrupt_jobs(monkeypatch):
    """Return a function that interrupts a verb after its first job."""
    def arrange(verb):
        run_many = verb.run_many

        def interrupted(engine, prepare, jobs, expected, interrupt, tell):
            for outcome in run_many(engine, prepare, jobs, expected, interrupt, tell):
                interrupt.is_set = True
                yield outcome

        monkeypatch.setattr(verb, 'run_many', interrupted)
    return arrange
