# SPDX-License-Identifier: Apache-2.0
"""
The parts of a frame as contenders: decode, preprocess, the network's modules, post-process.

The network's modules run in PyTorch, one by one and with BatchNorm folded; the other runtimes
have no parts that could be told from each other. Receiving and publishing need a graph and are
measured end to end.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .steps import image_message, jpeg_message, network_input, scaled, SIZES
from .timing import Contender
from ..detector.checkpoint import load_checkpoint
from ..detector.detections import Detections
from ..detector.postprocess import Postprocessor
from ..detector.preprocess import resize
from ..images.image_messages import compressed_frame, image_frame
from ..model.folding import fold_batch_norm
from ..model.network import ForecastDetector
from ..model.summary import summarise
from ..recording.result_messages import installed_message, MessageBuilder

GEMM_SIDE = 1024  #: Of the square matrices whose product tells what the processor can do at most
TYPICAL_BOXES, MANY_BOXES = 10, 100


def part_contenders(checkpoint: Path, picture: np.ndarray) -> list[Contender]:
    """
    Give the parts, on one thread.

    :param picture: BGR, of any size
    """
    network, card = load_checkpoint(checkpoint)
    contenders = [_part('GEMM fp32', _gemm(), GEMM_SIDE ** 3, group='probe')]
    size = card.input_size
    for name, full_size in SIZES.items():
        full = scaled(picture, full_size)
        raw, jpeg = image_message(full), jpeg_message(full)
        contenders += [
            _part(f'decode JPEG {name} in full',
                  partial(_decode, jpeg, None)),
            _part(f'decode JPEG {name} as needed',
                  partial(_decode, jpeg, size)),
            _part(f'preprocess {name}', partial(_preprocess, raw, size))]
    contenders += _network_parts(network, picture)
    contenders.append(_postprocess(network, card.classes, card.score_threshold, picture))
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
        macs[name] = macs.get(name, 0) + part.read_macs
    with torch.inference_mode():
        pixels = torch.from_numpy(network_input(picture, network.config.input_size))
        image = folded.normalise_bgr(pixels)
        feature = folded.extract(image)
        state = folded.initial_state()
        for _ in range(2):
            maps, state = folded.encode(feature, state)
    works: dict[str, tuple[Callable[[], object], int]] = {
        'normalise': (lambda: folded.normalise_bgr(pixels), 0),
        'extractor': (lambda: folded.extract(image), macs['extractor']),
        'encoders': (lambda: folded.encode(feature, state),
                     sum(macs.get(name, 0) for name in ('encoder1', 'encoder2', 'recurrent'))),
        'scheduler': (lambda: folded.schedule(maps), macs.get('scheduler', 0)),
        'head': (lambda: folded.head(maps.fused), macs['head'])}
    return [_part(name, _inference(work), count or None)
            for name, (work, count) in works.items()]


def _inference(work: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return work()
    return run


def _postprocess(network: ForecastDetector, labels: tuple[str, ...], threshold: float,
                 picture: np.ndarray) -> Contender:
    with torch.inference_mode():
        image = torch.from_numpy(network_input(picture, network.config.input_size))
        head = network.eval().read_step(image, network.initial_state()).head
    logits, offsets = head.logits[0].numpy(), head.offsets[0].numpy()
    post = Postprocessor(network.anchors.numpy(), network.config.input_size, labels)
    return _part('post-process', lambda: post(
        logits, offsets, picture.shape[:2], threshold, 0.45, 100))


def _messages() -> list[Contender]:
    """Give the building of Detection2DArray; nothing where vision_msgs is not installed."""
    try:
        builder = MessageBuilder()
        header = installed_message('std_msgs/msg/Header')()
    except ImportError:
        return []
    contenders = []
    for count in (TYPICAL_BOXES, MANY_BOXES):
        found = _boxes(count)
        contenders.append(_part(
            f'message of {count} boxes',
            partial(builder.detections, header, found, ('thing',))))
    return contenders


def _boxes(count: int) -> Detections:
    corners = np.random.default_rng(0).uniform(0, 100, (count, 4)).astype(np.float32)
    return Detections(corners, np.zeros(count, np.int64), np.full(count, 0.5, np.float32))
