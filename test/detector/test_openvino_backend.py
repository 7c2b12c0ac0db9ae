# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's compiled graphs come back as they were written, or not at all."""

from forecast_detector_ros import files
from forecast_detector_ros.detector.backends.graph_backend import StateLayout, StepGraphs, STEPS
from forecast_detector_ros.detector.backends.openvino_backend import CompiledCache
from forecast_detector_ros.detector.checkpoint import default_checkpoint
from forecast_detector_ros.detector.detector import Detector
import numpy as np
import pytest

MODEL = StepGraphs({step: step.encode() for step in STEPS}, StateLayout({}, {}, {}, {}),
                   np.zeros((1, 4), np.float32), 1)


def test_changed_files_go_and_others_stay(tmp_path):
    cache = CompiledCache(tmp_path, MODEL)
    for name in 'abc':
        (cache.folder / f'{name}.blob').write_bytes(bytes(100))
    cache.keep()
    (cache.folder / 'a.blob').write_bytes(bytes(99) + b'x')
    (cache.folder / 'd.blob').write_bytes(b'nobody vouches for it')
    again = CompiledCache(tmp_path, MODEL)
    assert again.folder == cache.folder
    assert sorted(path.name for path in again.folder.glob('*.blob')) == ['b.blob', 'c.blob']


def test_every_network_has_its_own(tmp_path):
    other = StepGraphs({**MODEL.graphs, STEPS[0]: b'other'}, *list(vars(MODEL).values())[1:])
    assert CompiledCache(tmp_path, other).folder != CompiledCache(tmp_path, MODEL).folder


def test_weights_that_the_disk_has_changed_are_compiled_anew(tmp_path, monkeypatch):
    pytest.importorskip('openvino')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))

    def logits():
        backend = Detector.load(default_checkpoint(), backend='openvino')._backend
        picture = np.full((1, 288, 384, 3), 100, np.uint8)
        return backend.read_step(picture, backend.initial_state(1)).logits

    expected = logits()
    blob = max((tmp_path / files.PACKAGE).rglob('*.blob'), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    middle = len(data) // 2
    data[middle:middle + 100_000] = bytes(100_000)
    blob.chmod(0o600)
    blob.write_bytes(data)
    np.testing.assert_array_equal(logits(), expected)
    assert blob.read_bytes() != bytes(data)
