# SPDX-License-Identifier: Apache-2.0
"""Run graphs without PyTorch: from Python, in the program and in the node."""
from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from forecast_detector_ros.annotations.synthetic import CLASSES, write_synthetic_videos
from forecast_detector_ros.detector.backends.exported import (
    FLOAT,
    read_graphs,
    WEIGHTLESS,
    write_graphs,
)
from forecast_detector_ros.detector.backends.onnxruntime_backend import OnnxRuntimeBackend
from forecast_detector_ros.detector.backends.parity import compare_backends
from forecast_detector_ros.detector.backends.step_graph import make_graphs, state_layout
from forecast_detector_ros.detector.backends.torch_backend import TorchBackend
from forecast_detector_ros.detector.checkpoint import (
    Card,
    CheckpointError,
    read_checkpoint,
    save_checkpoint,
    SHIPPED,
    shipped_checkpoint,
)
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

from .helpers.bags import jpeg_message, write_bag

for library in ('onnx', 'onnxruntime', 'openvino'):
    pytest.importorskip(library)

ROOT = Path(__file__).resolve().parents[1]

#: Python runs this file at its start, if it is on the path.
HOOK = """
import sys
sys.modules.update(torch=None, torchvision=None)
"""

BOXES = """
import sys
import numpy as np
from forecast_detector_ros import Detector
from forecast_detector_ros.images.video_source import open_source
checkpoint, backend, clip, output = sys.argv[1:]
camera = Detector.load(checkpoint or None, precision='fp32', backend=backend).stream(
    policy='alternate(1)', score_threshold=0.05)
source, rows = open_source(clip), []
while (image := source.read()) is not None:
    found = camera(image).detections
    rows.append(np.column_stack((np.full(len(found), len(rows)), found.labels, found.scores,
                                 found.boxes)))
np.save(output, np.concatenate(rows))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment variables of a process that cannot import PyTorch."""
    hook = tmp_path / 'hook'
    hook.mkdir()
    (hook / 'sitecustomize.py').write_text(HOOK)
    return {**os.environ, 'PYTHONPATH': f'{hook}:{ROOT}', 'PYTHONUNBUFFERED': '1'}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Return a function that runs Python without PyTorch."""
    def go(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *map(str, arguments)], env=environment,
                              cwd=tmp_path, capture_output=True, text=True, check=False)
    return go


@pytest.fixture(scope='session')
def exported(tmp_path_factory: pytest.TempPathFactory,
             settle: Callable[[ForecastDetector], ForecastDetector]) -> Path:
    """Return a folder with a small network, as written by `export`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = settle(ForecastDetector(NetworkConfig(
        classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
        lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8)))
    path = tmp_path_factory.mktemp('robot') / 'small.safetensors'
    save_checkpoint(path, network, Card('small', CLASSES, network.config, score_threshold=0.2))
    checkpoint = read_checkpoint(path)
    write_graphs(path, checkpoint, make_graphs(checkpoint.network()), FLOAT, {})
    return path.parent


@pytest.fixture(scope='session')
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the annotations of a video of moving shapes; its pictures are in the same folder."""
    return write_synthetic_videos(tmp_path_factory.mktemp('videos'), videos=1, frames=6,
                                  size=(240, 320), objects=4, extension='png')


@pytest.fixture(scope='session')
def clip(videos: Path) -> str:
    """Return the folder of the video's pictures."""
    (folder,) = (path for path in videos.parent.iterdir() if path.is_dir())
    return str(folder)


@pytest.fixture(scope='session', params=['packaged', 'exported'])
def expected(request: pytest.FixtureRequest, exported: Path, clip: str,
             tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """Return the name of a checkpoint, and PyTorch's detections in the clip."""
    checkpoint = str(exported) if request.param == 'exported' else ''
    output = tmp_path_factory.mktemp('boxes') / 'boxes.npy'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['-c', checkpoint, 'torch', clip, str(output)])
        exec(BOXES, {})
    return checkpoint, np.load(output)


def test_the_hook_keeps_pytorch_out(run: Run) -> None:
    for name in ('torch', 'torchvision'):
        assert f'import of {name} halted' in run('-c', f'import {name}').stderr


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_same_boxes_as_with_pytorch(backend: str, expected: tuple[str, np.ndarray], clip: str,
                                    run: Run, tmp_path: Path) -> None:
    checkpoint, wanted = expected
    output = tmp_path / 'boxes.npy'
    done = run('-c', BOXES, checkpoint, backend, clip, output)
    assert done.returncode == 0, done.stderr
    found = np.load(output)
    assert len(wanted) > 10
    # In order: frames and classes; scores; boxes in pixels of a 320x240 picture.
    np.testing.assert_array_equal(found[:, :2], wanted[:, :2])
    np.testing.assert_allclose(found[:, 2], wanted[:, 2], atol=1e-4)
    np.testing.assert_allclose(found[:, 3:], wanted[:, 3:], atol=0.02)


def test_replay(exported: Path, run: Run, tmp_path: Path) -> None:
    write_bag(tmp_path / 'bag', {'/camera/compressed': [
        jpeg_message(number) for number in range(4)]})
    done = run('-m', 'forecast_detector_ros.cli', 'replay', 'bag', '--checkpoint', exported,
               '--output', 'replayed')
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / 'replayed').iterdir())


def test_evaluate(exported: Path, videos: Path, run: Run) -> None:
    done = run('-m', 'forecast_detector_ros.cli', 'evaluate', 'accuracy', '--annotations', videos,
               '--checkpoint', exported, '--json')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['frames'] == 6


def test_commands_that_need_pytorch_say_so_in_one_line(exported: Path, run: Run) -> None:
    done = run('-m', 'forecast_detector_ros.cli', 'summary', '--preset', 'default')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'torch' in line and 'pip install' in line


def test_checkpoint_without_graphs_is_one_line(exported: Path, run: Run, tmp_path: Path) -> None:
    for name in ('small.safetensors', 'small.yaml'):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    code = ('from forecast_detector_ros import Detector\n'
            "Detector.load('small.safetensors', backend='openvino')")
    line = run('-c', code).stderr.splitlines()[-1]
    assert 'small.safetensors' in line and 'torch' in line and 'export' in line


def test_node_becomes_active(environment: dict[str, str]) -> None:
    pytest.importorskip('rclpy')
    node = subprocess.Popen(
        [sys.executable, '-m', 'forecast_detector_ros.node.detector_node', '--ros-args', '-p',
         'autostart:=true'], env=environment, stderr=subprocess.PIPE, text=True)
    assert node.stderr is not None
    said = []
    try:
        for line in node.stderr:
            said.append(line)
            if 'active: ' in line:
                break
    finally:
        node.send_signal(signal.SIGINT)
        node.communicate(timeout=600)
    assert said and 'active: ' in said[-1], said
    assert node.returncode == 0
    assert any('openvino on cpu' in line for line in said)


@pytest.mark.parametrize('name', SHIPPED)
def test_the_packaged_graphs_match_the_code(name: str) -> None:
    """If the network changed, run forecast-detector export --package --checkpoint NAME."""
    try:
        checkpoint = read_checkpoint(shipped_checkpoint(name))
    except CheckpointError:
        pytest.skip(f'the package does not hold {name}')
    packaged = read_graphs(checkpoint.path, checkpoint, WEIGHTLESS)
    network = checkpoint.network()
    assert packaged.layout == state_layout(network)
    assert packaged.classes == len(checkpoint.card.classes)
    np.testing.assert_array_equal(packaged.anchors, network.anchors)
    # Outputs may differ only by the rounding of sums in another order.
    clip = [np.random.default_rng(seed).integers(0, 256, (*network.config.input_size, 3), np.uint8)
            for seed in range(3)]
    parity = compare_backends(TorchBackend(network), OnnxRuntimeBackend(packaged), [clip],
                              checkpoint.card)
    assert parity.same, parity
