# SPDX-License-Identifier: Apache-2.0
"""The detector's own steps, batches and whole frames as contenders."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from .timing import Contender
from ..detector.backends import Backend, RawOutput
from ..detector.backends.registry import make_backend
from ..detector.checkpoint import load_checkpoint, read_checkpoint, RuntimeConfigError
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy
from ..detector.preprocess import resize
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.image_messages import compressed_frame, image_frame
from ..model.config import NetworkConfig
from ..model.network import ForecastDetector
from ..model.summary import summarise

READ_ALL = DetectorSettings(AlwaysReadPolicy())
FORECAST_ALL = DetectorSettings(AlternatePolicy(1000), max_consecutive_forecasts=1000)

#: (height, width) of cameras' pictures, by their usual names.
SIZES = {'480p': (480, 640), '720p': (720, 1280), '1080p': (1080, 1920)}


@dataclass(frozen=True)
class Build:
    """One way to run the network."""

    backend: str
    precision: str = 'fp32'
    threads: int = 1
    device: str = 'cpu'

    @property
    def label(self) -> str:
        """Give the end of the names of its contenders."""
        more = '' if self.threads == 1 else f' {self.threads} threads'
        where = '' if self.device == 'cpu' else f' {self.device}'
        return f'{self.backend} {self.precision}{where}{more}'

    @staticmethod
    def parse(text: str) -> Build:
        """
        Read ``BACKEND[:PRECISION[:THREADS]]``, for example ``openvino:bf16:2``, for the CPU.

        :raises RuntimeConfigError: if there are more parts, or the last is no number of threads
        """
        backend, *rest = text.split(':')
        precision = rest[0] if rest else 'fp32'
        threads = rest[1] if len(rest) > 1 else '1'
        if len(rest) > 2 or not backend or not precision or not threads.isdecimal() or (
                not 1 <= int(threads) <= 256):
            raise RuntimeConfigError(f'build is {text!r}, must be BACKEND[:PRECISION[:THREADS]], '
                                     'for example openvino:bf16:2')
        return Build(backend, precision, int(threads))


def image_message(picture: np.ndarray) -> SimpleNamespace:
    """Give what has the fields of a sensor_msgs/Image, for a BGR picture."""
    height, width = picture.shape[:2]
    return SimpleNamespace(encoding='bgr8', height=height, width=width, step=3 * width,
                           is_bigendian=0, data=picture.tobytes())


def jpeg_message(picture: np.ndarray, quality: int = 90) -> SimpleNamespace:
    """Give what has the fields of a sensor_msgs/CompressedImage, for a BGR picture."""
    _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return SimpleNamespace(format='jpeg', data=data.tobytes())


def scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a picture to (height, width)."""
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def load(checkpoint: Path, build: Build) -> Detector:
    """Load a detector; raises RuntimeConfigError."""
    return Detector.load(checkpoint, build.device, build.precision, build.threads,
                         backend=build.backend)


def step_contenders(checkpoint: Path, build: Build, pictures: Sequence[np.ndarray],
                    batches: Sequence[int] = (1,)) -> list[Contender]:
    """
    Give the two steps of the network, without anything around them, for each size of batch.

    :param pictures: BGR, of any size; consecutive frames make a state as in use
    :param batches: numbers of streams
    :raises RuntimeConfigError: if the build cannot be had here
    """
    source = read_checkpoint(checkpoint)
    backend = make_backend(source, build.backend, build.device, build.precision, build.threads)
    return backend_contenders(backend, source.card.network, build, pictures, batches)


def network_contenders(network: ForecastDetector, build: Build, pictures: Sequence[np.ndarray],
                       batches: Sequence[int] = (1,), label: str = '') -> list[Contender]:
    """
    Give the two steps of a network, as `step_contenders` does.

    :param network: with encoders
    :param build, pictures, batches: see `step_contenders`
    :param label: end of the contenders' names; empty for the build's
    :raises RuntimeConfigError: if the build cannot be had here
    """
    backend = make_backend(network, build.backend, build.device, build.precision, build.threads)
    return backend_contenders(backend, network.config, build, pictures, batches, label)


def backend_contenders(backend: Backend, config: NetworkConfig, build: Build,
                       pictures: Sequence[np.ndarray], batches: Sequence[int] = (1,),
                       label: str = '') -> list[Contender]:
    """
    Give the two steps of a back-end, as `network_contenders` does.

    :param build, pictures, batches, label: see `network_contenders`; `build` says what the rows
        are called
    """
    label = label or build.label
    size = config.input_size
    images = [scaled(picture, size)[None] for picture in pictures]
    raw = backend.read_step(images[0], backend.initial_state(1))
    for image in images[1:]:
        raw = backend.read_step(image, raw.state)
    summary = summarise(config)
    contenders = []
    for batch in batches:
        name = label if batch == 1 else f'{label} x{batch}'
        common = {
            'group': 'step' if batch == 1 else 'batch', 'backend': build.backend,
            'precision': build.precision, 'threads': build.threads, 'batch': batch,
            'before': _threads(build)}
        image, states = np.repeat(images[-1], batch, 0), [raw.state] * batch
        contenders += [
            Contender(f'read step {name}',
                      partial(_batched, backend, partial(backend.read_step, image), states),
                      macs=summary.total.read_macs * batch, **common),
            Contender(f'forecast step {name}',
                      partial(_batched, backend, backend.forecast_step, states),
                      macs=summary.total.forecast_macs * batch, **common)]
    return contenders


def _batched(backend: Backend, step: Callable[[Any], RawOutput], states: list[Any]) -> object:
    """Run a step as the detector does: states that are joined for it and parted behind it."""
    if len(states) == 1:
        return step(states[0])
    return backend.split(step(backend.stack(states)).state, len(states))


def baseline_contender(checkpoint: Path, build: Build) -> Contender:
    """Give the same backbone with a plain SSDLite head; raises RuntimeConfigError."""
    network, card = load_checkpoint(checkpoint)
    plain = network.with_variant('baseline')
    backend = make_backend(plain, build.backend, build.device, build.precision, build.threads)
    image = np.full((1, *card.input_size, 3), 128, np.uint8)
    return Contender(
        f'plain SSDLite {build.label}',
        partial(backend.read_step, image, backend.initial_state(1)), 'peer', build.backend,
        build.precision, build.threads, 1, summarise(plain.config).total.read_macs,
        _threads(build))


def frame_contenders(detector: Detector, build: Build, picture: np.ndarray) -> list[Contender]:
    """
    Give whole frames: from a message to detections, at the cameras' sizes, raw and compressed.

    Receiving and publishing are not in them.
    """
    contenders = []
    for size_name, size in SIZES.items():
        full = scaled(picture, size)
        for kind, make, message in (('raw', image_frame, image_message(full)),
                                    ('jpeg', compressed_frame, jpeg_message(full))):
            _, state = detector.step(make(message), StreamState.initial(), READ_ALL)
            for step, settings in (('read', READ_ALL), ('forecast', FORECAST_ALL)):
                contenders.append(Contender(
                    f'{step} frame {size_name} {kind} {build.label}',
                    _step(detector, make, message, state, settings), 'frame', build.backend,
                    build.precision, build.threads, before=_threads(build)))
    return contenders


def read_ratio(detector: Detector, pictures: Sequence[np.ndarray], settings: DetectorSettings
               ) -> float:
    """Tell which share of a clip's frames is read, in (0, 1]."""
    state, reads = StreamState.initial(), 0
    for picture in pictures:
        result, state = detector.step(image_frame(image_message(picture)), state, settings)
        reads += result.decision.kind == 'read'
    return reads / len(pictures)


def _step(detector: Detector, make: Any, message: Any, state: StreamState,
          settings: DetectorSettings) -> Any:
    return lambda: detector.step(make(message), state, settings)


def _threads(build: Build) -> Any:
    # PyTorch has one number of threads for the whole process.
    return lambda: torch.set_num_threads(build.threads)


def network_input(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Give a picture as the network takes it: ``(1, H, W, 3)`` uint8 BGR."""
    frame = image_frame(image_message(picture))
    return resize(frame.load(), size)[None]
