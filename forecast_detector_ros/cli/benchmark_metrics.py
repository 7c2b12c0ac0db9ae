# SPDX-License-Identifier: Apache-2.0
"""Measure the time of the metrics on random boxes, by default as many as ImageNet VID has."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import resource
from time import perf_counter, process_time

import numpy as np

from .options import add_seed, positive
from .shell import print_result, run_verb, verb_parser
from ..metrics.average_precision import DEVKIT, motion_iou, PLAIN, vid_average_precision
from ..metrics.tables import DetectionTable, one_hot, TruthTable

VERB = 'benchmark-metrics'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; return its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _measure)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    default = Workload()
    parser = verb_parser(VERB, '', __doc__)
    parser.add_argument('--frames', type=positive, default=default.frames, metavar='N',
                        help='frames of video (default %(default)s)')
    parser.add_argument('--boxes', type=positive, default=default.boxes, metavar='N',
                        help='annotated boxes in all frames (default %(default)s)')
    parser.add_argument('--detections-per-frame', type=positive, metavar='N',
                        default=default.detections_per_frame,
                        help='detections in each frame (default %(default)s)')
    add_seed(parser, 'the boxes')
    return parser


def _measure(options: argparse.Namespace) -> None:
    workload = Workload(frames=options.frames, boxes=options.boxes, seed=options.seed,
                        detections_per_frame=options.detections_per_frame)
    figures = measure_metrics(workload)
    print_result(
        options, {'frames': options.frames, 'boxes': options.boxes,
                  'detections_per_frame': options.detections_per_frame, 'figures': figures},
        '\n'.join([f'{options.frames} frames, {options.boxes} boxes, '
                   f'{options.frames * options.detections_per_frame} detections',
                   *(f'{name:24s} {value:8.2f}' for name, value in figures.items())]))


#: Size of ImageNet VID's validation set (the 2015 release).
VID_FRAMES, VID_BOXES, VID_CLASSES, VID_VIDEOS = 176_126, 273_505, 30, 555
SIZE = (1280, 720)  #: Width and height of the assumed pictures: the most frequent size of VID


@dataclass(frozen=True)
class Workload:
    """The amount of random data."""

    frames: int = VID_FRAMES
    boxes: int = VID_BOXES
    classes: int = VID_CLASSES
    videos: int = VID_VIDEOS
    detections_per_frame: int = 20
    seed: int = 0


def make_tables(load: Workload) -> tuple[DetectionTable, TruthTable]:
    """
    Make random objects that move evenly, and detections; half of these are near an object.

    Track numbers are unique over all videos, so the table also serves as that of one video.
    """
    rng = np.random.default_rng(load.seed)
    frames = np.sort(rng.integers(0, load.frames, load.boxes))
    video = frames * load.videos // load.frames
    place = np.arange(load.boxes) - np.searchsorted(frames, frames)
    _, tracks = np.unique(video * load.boxes + place, return_inverse=True)
    count = int(tracks.max()) + 1
    labels = rng.integers(0, load.classes, count)[tracks]
    start, side = rng.uniform(0, SIZE, (count, 2)), rng.uniform(20, 400, (count, 2))
    speed = rng.normal(0, 1, (count, 2)) * rng.choice([0.1, 2, 10], (count, 1))
    corner = start[tracks] + speed[tracks] * (frames % 300)[:, None]
    boxes = np.concatenate([corner, corner + side[tracks]], axis=1).astype(np.float32)
    truth = TruthTable(frames, boxes, one_hot(labels, load.classes), np.zeros(0, np.int64),
                       np.zeros((0, 4), np.float32), tracks)

    found = np.repeat(np.arange(load.frames), load.detections_per_frame)
    first = np.searchsorted(frames, found)
    there = np.searchsorted(frames, found, 'right') - first
    near = (rng.random(len(found)) < 0.5) & (there > 0)
    row = (first + rng.integers(0, np.maximum(there, 1)))[near]
    corner, side = rng.uniform(0, SIZE, (len(found), 2)), rng.uniform(20, 400, (len(found), 2))
    guess = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    extent = boxes[row, 2:] - boxes[row, :2]
    guess[near] = boxes[row] + rng.normal(0, 0.1, (len(row), 4)) * np.tile(extent, 2)
    kinds = rng.integers(0, load.classes, len(found))
    kinds[near] = np.where(rng.random(len(row)) < 0.8, labels[row], kinds[near])
    return DetectionTable(found, guess, kinds, rng.random(len(found)).astype(np.float32)), truth


def measure_metrics(load: Workload) -> dict[str, float]:
    """
    Time the metrics on random tables.

    :returns: seconds of processor and wall clock for each part, and `max_rss_gb`, the most memory
        that the process has held so far, in 10^9 bytes
    """
    detections, truth = make_tables(load)
    result, motion = {}, np.zeros(0)
    for name in ('motion IoU', 'plain', 'devkit'):
        start, busy = perf_counter(), process_time()
        if name == 'motion IoU':
            motion = motion_iou(truth)
        else:
            vid_average_precision(detections, truth, {'plain': PLAIN, 'devkit': DEVKIT}[name],
                                  motion)
        result[f'{name} wall s'] = perf_counter() - start
        result[f'{name} processor s'] = process_time() - busy
    # Linux counts kibibytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**result, 'max_rss_gb': most / 1e9}
