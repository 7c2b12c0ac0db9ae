# SPDX-License-Identifier: Apache-2.0
"""One benchmark: its builds, and the clip that it reads."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import weakref

from forecast_detector_ros.benchmark import run
from forecast_detector_ros.benchmark.run import (
    BenchmarkOptions,
    default_builds,
    measure_run,
    STATE_PICTURES,
)
from forecast_detector_ros.benchmark.steps import Build
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.images.frame import SourceError
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest


def test_builds_of_a_device() -> None:
    builds = default_builds('cuda:1')
    assert {build.device for build in builds} == {'cuda:1'}
    assert builds[0].label == 'torch fp16 cuda:1'
    assert {build.device for build in default_builds()} == {'cpu'}


class Clip:
    """A clip that counts how many of its pictures are kept at the same time."""

    def __init__(self, length: int) -> None:
        self.length, self.most, self.closed = length, 0, False
        self._seen: list[weakref.ref[np.ndarray]] = []

    def read(self) -> np.ndarray | None:
        """Return the next picture, or None at the end."""
        if len(self._seen) == self.length:
            return None
        picture = np.full((48, 80, 3), len(self._seen), np.uint8)
        self._seen.append(weakref.ref(picture))
        self.most = max(self.most, sum(seen() is not None for seen in self._seen))
        return picture

    def close(self) -> None:
        """Set `closed`."""
        self.closed = True


def test_a_clip_need_not_fit_into_memory(
        make_network: Callable[..., ForecastDetector], card: Card, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'small.safetensors'
    save_checkpoint(path, make_network(), card)
    options = BenchmarkOptions(path, Path('clip.mp4'), [Build('torch')], (), 1, (), (), False)
    clips = []

    def open_clip(name: str, rate: float) -> Clip:
        clips.append(Clip(length))
        return clips[-1]

    monkeypatch.setattr(run, 'open_source', open_clip)
    length = 3 * STATE_PICTURES
    assert 0 < measure_run(options)['read_ratio'] <= 1
    assert clips and all(clip.closed and clip.most < STATE_PICTURES for clip in clips)
    length = STATE_PICTURES - 1
    with pytest.raises(SourceError, match='clip.mp4: has 3 pictures, needs 4'):
        measure_run(options)
