# SPDX-License-Identifier: Apache-2.0
"""A stream of pictures with its own state."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from .detector import Detector, step_stamped_many, StepResult
from .policy import parse_policy, Policy, ThresholdPolicy
from .settings import SettingsError
from .stream import MAX_GAP_S, StreamState
from ..images.frame import Frame, FrameError, Pixels


class Stream:
    """
    One camera or video with its state; call it with each picture in turn.

    :param detector: shared by any number of streams
    :param threshold: the scheduler's, in [0, 1]: a frame is forecast if the confidence is above it
    :param policy: in place of `threshold`: ``threshold(p)``, ``alternate(k)``, ``budget(fps)``,
        ``always_read``, or a policy object
    :param classes: names of the wanted classes; empty for all
    :param max_gap_s: longest time between two stamps, seconds, at least 0. A longer gap or a step
        back resets the stream.
    :param changes: further fields of `DetectorSettings`; the defaults are those of the card
    :raises PolicyError, SettingsError: if a value is out of range or a class is unknown
    """

    def __init__(self, detector: Detector, *, threshold: float | None = None,
                 policy: Policy | str | None = None, classes: Sequence[str] = (),
                 max_gap_s: float = MAX_GAP_S, **changes: Any) -> None:
        if threshold is not None and policy is not None:
            raise SettingsError('threshold and policy exclude each other')
        if not (isfinite(max_gap_s) and max_gap_s >= 0.0):
            raise SettingsError(f'max_gap_s is {max_gap_s}, must be a number of seconds from 0 on')
        if isinstance(classes, str):
            raise SettingsError(f'classes is {classes!r}, must be a list of names')
        if threshold is not None:
            changes['policy'] = ThresholdPolicy(threshold)
        elif policy is not None:
            changes['policy'] = parse_policy(policy) if isinstance(policy, str) else policy
        self.detector = detector  #: The detector that it shares
        #: The `DetectorSettings` in use.
        self.settings = replace(detector.card.settings(), classes=tuple(classes), **changes)
        detector.check_settings(self.settings)
        self.max_gap_s = max_gap_s  #: As the parameter
        self.reset()

    def reset(self) -> None:
        """Reset the state; the next frame is read."""
        self._state = StreamState.initial()

    def __call__(self, image: np.ndarray | Frame, stamp: float | None = None) -> StepResult:
        """
        Process the next picture.

        :param image: ``(H, W, 3)`` uint8 BGR; or a `Frame`, which is loaded only if it is read
        :param stamp: time of the picture, seconds of any clock. All frames of a stream have a
            stamp, or none has. Without stamps, frames count as equally far apart in time.
        :raises FrameError: if picture or stamp cannot be used; the state does not change
        """
        (outcome,) = step_together([self], [image], None if stamp is None else [stamp])
        if isinstance(outcome, FrameError):
            raise outcome
        return outcome

    def _nanoseconds(self, stamp: float | None) -> int | None:
        before = self._state
        if before.network is not None and (stamp is None) != (before.stamp_ns is None):
            raise FrameError('stamp is missing, but the frames before had one' if stamp is None
                             else f'stamp is {stamp}, but the frames before had none')
        if stamp is not None and not isfinite(stamp):
            raise FrameError(f'stamp is {stamp}, must be a number of seconds')
        return None if stamp is None else round(stamp * 1e9)


def step_together(streams: Sequence[Stream], images: Sequence[np.ndarray | Frame],
                  stamps: Sequence[float] | None = None) -> list[StepResult | FrameError]:
    """
    Process the next picture of each of several streams in batches, which is cheaper.

    :param streams: different streams of one detector, with equal settings
    :param images: picture of each stream, as for `Stream`
    :param stamps: stamp of each picture, as for `Stream`; None: without stamps
    :returns: result of each stream, or the error of its picture. After an error the state of the
        stream does not change.
    :raises SettingsError: if the streams cannot run together
    """
    if not streams:
        return []
    first = streams[0]
    for other in streams[1:]:
        if (other.detector is not first.detector or other.settings != first.settings
                or other.max_gap_s != first.max_gap_s):
            raise SettingsError('streams that are processed together must have one detector and '
                                'equal settings')
    if len({id(stream) for stream in streams}) < len(streams):
        raise SettingsError('a stream is given twice')
    frames: list[Frame] = []
    stamps_ns: list[int] = []
    outcomes: dict[int, StepResult | FrameError] = {}
    times: Sequence[float | None] = [None] * len(streams) if stamps is None else stamps
    for place, (stream, image, stamp) in enumerate(zip(streams, images, times, strict=True)):
        try:
            nanoseconds = stream._nanoseconds(stamp)
            frames.append(_frame(image))
        except FrameError as error:
            outcomes[place] = error
            continue
        if nanoseconds is not None:
            stamps_ns.append(nanoseconds)
    places = [place for place in range(len(streams)) if place not in outcomes]
    states = [streams[place]._state for place in places]
    detector, settings = first.detector, first.settings
    stepped = (detector.step_many(frames, states, settings) if stamps is None else
               step_stamped_many(detector, frames, stamps_ns, states, settings, first.max_gap_s))
    for place, result in zip(places, stepped):
        if isinstance(result, FrameError):
            outcomes[place] = result
        else:
            outcomes[place], streams[place]._state = result
    return [outcomes[place] for place in range(len(streams))]


def _frame(image: np.ndarray | Frame) -> Frame:
    if isinstance(image, Frame):
        return image
    if not isinstance(image, np.ndarray):
        raise FrameError(f'picture is of type {type(image).__name__}, must be an array')
    pixels = Pixels(image, 'bgr')
    return Frame(pixels.size, lambda: pixels)
