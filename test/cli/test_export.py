# SPDX-License-Identifier: Apache-2.0
"""Graphs are written only if they give the same boxes as PyTorch, and they are loaded."""
from copy import deepcopy
from dataclasses import replace
import json
from pathlib import Path
from shutil import copytree

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.cli import export
from forecast_detector_ros.cli.export import load_clips
from forecast_detector_ros.detector.backends import exported, step_graph
from forecast_detector_ros.detector.backends.step_graph import make_graphs
from forecast_detector_ros.detector.checkpoint import (
    Card,
    default_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, Pixels
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch


@pytest.mark.parametrize(('count', 'lengths'), [
    (1, [1]), (3, [3]), (5, [5]), (10, [5, 5]), (12, [3, 3, 3, 3]), (24, [6, 6, 6, 6]),
    (90, [7, 7, 7, 7])])
def test_frames_are_spread_in_clips(count, lengths, tmp_path):
    path = write_synthetic_videos(tmp_path, videos=4, frames=7, size=(32, 48), objects=1)
    card = replace(load_checkpoint(default_checkpoint())[1], classes=CLASSES)
    clips = load_clips(path, None, count, card)
    assert [len(clip) for clip in clips] == lengths
    height, width = card.input_size
    assert all(frame.shape == (height, width, 3) for clip in clips for frame in clip)


for library in ('onnx', 'onnxruntime'):
    pytest.importorskip(library)


@pytest.fixture(scope='session')
def small(tmp_path_factory, settle):
    """Write a small network and its card; tests must not change the files."""
    network = settle(ForecastDetector(NetworkConfig(
        classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
        lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8)))
    path = tmp_path_factory.mktemp('small') / 'small.safetensors'
    save_checkpoint(path, network, Card('small', CLASSES, network.config), torch.float32)
    return path


@pytest.fixture
def checkpoint(small, tmp_path):
    """Copy the small network into a folder of its own; return the checkpoint."""
    return Path(copytree(small.parent, tmp_path / 'weights')) / small.name


@pytest.fixture(scope='session')
def video(tmp_path_factory):
    return write_synthetic_videos(tmp_path_factory.mktemp('video'), videos=2, frames=5)


@pytest.fixture(scope='session')
def quantised(small, video, tmp_path_factory):
    """Export the small network in int8, calibrated on ten frames; return its checkpoint."""
    folder = tmp_path_factory.mktemp('int8')
    # The scores of an untrained network are nearly equal, so many boxes change their order.
    assert export.main(['--checkpoint', str(small), '--output', str(folder), '--frames', '6',
                        '--int8', '--calibrate', str(video), '--calibration-frames', '10',
                        '--min-likeness', '-9']) == 0
    return folder / small.name


def boxes(detector):
    state, found = StreamState.initial(), []
    settings = DetectorSettings(AlternatePolicy(1), score_threshold=0.2)
    for seed in range(4):
        pixels = Pixels(np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8), 'bgr')
        frame = Frame((64, 96), lambda pixels=pixels: pixels)
        result, state = detector.step(frame, state, settings)
        found.append(np.column_stack([result.detections.boxes, result.detections.labels]))
    return found


def test_exported_graphs_are_loaded(checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / 'robot'
    assert export.main(['--checkpoint', str(checkpoint), '--output', str(folder),
                        '--frames', '6']) == 0
    record = json.loads((folder / 'small.export.json').read_text())
    assert record['parity']['steps'] == 6 and record['parity']['boxes'] > 0
    assert record['parity']['boxes_off'] == 0 and record['parity']['logits'] < 1e-3
    assert sorted(path.name for path in folder.iterdir()) == [
        'small.anchors.npy', 'small.export.json', 'small.forecast_step.onnx',
        'small.read_step.onnx', 'small.safetensors', 'small.yaml']
    assert 'small.export.json: fp32' in capsys.readouterr().out
    expected = boxes(Detector.load(checkpoint, backend='torch'))

    def refuse(*_):
        raise AssertionError('graphs were made anew')

    monkeypatch.setattr(step_graph, 'make_graphs', refuse)
    found = boxes(Detector.load(folder, backend='onnxruntime'))
    assert sum(map(len, expected)) > 0
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)


def test_graphs_that_do_not_match_are_not_written(checkpoint, monkeypatch, capsys):
    def wrong(network):
        with torch.no_grad():
            network.head.classification[0][1].bias[1] += 0.01
        return make_graphs(network)

    monkeypatch.setattr(export, 'make_graphs', wrong)
    before = sorted(checkpoint.parent.iterdir())
    # The reference must keep the original weights.
    plain = export.TorchBackend
    monkeypatch.setattr(export, 'TorchBackend', lambda network: plain(deepcopy(network)))
    assert export.main(['--checkpoint', str(checkpoint), '--frames', '4']) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines()
               if line.startswith('export: ')]
    assert 'do not match' in line and 'nothing is written' in line
    assert sorted(checkpoint.parent.iterdir()) == before


def test_int8_is_calibrated_and_loaded(quantised):
    record = json.loads(quantised.with_name('small.int8.export.json').read_text())
    assert record['calibration_frames'] == 10 and record['precision'] == 'int8'
    assert record['parity']['boxes_firm'] > 0 and record['parity']['logits'] > 1e-3
    size = exported.graph_path(quantised, 'read_step', 'int8').stat().st_size
    assert size < len(make_graphs(load_checkpoint(quantised)[0]).graphs['read_step'])
    detector = Detector.load(quantised, precision='int8', backend='onnxruntime')
    assert (detector.backend, detector.precision) == ('onnxruntime', 'int8')
    assert sum(map(len, boxes(detector))) > 0


def test_int8_with_different_boxes_is_refused(checkpoint, video, capsys):
    before = sorted(checkpoint.parent.iterdir())
    assert export.main(['--checkpoint', str(checkpoint), '--frames', '2', '--int8', '--calibrate',
                        str(video), '--calibration-frames', '2', '--min-likeness', '1.1']) == 1
    assert 'likeness' in capsys.readouterr().err
    assert sorted(checkpoint.parent.iterdir()) == before


def test_lstm_gates_stay_in_float(quantised):
    import onnx
    model = onnx.load(exported.graph_path(quantised, 'forecast_step', 'int8'))
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    kinds = {}
    for node in model.graph.node:
        if node.op_type == 'Conv':
            # Only the weights tell, because a float convolution can follow a quantised one.
            kinds[node.name] = made_by.get(node.input[1]) == 'DequantizeLinear'
    gates = [name for name in kinds if '/lstm/gates/' in name]
    assert gates and not any(kinds[name] for name in gates)
    assert sum(kinds.values()) > len(kinds) // 2
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT,
                                                    onnx.TensorProto.UINT8)


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--int8'], ['--int8', '--calibrate']),
    (['--clip', '/nowhere/clip.mp4'], ['/nowhere/clip.mp4']),
    (['--checkpoint', '/nowhere/x.safetensors'], ['/nowhere/x.safetensors'])])
def test_bad_input_is_one_line(arguments, words, checkpoint, capsys):
    assert export.main(['--checkpoint', str(checkpoint), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)


def test_other_checkpoint_in_the_folder_is_kept(checkpoint, tmp_path, capsys):
    folder = tmp_path / 'robot'
    folder.mkdir()
    (folder / 'small.safetensors').write_bytes(b'another')
    assert export.main(['--checkpoint', str(checkpoint), '--output', str(folder),
                        '--frames', '4']) == 2
    assert 'another checkpoint' in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ['small.safetensors']
