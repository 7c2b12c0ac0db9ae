# SPDX-License-Identifier: Apache-2.0
"""Check OpenVINO's cache of compiled graphs, and its computation in bf16."""

import errno
import os
import re
import tempfile

from forecast_detector_ros import files
from forecast_detector_ros.detector.backends import openvino_backend
from forecast_detector_ros.detector.backends.graph_backend import StateLayout, StepGraphs, STEPS
from forecast_detector_ros.detector.backends.openvino_backend import CompiledCache
from forecast_detector_ros.detector.backends.registry import graphs_for
from forecast_detector_ros.detector.checkpoint import default_checkpoint, read_checkpoint
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.host import import_openvino
import numpy as np
import pytest

MODEL = StepGraphs({step: step.encode() for step in STEPS}, StateLayout({}, {}, {}, {}),
                   np.zeros((1, 4), np.float32), 1)


def test_changed_files_are_removed_and_others_stay(tmp_path):
    cache = CompiledCache(tmp_path, MODEL)
    for name in 'abc':
        (cache.folder / f'{name}.blob').write_bytes(bytes(100))
    cache.keep()
    (cache.folder / 'a.blob').write_bytes(bytes(99) + b'x')
    (cache.folder / 'd.blob').write_bytes(b'nobody vouches for it')
    again = CompiledCache(tmp_path, MODEL)
    assert again.folder == cache.folder
    assert sorted(path.name for path in again.folder.glob('*.blob')) == ['b.blob', 'c.blob']


def test_every_network_has_its_own_cache(tmp_path):
    other = StepGraphs({**MODEL.graphs, STEPS[0]: b'other'}, *list(vars(MODEL).values())[1:])
    assert CompiledCache(tmp_path, other).folder != CompiledCache(tmp_path, MODEL).folder


def test_damaged_cache_is_compiled_again(tmp_path, monkeypatch):
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


def test_in_bf16_the_first_blocks_are_exact(monkeypatch, caplog):
    pytest.importorskip('openvino')
    if 'BF16' not in import_openvino().Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        pytest.skip('OpenVINO does not compute in bf16 on this processor')
    graphs = graphs_for(read_checkpoint(default_checkpoint()))
    rows, columns = np.mgrid[:288, :384]
    waves = np.sin(rows / 9.0) * np.cos(columns / 14.0) + np.sin((rows + columns) / 40.0)
    picture = (127 + 60 * waves)[None, :, :, None].repeat(3, 3).astype(np.uint8)

    def logits(precision: str) -> np.ndarray:
        backend = openvino_backend.OpenVinoBackend(graphs, precision=precision)
        return backend.read_step(picture, backend.initial_state(1)).logits

    exact, half = logits('fp32'), logits('bf16')
    with monkeypatch.context() as patch:
        patch.setattr(openvino_backend, '_EXACT_LAYER', re.compile('no such layer'))
        without = logits('bf16')
    assert 0.0 < np.abs(half - exact).mean() < 0.5 * np.abs(without - exact).mean()
    # A robot with a read-only disk cannot write temporary files.
    monkeypatch.setattr(tempfile, 'mkdtemp', refuse)
    np.testing.assert_array_equal(logits('bf16'), without)
    assert 'no temporary file' in caplog.text


def refuse(*_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
