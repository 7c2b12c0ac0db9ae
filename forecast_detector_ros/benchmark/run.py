# SPDX-License-Identifier: Apache-2.0
"""One benchmark: make the contenders that can run here, and time them in turns."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
import os
from pathlib import Path
from typing import Any

import numpy as np

from .peers import cuda_peers, onnx_peers, OnnxPeer, PeerError, RUNTIMES, torchvision_peers
from .steps import (
    backend_contenders,
    backend_of,
    baseline_contender,
    Build,
    frame_contenders,
    part_contenders,
    read_ratio,
)
from .timing import Contender, time_in_turns
from ..detector.backends.registry import AUTO, choose_backend, missing_modules
from ..detector.checkpoint import read_checkpoint, RuntimeConfigError
from ..detector.detector import Detector
from ..images.video_source import open_source, SourceError

DEFAULT_BATCHES = (1, 2, 4, 8)

#: Default precisions of PyTorch on a CUDA device; the first is that of batches and targets.
CUDA_PRECISIONS = ('fp16', 'fp32', 'tf32', 'bf16')
STATE_PICTURES = 4  #: Consecutive frames after which a state is typical


@dataclass(frozen=True)
class BenchmarkOptions:
    """The measurements of a run."""

    checkpoint: Path
    clip: Path
    #: The first one is used for batches, whole frames and targets.
    builds: Sequence[Build]
    batches: Sequence[int]
    rounds: int
    peers: Sequence[str]
    onnx: Sequence[OnnxPeer]
    parts: bool = True


def default_builds(device: str = 'cpu') -> list[Build]:
    """
    Return the default builds.

    On the CPU they are the fastest installed one, on one thread and on two, and then the others.
    On a CUDA device they are those of `CUDA_PRECISIONS`.
    """
    if device != 'cpu':
        return [Build('torch', precision, device=device) for precision in CUDA_PRECISIONS]
    first = choose_backend(AUTO, 'cpu', 'fp32')
    builds = [Build(first)]
    if (os.cpu_count() or 1) > 1:
        builds.append(Build(first, threads=2))
    for name in ('openvino', 'onnxruntime', 'torch'):
        if name != first and not missing_modules(name):
            builds.append(Build(name))
    if not missing_modules('openvino'):
        builds += [Build('openvino', 'bf16'), Build('openvino', 'int8')]
    return builds


def measure_run(options: BenchmarkOptions, progress: Callable[[int, int], object] = lambda *_: None
                ) -> dict[str, Any]:
    """
    Time all contenders of the options.

    :param progress: called with the number of finished rounds, and of all rounds
    :returns: plain values: `timings`, `read_ratio` of the clip at the card's threshold,
        `default_backend` and `default_build` of the first build, and `rounds`. `skipped` has a
        line for each build that is not available.
    :raises RuntimeConfigError: if the first build is not available, or the checkpoint cannot be
        read
    :raises PeerError, SourceError: if another detector or the clip cannot be read
    """
    pictures = [picture.copy() for picture in islice(_pictures(options.clip), STATE_PICTURES)]
    if len(pictures) < STATE_PICTURES:
        raise SourceError(f'{options.clip}: has {len(pictures)} pictures, needs {STATE_PICTURES}')
    first = options.builds[0]
    detector = Detector.load(options.checkpoint, first.device, first.precision, first.threads,
                             backend=first.backend)
    ratio = read_ratio(detector, _pictures(options.clip), detector.card.settings())
    contenders, skipped = _steps(options, pictures)
    single = {build.backend: build for build in options.builds if build.threads == 1
              and build.precision == 'fp32' and build.device == 'cpu'}
    for build in single.values():
        contenders.append(baseline_contender(options.checkpoint, build))
    contenders += torchvision_peers(tuple(single), 1, options.peers)
    for build in options.builds:
        if build.device != 'cpu' and build.backend == 'torch':
            batches = options.batches if build == first else (1,)
            contenders.append(baseline_contender(options.checkpoint, build))
            contenders += cuda_peers(build.device, build.precision, sorted({1, *batches}),
                                     names=options.peers)
    if options.onnx and not any(name in RUNTIMES for name in single):
        raise PeerError(f'--peer-onnx needs a build of one of {", ".join(RUNTIMES)}')
    contenders += onnx_peers(options.onnx, tuple(single), 1)
    if options.parts:
        contenders += frame_contenders(detector, first, pictures[0])
        contenders += part_contenders(options.checkpoint, pictures[0])
    timings = time_in_turns(contenders, options.rounds,
                            progress=lambda done: progress(done, options.rounds))
    return {'default_backend': first.backend, 'default_build': first.label, 'read_ratio': ratio,
            'rounds': options.rounds, 'skipped': skipped,
            'timings': [asdict(timing) for timing in timings]}


def _steps(options: BenchmarkOptions, pictures: Sequence[np.ndarray]
           ) -> tuple[list[Contender], list[str]]:
    contenders: list[Contender] = []
    skipped: list[str] = []
    for build in options.builds:
        leading = build == options.builds[0]
        batches = sorted({1, *options.batches}) if leading else (1,)
        try:
            source = read_checkpoint(options.checkpoint)
            contenders += backend_contenders(backend_of(source, build), source.card.network,
                                             build, pictures, batches)
        except RuntimeConfigError as error:
            if leading:
                raise
            skipped.append(f'{build.label}: {error}')
    return contenders, skipped


def _pictures(clip: Path) -> Iterator[np.ndarray]:
    """Yield the pictures of a clip, BGR, which need not all fit into memory."""
    source = open_source(str(clip), 30.0)
    try:
        while (picture := source.read()) is not None:
            yield picture
    finally:
        source.close()
