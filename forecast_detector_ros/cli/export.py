# SPDX-License-Identifier: Apache-2.0
"""
Write both steps of a checkpoint as ONNX, and check that they give the same boxes.

The files run without PyTorch: the graphs, the anchors, and a record that describes the state and
the weights.
"""
import argparse
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from .inputs import add_outside
from .options import add_checkpoint, number_in
from .results import versions
from .shell import print_result, run_verb, verb_parser, VerbFailedError
from ..annotations.records import decode_picture, PictureFolder
from ..annotations.synthetic import CLASSES, write_synthetic_videos
from ..annotations.video_json import load_video_json
from ..detector.backends.exported import (
    ExportError,
    FLOAT,
    folded_weights,
    INT8,
    WEIGHTLESS,
    with_weights,
    without_weights,
    write_graphs,
)
from ..detector.backends.graph_backend import OPSET, StepGraphs
from ..detector.backends.onnxruntime_backend import OnnxRuntimeBackend
from ..detector.backends.parity import compare_backends, MAX_DIFFERENCE, Parity
from ..detector.backends.step_graph import make_graphs, quantise
from ..detector.backends.torch_backend import TorchBackend
from ..detector.checkpoint import Card, card_path, Checkpoint, default_checkpoint, read_checkpoint
from ..detector.processing import resize
from ..files import write_atomically
from ..images.frame import Pixels
from ..images.video_source import open_source, SourceError

Clips = list[list[np.ndarray]]

_ENOUGH = 3  #: Fewest frames of a clip: a read and two forecasts

#: Frames per video if there are too many videos to use them all: the length of the pattern of
#: reads and forecasts in `compare_backends`.
_CLIP = 5


def load_clips(path: Path, images: Path | None, count: int, card: Card,
               outside: bool = False) -> Clips:
    """
    Read consecutive frames of a video, a folder of images, or the videos of a COCO-video file.

    :param path: a ``.json`` file, or a source of `open_source`
    :param images: folder that file names in a ``.json`` file are relative to; None: the file's own
    :param count: most frames. Of a ``.json`` file, each video gives its first frames. If that
        would be fewer than three frames each, only some videos are used.
    :param card: gives classes and input size
    :param outside: whether file names may lead out of `images`
    :returns: clips of ``(H, W, 3)`` uint8 BGR pictures
    :raises DataError, SourceError: one line
    """
    if path.suffix == '.json':
        return _annotated(path, PictureFolder(images or path.parent, outside), card.classes,
                          count, card)
    source = open_source(str(path))
    if source.live:
        source.close()
        raise SourceError(f'{path}: is a device; export needs frames that can be read again')
    try:
        clip: list[np.ndarray] = []
        while len(clip) < count and (picture := source.read()) is not None:
            clip.append(_prepare(picture, 'bgr', card))
        return [clip]
    finally:
        source.close()


def synthetic_clips(card: Card, count: int) -> Clips:
    """Make clips of moving shapes, the same at every call, if there are no real ones."""
    with TemporaryDirectory() as folder:
        # If `count` is small, all frames are from the first video.
        path = write_synthetic_videos(folder, videos=2, frames=max(-(-count // 2), _CLIP),
                                      size=(240, 320), objects=4, extension='png')
        return _annotated(path, path.parent, CLASSES, count, card)


def _annotated(path: Path, root: Path | PictureFolder, classes: tuple[str, ...], count: int,
               card: Card) -> Clips:
    videos = load_video_json(path, root, classes)
    share = count // len(videos)
    if share < _ENOUGH:
        share = min(count, _CLIP)
    # If there are too many videos, take some, evenly spread from the first to the last.
    apart = -(-len(videos) // max(1, count // share))
    return [[_prepare(decode_picture(frame), 'rgb', card) for frame in video.frames[:share]]
            for video in videos[::apart]]


def _prepare(picture: np.ndarray, order: str, card: Card) -> np.ndarray:
    # A source may reuse its memory.
    return resize(Pixels(picture, order), card.input_size).copy()


VERB = 'export'

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 if the graphs are not good enough to be written."""
    # The quantiser logs a recommendation that is followed already.
    logging.getLogger().addFilter(lambda record: record.name != 'root')
    return run_verb(VERB, make_parser().parse_args(args), _export)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, '', __doc__)
    add_checkpoint(parser)
    parser.add_argument('--output', type=Path, metavar='FOLDER',
                        help='folder of the graphs, the checkpoint and its card (default: the '
                        "checkpoint's folder)")
    parser.add_argument('--package', action='store_true',
                        help='write the graphs without weights, for all weights of this shape')
    parser.add_argument('--clip', type=Path, metavar='PATH',
                        help='check with this video, folder of images or COCO-video JSON')
    parser.add_argument('--frames', type=number_in(int, 2, 100000), default=20, metavar='N',
                        help='frames to check with (default 20)')
    parser.add_argument('--int8', action='store_true',
                        help='quantise to int8; needs --calibrate')
    parser.add_argument('--calibrate', type=Path, metavar='PATH',
                        help='calibrate with this, as --clip: images of the camera at work')
    parser.add_argument('--calibration-frames', type=number_in(int, 2, 100000), default=100,
                        metavar='N', help='frames to calibrate with (default 100)')
    parser.add_argument('--images', type=Path, metavar='FOLDER',
                        help="folder of the pictures (default: the JSON's)")
    add_outside(parser)
    parser.add_argument('--min-likeness', type=number_in(float, -100, 100), default=0.8,
                        metavar='L', help='with --int8: least part of boxes that stay the same '
                        '(default 0.8)')
    return parser


def _export(options: argparse.Namespace) -> None:
    if options.int8 != (options.calibrate is not None):
        raise ExportError('--int8 and --calibrate go together: video that the ranges of '
                          'activations are taken from')
    if options.package and options.int8:
        raise ExportError('--package and --int8 exclude each other: ranges of activations belong '
                          'to weights')
    if find_spec('onnxruntime') is None:
        raise ExportError('checking the graphs needs onnxruntime, which is not installed: '
                          'pip install onnxruntime')
    torch.set_num_threads(1)
    checkpoint = read_checkpoint(options.checkpoint or default_checkpoint())
    path, card, network = checkpoint.path, checkpoint.card, checkpoint.network()
    source = options.clip or options.calibrate
    clips = (load_clips(source, options.images, options.frames, card, options.outside) if source
             else synthetic_clips(card, options.frames))
    _check_length(clips, source)
    reference = TorchBackend(network)
    model = make_graphs(network)
    kind = FLOAT
    if options.package:
        kind, model = WEIGHTLESS, _refilled(model, checkpoint)
    parity = compare_backends(reference, OnnxRuntimeBackend(model), clips, card)
    _log.info('fp32 against PyTorch: %s', parity.values())
    if not parity.same:
        raise VerbFailedError(
            f'{path}: the graphs do not match PyTorch, nothing is written: '
            f'{_shortcomings(parity)}')
    about = {'opset': OPSET, 'checked_with': str(source or 'synthetic clip')}
    if options.int8:
        kind = INT8
        calibration = load_clips(options.calibrate, options.images, options.calibration_frames,
                                 card, options.outside)
        _check_length(calibration, options.calibrate)
        model = quantise(model, calibration)
        parity = compare_backends(reference, OnnxRuntimeBackend(model, precision=INT8), clips,
                                  card)
        _log.info('int8 against PyTorch: %s, likeness %.3f', parity.values(), parity.likeness)
        if not parity.boxes_firm:
            raise ExportError(f'{source}: nothing is detected in it, so int8 cannot be checked; '
                              'name a --clip with objects')
        # Written so that NaN fails.
        if not parity.likeness >= options.min_likeness:
            raise VerbFailedError(
                f'{path}: of {parity.boxes_firm} boxes in float, int8 loses or '
                f'makes up {parity.boxes_unlike} (likeness '
                f'{parity.likeness:.2f}, must be {options.min_likeness:g}), '
                'nothing is written; calibrate with more, or more fitting, video')
        about['calibrated_with'] = str(options.calibrate)
        about['calibration_frames'] = sum(map(len, calibration))
    target = _place(checkpoint, options.output)
    record = write_graphs(target, checkpoint, model, kind, {
        **about, 'parity': parity.values(), 'versions': versions()})
    print_result(
        options, {'record': str(record), 'precision': kind, **about, 'parity': parity.values()},
        f'{record}: {kind}, {parity.steps} frames checked, {parity.boxes} boxes, largest '
        f'difference of logits {parity.logits:.2g}')


def _check_length(clips: Clips, path: Path | None) -> None:
    if max(map(len, clips), default=0) < 2:
        raise SourceError(f'{path or "synthetic clip"}: gives no 2 frames in a row, one to be '
                          'read and one to be forecast; more --frames may do')


def _shortcomings(parity: Parity) -> str:
    largest = max(parity.logits, parity.offsets, parity.confidence)
    return (f'largest difference {largest:.3g} (at most {MAX_DIFFERENCE:g}), {parity.boxes_off} '
            f'boxes without their like beside {parity.boxes}')


def _refilled(model: StepGraphs, checkpoint: Checkpoint) -> StepGraphs:
    """Return the graphs with the weights put in, by the code that runs without PyTorch."""
    weights = folded_weights(checkpoint.arrays())
    graphs = {}
    for step, graph in model.graphs.items():
        bare, shapes = without_weights(graph)
        graphs[step] = with_weights(bare, weights, shapes)
    return replace(model, graphs=graphs)


def _place(checkpoint: Checkpoint, output: Path | None) -> Path:
    """Return the checkpoint in the graphs' folder; it is copied there if necessary."""
    path = checkpoint.path
    if output is None or output.resolve() == path.parent.resolve():
        return path
    output.mkdir(parents=True, exist_ok=True)
    target = output / path.name
    if target.exists() and target.read_bytes() != checkpoint.data:
        raise ExportError(f'{target}: is another checkpoint already; name another --output')
    write_atomically(target, checkpoint.data)
    write_atomically(card_path(target), card_path(path).read_bytes())
    return target
