# SPDX-License-Identifier: Apache-2.0
"""Store an evaluation as the record of a run."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .accuracy import identity_records, number_detections
from .runs import VideoRun
from .sequences import Video
from ..detector.checkpoint import Card
from ..detector.policy import FORECAST, READ
from ..detector.settings import DetectorSettings
from ..layout import mean, plain
from ..metrics.average_precision import average_precision, judge, PLAIN, precision_steps, RECALLS
from ..metrics.tables import DetectionTable, join_sequences, recall, TruthTable
from ..recording.recorded_frame import RecordedFrame
from ..report.noted_frames import Watched, worst_frames
from ..report.run_record import Accuracy, ClassAccuracy, RunRecord, SequenceRecord


def record_evaluation(title: str, videos: Sequence[Video], runs: Sequence[VideoRun],
                      card: Card, settings: DetectorSettings, source: dict[str, Any],
                      machine: dict[str, Any]) -> RunRecord:
    """
    Make the record of an evaluation.

    :param videos, runs: sequences and their runs, in the same order; at least one
    :param source, machine: plain values that describe the videos, and the machine of the run
    """
    numbers = [number_detections(run.shown, run.read) for run in runs]
    identities = identity_records({
        item.name: (run.shown, ids, item.labelled)
        for item, run, ids in zip(videos, runs, numbers) if item.labelled is not None})
    sequences = tuple(
        SequenceRecord(item.name, _frames(run, ids, settings, card.classes), False,
                       len(item.truth), plain(recall(run.shown, item.truth)),
                       identities.get(item.name))
        for item, run, ids in zip(videos, runs, numbers))
    # If not every object is annotated, a detection that hits no box may be right.
    complete = all(item.labelled is not None for item in videos)
    noted, rule = worst_frames(
        [_watched(item, run, complete) for item, run in zip(videos, runs)], card.classes,
        complete)
    ap50, classes = _classes(videos, runs, card.classes)
    return RunRecord(title, source, model_values(card), settings_values(settings), machine,
                     sequences, Accuracy(mean([item.recall for item in sequences]), ap50, classes),
                     noted, rule, identities.get(None))


def model_values(card: Card) -> dict[str, Any]:
    """Return a report's description of a checkpoint, as plain values."""
    height, width = card.input_size
    return {'name': card.name, 'description': card.description, 'licence': card.licence,
            'variant': card.network.variant, 'input': f'{height}x{width}',
            'backbone': f'MobileNetV2 {card.network.width:g}',
            'levels': ', '.join(f'stride {stride}' for stride in card.network.levels),
            'classes': ', '.join(card.classes), 'weights_sha256': card.weights_sha256}


def settings_values(settings: DetectorSettings) -> dict[str, Any]:
    """Return the settings of a detector as plain values."""
    return {'policy': str(settings.policy), 'score_threshold': settings.score_threshold,
            'nms_threshold': settings.nms_threshold,
            'vote_threshold': settings.vote_threshold, 'score_memory': settings.score_memory,
            'max_detections': settings.max_detections,
            'max_consecutive_forecasts': settings.max_consecutive_forecasts}


def _watched(item: Video, run: VideoRun, complete: bool) -> Watched:
    truth = item.labelled if complete and item.labelled is not None else item.truth
    return Watched(item.name, len(item.frames), truth, run.shown,
                   lambda number: {'file': str(item.frames[number].path.absolute()),
                                   'kind': READ if run.read[number] else FORECAST})


def _frames(run: VideoRun, ids: np.ndarray, settings: DetectorSettings, labels: Sequence[str]
            ) -> tuple[RecordedFrame, ...]:
    threshold = plain(settings.policy.threshold)
    bounds = np.searchsorted(run.shown.frames, np.arange(len(run.read) + 1))
    records, consecutive = [], 0
    for number, read in enumerate(run.read):
        consecutive = 0 if read else consecutive + 1
        rows = slice(bounds[number], bounds[number + 1])
        confidence = plain(run.confidence[number])
        preprocess, inference = (round(float(values[number]), 3) for values in (
            run.preprocess_ms, run.inference_ms))
        records.append(RecordedFrame(
            number, READ if read else FORECAST, run.reasons[number] if run.reasons else None,
            confidence, threshold, consecutive, round(preprocess + inference, 3), preprocess,
            inference, None, tuple(labels[label] for label in run.shown.labels[rows]),
            tuple(round(float(score), 4) for score in run.shown.scores[rows]),
            ids=tuple(map(str, ids[rows].tolist()))))
    return tuple(records)


def _classes(videos: Sequence[Video], runs: Sequence[VideoRun], labels: Sequence[str]
             ) -> tuple[float | None, tuple[ClassAccuracy, ...]]:
    truths = [item.labelled for item in videos if item.labelled is not None]
    collected = [run.collected for run in runs if run.collected is not None]
    if min(len(truths), len(collected)) < len(videos):
        return None, ()
    return class_accuracies(*join_sequences(
        [len(item.frames) for item in videos], collected, truths), labels)


def class_accuracies(found: DetectionTable, truth: TruthTable, labels: Sequence[str]
                     ) -> tuple[float | None, tuple[ClassAccuracy, ...]]:
    """
    Score every class that has boxes or detections, with its precision-recall curve.

    :param found: detections from a low score on
    :param truth: each box of exactly one class
    :param labels: names of the classes
    :returns: mean AP50 (None without boxes), and the classes
    """
    ap = average_precision(found, truth)
    matched, excused = judge(found, truth, PLAIN)
    counts = (matched >= 0) | ~excused
    result = []
    for number, label in enumerate(labels):
        boxes = int(ap.boxes[number])
        if not boxes and not ap.detections[number]:
            continue
        rows = counts & (found.labels == number)
        curve = _precision_at(found.scores[rows], matched[rows] >= 0, boxes) if boxes else ()
        result.append(ClassAccuracy(label, boxes, int(ap.detections[number]),
                                    plain(ap.per_class[number]), curve))
    return plain(ap.mean), tuple(result)


def _precision_at(scores: np.ndarray, right: np.ndarray, boxes: int) -> tuple[float, ...]:
    """Return the best precision at each of the `RECALLS` or higher; 0 beyond the last."""
    hits, precision = precision_steps(scores, right)
    # The first step that reaches the recall; 1e-9 allows for rounding of the quotient.
    place = np.searchsorted(hits / boxes, RECALLS - 1e-9)
    padded = np.append(precision, 0.0)
    return tuple(round(float(value), 4) for value in padded[place])
