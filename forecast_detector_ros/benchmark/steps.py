# SPDX-License-Identifier: Apache-2.0
"""
The detector's own steps, batches, whole frames and the parts of a frame as contenders.

The network's parts are timed in PyTorch, with BatchNorm folded, because the other runtimes do not
run parts separately. Receiving and publishing need a ROS graph and are measured end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from ..detector.checkpoint import Card, Checkpoint, load_checkpoint, RuntimeConfigError
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, READ
from ..detector.processing import Detections, Postprocessor, resize
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.image_messages import compressed_frame, image_frame
from ..model.config import NetworkConfig
from ..model.extractor import fold_batch_norm
from ..model.motion_forecast import MotionState
from ..model.network import ForecastDetector
from ..model.summary import summarise
from ..recording.result_messages import installed_message, MessageBuilder

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
        """Return the suffix of the names of its contenders."""
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
    """Return an object with the fields of a sensor_msgs/Image, for a BGR picture."""
    height, width = picture.shape[:2]
    return SimpleNamespace(encoding='bgr8', height=height, width=width, step=3 * width,
                           is_bigendian=0, data=picture.tobytes())


def jpeg_message(picture: np.ndarray, quality: int = 90) -> SimpleNamespace:
    """Return an object with the fields of a sensor_msgs/CompressedImage, for a BGR picture."""
    _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return SimpleNamespace(format='jpeg', data=data.tobytes())


def scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture to (height, width)."""
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def backend_of(source: Checkpoint | ForecastDetector, build: Build) -> Backend:
    """Make the back-end of a build; raises RuntimeConfigError."""
    return make_backend(source, build.backend, build.device, build.precision, build.threads)


def backend_contenders(backend: Backend, config: NetworkConfig, build: Build,
                       pictures: Sequence[np.ndarray], batches: Sequence[int] = (1,),
                       label: str = '') -> list[Contender]:
    """
    Return only the two steps of the network, for each size of batch.

    :param config: of the back-end's network
    :param build: for the names of the rows
    :param pictures: BGR, of any size; consecutive frames, which make a typical state
    :param batches: numbers of streams
    :param label: suffix of the contenders' names; empty for that of the build
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
    """Run a step as the detector does: join the states before it and split them after it."""
    if len(states) == 1:
        return step(states[0])
    return backend.split(step(backend.stack(states)).state, len(states))


def baseline_contender(checkpoint: Path, build: Build) -> Contender:
    """Return the same backbone with a plain SSDLite head; raises RuntimeConfigError."""
    network, card = load_checkpoint(checkpoint)
    plain = network.with_variant('baseline')
    backend = backend_of(plain, build)
    image = np.full((1, *card.input_size, 3), 128, np.uint8)
    return Contender(
        f'plain SSDLite {build.label}',
        partial(backend.read_step, image, backend.initial_state(1)), 'peer', build.backend,
        build.precision, build.threads, 1, summarise(plain.config).total.read_macs,
        _threads(build))


def frame_contenders(detector: Detector, build: Build, picture: np.ndarray) -> list[Contender]:
    """
    Return whole frames, from a message to detections, for all `SIZES`, raw and compressed.

    The time does not include receiving and publishing.
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


def read_ratio(detector: Detector, pictures: Iterable[np.ndarray], settings: DetectorSettings
               ) -> float:
    """Return the read ratio of a clip of at least one picture, in (0, 1]."""
    state, reads, frames = StreamState.initial(), 0, 0
    for picture in pictures:
        result, state = detector.step(image_frame(image_message(picture)), state, settings)
        reads += result.decision.kind == READ
        frames += 1
    return reads / frames


def _step(detector: Detector, make: Any, message: Any, state: StreamState,
          settings: DetectorSettings) -> Any:
    return lambda: detector.step(make(message), state, settings)


def _threads(build: Build) -> Any:
    # PyTorch has one number of threads for the whole process.
    return lambda: torch.set_num_threads(build.threads)


def network_input(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture as input of the network: ``(1, H, W, 3)`` uint8 BGR."""
    frame = image_frame(image_message(picture))
    return resize(frame.load(), size)[None]


GEMM_SIDE = 1024  #: Side of square matrices, whose product measures the processor's peak
TYPICAL_BOXES, MANY_BOXES = 10, 100


def part_contenders(checkpoint: Path, picture: np.ndarray) -> list[Contender]:
    """
    Return the parts of a frame, on one thread.

    :param picture: BGR, of any size
    """
    network, card = load_checkpoint(checkpoint)
    contenders = [_part('GEMM fp32', _gemm(), GEMM_SIDE ** 3, group='probe')]
    size = card.input_size
    for name, full_size in SIZES.items():
        full = scaled(picture, full_size)
        raw, jpeg = image_message(full), jpeg_message(full)
        contenders += [
            _part(f'decode JPEG {name} in full', partial(_decode, jpeg, None)),
            _part(f'decode JPEG {name} as needed', partial(_decode, jpeg, size)),
            _part(f'preprocess {name}', partial(_preprocess, raw, size))]
    contenders += _network_parts(network, picture)
    contenders.append(_postprocess(network, card, picture))
    contenders += _messages()
    return contenders


def _decode(message: Any, least: tuple[int, int] | None) -> object:
    frame = compressed_frame(message)
    return frame.load() if least is None else frame.load_for(least)


def _preprocess(message: Any, size: tuple[int, int]) -> np.ndarray:
    return resize(image_frame(message).load_for(size)[0], size)


def _part(name: str, run: Callable[[], object], macs: int | None = None, group: str = 'part'
          ) -> Contender:
    return Contender(name, run, group, 'torch' if macs else '', 'fp32' if macs else '',
                     macs=macs, before=lambda: torch.set_num_threads(1))


def _gemm() -> Callable[[], object]:
    a, b = (torch.rand(GEMM_SIDE, GEMM_SIDE) for _ in range(2))
    out = torch.empty(GEMM_SIDE, GEMM_SIDE)
    return lambda: torch.mm(a, b, out=out)


def _network_parts(network: ForecastDetector, picture: np.ndarray) -> list[Contender]:
    folded = fold_batch_norm(network)
    assert isinstance(folded, ForecastDetector)
    macs: dict[str, int] = {}
    for part in summarise(network.config).parts:
        name = part.name.partition(':')[0]
        name = 'encoders' if name in ('encoder1', 'encoder2', 'recurrent') else name
        macs[name] = macs.get(name, 0) + part.read_macs
    with torch.inference_mode():
        pixels = torch.from_numpy(network_input(picture, network.config.input_size))
        image = folded.normalise_bgr(pixels)
        feature = folded.extract(image)
        behind = (_map_parts if folded.motion is None else _motion_parts)(folded, feature)
    works = {'normalise': lambda: folded.normalise_bgr(pixels),
             'extractor': lambda: folded.extract(image), **behind}
    return [_part(name, torch.inference_mode()(work), macs.get(name) or None)
            for name, work in works.items()]


def _map_parts(network: ForecastDetector, feature: tuple[torch.Tensor, ...]
               ) -> dict[str, Callable[[], object]]:
    """Return the parts after the extractor of a network that forecasts features."""
    state = network.initial_state()
    for _ in range(2):
        maps, state = network.encode(feature, state)
    return {'encoders': lambda: network.encode(feature, state),
            'scheduler': lambda: network.schedule(maps),
            'head': lambda: network.head(maps.fused)}


def _motion_parts(network: ForecastDetector, feature: tuple[torch.Tensor, ...]
                  ) -> dict[str, Callable[[], object]]:
    """Return the parts after the extractor of a network that forecasts motion."""
    motion, elapsed = network.motion, torch.ones(1, 1)
    assert motion is not None
    state = network.initial_state()
    for _ in range(2):
        state = network.read_features(feature, state).state
    last = state.motion
    assert isinstance(last, MotionState)
    views = motion.cell_views(last.logits, last.offsets)
    found = motion.compare_reads(feature, views, last, elapsed)

    def decide() -> object:
        return motion.scheduler(motion.scheduler.summarise(found), elapsed)

    return {'motion encoder': lambda: motion.compare_reads(feature, views, last, elapsed),
            'scheduler': decide,
            'head': lambda: network.head(feature),
            'move boxes': lambda: motion.moved(last.offsets, last.motion, elapsed)}


def _postprocess(network: ForecastDetector, card: Card, picture: np.ndarray) -> Contender:
    with torch.inference_mode():
        image = torch.from_numpy(network_input(picture, network.config.input_size))
        head = network.eval().read_step(image, network.initial_state()).head
    logits, offsets = head.logits[0].numpy(), head.offsets[0].numpy()
    post = Postprocessor(network.anchors.numpy(), network.config.input_size, card.classes)
    return _part('post-process', lambda: post(
        logits, offsets, picture.shape[:2], card.score_threshold, card.nms_threshold, 100,
        vote_threshold=card.vote_threshold))


def _messages() -> list[Contender]:
    """Return the construction of Detection2DArray; no contender without vision_msgs."""
    try:
        builder = MessageBuilder()
        header = installed_message('std_msgs/msg/Header')()
    except ImportError:
        return []
    contenders = []
    for count in (TYPICAL_BOXES, MANY_BOXES):
        corners = np.random.default_rng(0).uniform(0, 100, (count, 4)).astype(np.float32)
        found = Detections(corners, np.zeros(count, np.int64), np.full(count, 0.5, np.float32))
        contenders.append(_part(
            f'message of {count} boxes',
            partial(builder.detections, header, found, ('thing',))))
    return contenders
