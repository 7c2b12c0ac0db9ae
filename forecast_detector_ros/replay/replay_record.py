# SPDX-License-Identifier: Apache-2.0
"""Keep the replay of bags as the record of a run, for the report."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.evaluation_record import class_accuracies
from ..evaluation.identities import identity_records
from ..layout import mean, plain
from ..metrics.matching import recall
from ..metrics.tables import DetectionTable, TruthTable
from ..recording.frame_record import RecordedFrame
from ..report.noted_frames import changed_frames, marked_box, Watched, worst_frames
from ..report.run_record import Accuracy, NotedFrame, RunRecord, SequenceRecord


@dataclass(frozen=True)
class ReplayedCamera:
    """The frames of one topic of one bag."""

    name: str
    path: str  #: Of the bag
    topic: str
    frames: tuple[RecordedFrame, ...]
    #: Of the images in their topic, from 0 on; images that were refused are missing.
    numbers: tuple[int, ...]
    shown: DetectionTable  #: Detections under the settings; images are numbered in their topic


@dataclass(frozen=True)
class ScoredCamera:
    """The annotated frames of one topic of one bag; images are numbered in their topic."""

    name: str
    path: str  #: Of the bag
    topic: str
    #: ``(F,)`` int64: the images that are annotated, with boxes or without, ascending.
    frames: np.ndarray
    shown: DetectionTable  #: Detections under the settings, in those frames
    collected: DetectionTable  #: Detections from a low score on, in those frames
    truth: TruthTable


def join_scored(cameras: Sequence[ScoredCamera]) -> tuple[TruthTable, DetectionTable]:
    """Put boxes, and detections from a low score on, of all cameras (at least one) together."""
    truths, collected, start = [], [], 0
    for item in cameras:
        truths.append(item.truth.shift(start))
        collected.append(item.collected.shift(start))
        start += int(item.frames.max(initial=-1)) + 1
    return TruthTable.join(truths), DetectionTable.join(collected)


def record_replay(head: dict[str, Any], cameras: Sequence[ReplayedCamera],
                  scored: Sequence[ScoredCamera], losses: Sequence[str] = ()) -> RunRecord:
    """
    Make the record of a replay.

    :param head: with the keys `labels`, `model`, `options` and `machine`, and what else is known
    :param cameras: all that were replayed, under names of their own
    :param scored: those of them that are annotated
    :param losses: what could not be read of the bags, a line each
    """
    labels = head['labels']
    truths = {item.name: item for item in scored}
    identities = identity_records({
        camera.name: (known.shown, _numbers(camera, known.shown), known.truth)
        for camera in cameras if (known := truths.get(camera.name)) is not None})
    sequences = []
    for camera in cameras:
        known = truths.get(camera.name)
        sequences.append(SequenceRecord(
            camera.name, camera.frames, True, None if known is None else len(known.truth),
            None if known is None else plain(recall(known.shown, known.truth)),
            identities.get(camera.name)))
    accuracy, rule = None, ''
    noted: tuple[NotedFrame, ...] = ()
    if scored:
        truth, collected = join_scored(scored)
        ap50, classes = class_accuracies(collected, truth, labels)
        accuracy = Accuracy(
            mean([item.recall for item in sequences if item.boxes is not None]), ap50, classes)
        kinds = {camera.name: {number: frame.kind for number, frame
                               in zip(camera.numbers, camera.frames)} for camera in cameras}
        noted, rule = worst_frames([_watched(item, kinds[item.name]) for item in scored], labels,
                                   True)
    elif len(cameras) == 1:
        noted, rule = _changed(cameras[0], labels)
    bags = list(dict.fromkeys(Path(camera.path).name for camera in cameras))
    topics = sorted({camera.topic for camera in cameras})
    options = head['options']
    return RunRecord(
        _listed([camera.name for camera in cameras], 3) or 'no bag',
        {'bags': _listed(bags, 8), 'topics': _listed(topics, 8), 'lost': _listed(losses, 5),
         **{key: options[key] for key in ('mode', 'latency', 'annotations', 'truth_topic')}},
        head['model'],
        {key: options[key] for key in (
            'policy', 'score_threshold', 'nms_threshold', 'classes', 'max_detections',
            'max_consecutive_forecasts', 'max_gap_s')},
        {**head['machine'], **{key: head[key] for key in ('device', 'backend', 'precision',
                                                          'threads', 'started', 'command',
                                                          'versions') if key in head}},
        tuple(sequences), accuracy, noted, rule, identities.get(None))


def _numbers(camera: ReplayedCamera, shown: DetectionTable) -> np.ndarray:
    """Give the numbers of detections ``(N,)`` int64, frame by frame as they were recorded."""
    ids = dict(zip(camera.numbers, (frame.ids for frame in camera.frames)))
    return np.array([int(number) for frame in np.unique(shown.frames).tolist()
                     for number in ids[frame]], np.int64)


def _listed(names: Sequence[str], most: int) -> str | None:
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '') or None


def _watched(item: ScoredCamera, kinds: dict[int, str]) -> Watched:
    return Watched(item.name, int(item.frames.max(initial=-1)) + 1, item.truth, item.shown,
                   lambda number: {'file': _place(item.path), 'position': number,
                                   'topic': item.topic, 'kind': kinds.get(number)})


def _changed(camera: ReplayedCamera, labels: Sequence[str]
             ) -> tuple[tuple[NotedFrame, ...], str]:
    """Note frames by how the boxes change, with their boxes and their place in the topic."""
    changed, rule = changed_frames(camera.name, camera.frames, _place(camera.path))
    numbers = [camera.numbers[item.number] for item in changed]
    shown = camera.shown
    return tuple(
        replace(item, number=number, position=number, topic=camera.topic, found=tuple(
            marked_box(labels[shown.labels[row]], shown.boxes[row], shown.scores[row])
            for row in np.flatnonzero(shown.frames == number)))
        for item, number in zip(changed, numbers)), rule


def _place(path: str) -> str:
    return str(Path(path).absolute())
