# SPDX-License-Identifier: Apache-2.0
"""Runs of several policies over the same sequences; and the validation of a training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .forecast_backends import FeatureSource, SharedFeatureBackend
from .runs import COLLECT_SCORE
from .sequences import as_frame, EvaluationError, picture, truth_of, Video
from ..annotations.records import VideoRecord
from ..annotations.sources import load_source
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, Policy, READ, ThresholdPolicy
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..metrics.average_precision import average_precision
from ..metrics.tables import DetectionTable, join_sequences, TruthTable
from ..model.network import ForecastDetector
from ..training.config import Recipe, ValidationConfig
from ..training.loader import Sources
from ..training.run_log import Validate


@dataclass(frozen=True)
class PolicyRun:
    """The result of one policy on one sequence."""

    #: Detections from `COLLECT_SCORE` on, or from the settings' threshold if that is lower.
    collected: DetectionTable
    read: np.ndarray  #: ``(F,)`` bool: whether the frame was read


def run_policies(network: ForecastDetector, card: Card, videos: Sequence[Video],
                 settings: DetectorSettings, policies: Sequence[Policy], device: str = 'cpu',
                 precision: str = 'fp32', hold: bool = False) -> dict[str, list[PolicyRun]]:
    """
    Run every policy over every sequence, from a fresh state each.

    :param network, card: from `load_checkpoint`. The network is moved to `device` in place.
    :param settings: common settings of all policies
    :param policies: each replaces the policy of the settings
    :param device, precision: as for `Detector.load`
    :param hold: whether frames that are not read use the last read feature in place of the
        forecast
    :returns: by the policy's text: one run per sequence
    :raises DataError: if a picture cannot be decoded
    :raises DeviceError: if device or precision is not available
    :raises EvaluationError: if a policy depends on time
    """
    check_untimed(policies)
    source = FeatureSource(network)
    detector = Detector(SharedFeatureBackend(network, device, precision, source, hold), card)
    low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
    own = {str(policy): replace(low, policy=policy) for policy in policies}
    result: dict[str, list[PolicyRun]] = {name: [] for name in own}
    for item in videos:
        states = dict.fromkeys(own, StreamState.initial())
        found: dict[str, list[DetectionTable]] = {name: [] for name in own}
        read: dict[str, list[bool]] = {name: [] for name in own}
        for number, record in enumerate(item.frames):
            frame = as_frame(picture(record))
            for name, mine in own.items():
                step, states[name] = detector.step(frame, states[name], mine)
                found[name].append(DetectionTable.of_frame(number, step.detections))
                read[name].append(step.decision.kind == READ)
        for name in own:
            result[name].append(PolicyRun(DetectionTable.join(found[name]),
                                          np.array(read[name], bool)))
    return result


def check_untimed(policies: Sequence[Policy]) -> None:
    """Refuse policies with a rate: features are shared, so a frame has no time of its own."""
    for policy in policies:
        if policy.rate > 0:
            raise EvaluationError(f'{policy} depends on time, which is not measured here; use '
                                  '`evaluate accuracy` or `evaluate streaming`')


def join_runs(videos: Sequence[Video], runs: Sequence[PolicyRun]
              ) -> tuple[DetectionTable, TruthTable]:
    """Join one policy's detections in all sequences, and the annotated boxes."""
    return join_sequences([len(item.frames) for item in videos],
                          [run.collected for run in runs], [item.truth for item in videos])


def make_validation(recipe: Recipe, root: Path, sources: Sources) -> Validate | None:
    """
    Read the validation's sequences, and return the function that validates a network.

    :param recipe: its `validation` names the sequences
    :param root: folder that its paths start from
    :param sources: the training data
    :returns: a function, or None if the recipe has no validation. It returns `ap50_read`, the mean
        AP50 (IoU 0.5, all points) if every frame is read. For a network with encoders it also
        returns `ap50_alternate`, with every second frame forecast, and `ap50_scheduler` and
        `read_ratio` at the threshold 0.5. The first value is the `score`: the mean of `ap50_read`
        and `ap50_alternate`, or `ap50_read` without encoders.
    :raises DataError: if a file is missing or broken
    :raises EvaluationError: if a sequence is also training data
    """
    if recipe.validation is None:
        return None
    videos = shortened([video for source in recipe.validation.sources
                        for video in load_source(source, root, recipe.classes)],
                       len(recipe.classes), recipe.validation)
    check_held_out(sources, videos)

    def validate(network: ForecastDetector) -> dict[str, float]:
        return measure(network, recipe.classes, videos)

    return validate


def check_held_out(sources: Sources, videos: Sequence[Video]) -> None:
    """Raise EvaluationError if a frame of the videos is training data."""
    trained = {frame.path.resolve() for record in (*sources.videos, *sources.stills)
               for frame in record.frames}
    for item in videos:
        if any(frame.path.resolve() in trained for frame in item.frames):
            raise EvaluationError(f'sequence {item.name} is trained on; name it under exclude in '
                                  "the recipe's sources, or measure other sequences")


def shortened(videos: Sequence[VideoRecord], classes: int, config: ValidationConfig
              ) -> list[Video]:
    """Return an equal number of frames, at least one, from the middle of each video."""
    each = max(1, config.frames // max(1, len(videos)))
    result = []
    for video in videos:
        start = max(0, (len(video.frames) - each) // 2)
        piece = VideoRecord(video.name, tuple(video.frames[start:start + each]))
        result.append(Video(video.name, tuple(piece.frames), truth_of(piece, classes)))
    return result


def measure(network: ForecastDetector, classes: tuple[str, ...], videos: Sequence[Video]
            ) -> dict[str, float]:
    """Return the values of `make_validation`."""
    policies: dict[str, Policy] = {'ap50_read': AlwaysReadPolicy()}
    if network.config.has_encoders:
        policies |= {'ap50_alternate': AlternatePolicy(1), 'ap50_scheduler': ThresholdPolicy(0.5)}
    card = Card('validation', classes, network.config)
    runs = run_policies(network, card, videos, DetectorSettings(), list(policies.values()),
                        str(network.mean.device))
    values = {name: average_precision(*join_runs(videos, runs[str(policy)])).mean
              for name, policy in policies.items()}
    scored = [values[name] for name in ('ap50_read', 'ap50_alternate') if name in values]
    if 'ap50_scheduler' in values:
        read = [run.read for run in runs[str(policies['ap50_scheduler'])]]
        values['read_ratio'] = sum(map(sum, read)) / sum(map(len, read))
    return {'score': sum(scored) / len(scored), **values}
