# SPDX-License-Identifier: Apache-2.0
"""Keep the replay of bags as the record of a run, for the report."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .evaluation_run import class_accuracies
from .frame_record import FrameRecord
from .layout import mean, plain
from .noted_frames import changed_frames, Watched, worst_frames
from .recall import recall
from .run_record import Accuracy, NotedFrame, RunRecord, SequenceRecord
from .tables import DetectionTable, TruthTable

RUN_NAME = 'run.json'
"""The record of a run in a folder of results."""


@dataclass(frozen=True)
class ReplayedCamera:
    """The frames of one topic of one bag."""

    name: str
    path: str
    """Of the bag."""
    topic: str
    frames: tuple[FrameRecord, ...]


@dataclass(frozen=True)
class ScoredCamera:
    """The annotated frames of one topic of one bag; images are numbered in their topic."""

    name: str
    path: str
    """Of the bag."""
    topic: str
    frames: np.ndarray
    """``(F,)`` int64: the images that are annotated, with boxes or without, ascending."""
    shown: DetectionTable
    """Detections under the settings, in those frames."""
    collected: DetectionTable
    """Detections from a low score on, in those frames."""
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
                  scored: Sequence[ScoredCamera]) -> RunRecord:
    """
    Make the record of a replay.

    Parameters
    ----------
    head:
        With the keys `labels`, `model`, `options` and `machine`.
    cameras:
        All that were replayed, under names of their own.
    scored:
        Those of them that are annotated.

    """
    labels = head['labels']
    truths = {item.name: item for item in scored}
    sequences = []
    for camera in cameras:
        known = truths.get(camera.name)
        sequences.append(SequenceRecord(
            camera.name, camera.frames, True, None if known is None else len(known.truth),
            None if known is None else plain(recall(known.shown, known.truth))))
    accuracy, rule = None, ''
    noted: tuple[NotedFrame, ...] = ()
    if scored:
        truth, collected = join_scored(scored)
        ap50, classes = class_accuracies(collected, truth, labels)
        accuracy = Accuracy(
            mean([item.recall for item in sequences if item.boxes is not None]), ap50, classes)
        noted, rule = worst_frames([_watched(item) for item in scored], labels, True)
    elif len(cameras) == 1:
        camera = cameras[0]
        changed, rule = changed_frames(camera.name, camera.frames, _place(camera.path))
        noted = tuple(replace(item, topic=camera.topic) for item in changed)
    return RunRecord(
        ', '.join(camera.name for camera in cameras[:3]) + (', ...' if len(cameras) > 3 else ''),
        {'bags': len({camera.path for camera in cameras}), 'topics': len(cameras),
         **{key: head['options'][key] for key in ('mode', 'annotations', 'truth_topic')}},
        head['model'],
        {key: head['options'][key] for key in (
            'policy', 'score_threshold', 'nms_threshold', 'max_detections',
            'max_consecutive_forecasts')},
        head['machine'], tuple(sequences), accuracy, noted, rule)


def _watched(item: ScoredCamera) -> Watched:
    return Watched(item.name, int(item.frames.max(initial=-1)) + 1, item.truth, item.shown,
                   lambda number: {'file': _place(item.path), 'position': number,
                                   'topic': item.topic})


def _place(path: str) -> str:
    return str(Path(path).absolute())
