# SPDX-License-Identifier: Apache-2.0
"""Several policies over the same sequences; and what a training run measures between epochs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .forecast_backends import FeatureSource, SharedFeatureBackend
from .runs import COLLECT_SCORE
from .sequences import (
    as_frame,
    EvaluationError,
    join_sequences,
    picture,
    truth_of,
    Video,
)
from ..annotations.records import VideoRecord
from ..annotations.sources import load_source
from ..detector.checkpoint import Card
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, Policy, READ, ThresholdPolicy
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..metrics.average_precision import average_precision
from ..metrics.tables import DetectionTable, TruthTable
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

    :param network, card: as `load_checkpoint` gives them. The network is moved to `device` in
        place.
    :param settings: what the policies have in common
    :param policies: each in place of that of the settings
    :param device, precision: as for `Detector.load`
    :param hold: whether frames that are not read take the last read feature in the forecast's
        place
    :returns: by the policy's text: one run a sequence
    :raises DataError: if a picture cannot be decoded
    :raises DeviceError: if device or precision cannot be had
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
    """Refuse policies with a rate: features are computed once for all, so times mean nothing."""
    for policy in policies:
        if policy.rate > 0:
            raise EvaluationError(f'{policy} depends on time, which is not measured here; '
                                  '`evaluate accuracy` and `evaluate streaming` run it')


def join_runs(videos: Sequence[Video], runs: Sequence[PolicyRun]
              ) -> tuple[DetectionTable, TruthTable]:
    """Put what one policy made of all sequences into one table, and what is there into another."""
    return join_sequences(videos, [run.collected for run in runs],
                          [item.truth for item in videos])


def make_validation(recipe: Recipe, root: Path, sources: Sources) -> Validate | None:
    """
    Read the validation's sequences.

    :param recipe: its `validation` says what to measure
    :param root: folder that its paths start from
    :param sources: what is trained on
    :returns: gives mean AP50 (IoU 0.5, all points) with every frame read, as `ap50_read`. Of a
        network with encoders also with every second frame forecast, as `ap50_alternate`, and under
        the scheduler at threshold 0.5, as `ap50_scheduler`, with its `read_ratio`. In front stands
        the `score`: the mean of the first two, the first alone where there are no encoders. None
        if the recipe has no validation.
    :raises DataError: if a file is missing or broken
    :raises EvaluationError: if a sequence is trained on as well
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
    """Raise EvaluationError if a frame of the videos is trained on."""
    trained = {frame.path.resolve() for record in (*sources.videos, *sources.stills)
               for frame in record.frames}
    for item in videos:
        if any(frame.path.resolve() in trained for frame in item.frames):
            raise EvaluationError(f'sequence {item.name} is trained on; name it under exclude in '
                                  "the recipe's sources, or measure other sequences")


def shortened(videos: Sequence[VideoRecord], classes: int, config: ValidationConfig
              ) -> list[Video]:
    """Take as many consecutive frames from the middle of each video, at least one."""
    each = max(1, config.frames // max(1, len(videos)))
    result = []
    for video in videos:
        start = max(0, (len(video.frames) - each) // 2)
        piece = VideoRecord(video.name, tuple(video.frames[start:start + each]))
        result.append(Video(video.name, tuple(piece.frames), truth_of(piece, classes)))
    return result


def measure(network: ForecastDetector, classes: tuple[str, ...], videos: Sequence[Video]
            ) -> dict[str, float]:
    """Give the numbers that `make_validation` names."""
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
