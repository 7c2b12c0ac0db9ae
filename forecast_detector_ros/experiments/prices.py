# SPDX-License-Identifier: Apache-2.0
"""
Recall and milliseconds per frame of several detectors, and their picture.

All detectors process each frame in turns, in a new random order, so that noise of the machine
affects all of them equally.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .figure_files import new_figure, save_figure
from ..benchmark.timing import Contender, noise_of
from ..detector.detector import Detector
from ..detector.policy import AlternatePolicy, AlwaysReadPolicy, parse_policy, READ
from ..detector.processing import Detections
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..evaluation.sequences import as_frame, picture, Video
from ..images.frame import as_bgr, Pixels
from ..labelling.teacher import Teacher, TEACHER_CLASSES, TeacherBoxes
from ..layout import mean, plain
from ..metrics.tables import DetectionTable, recall

#: This package's detectors; others that read every frame; others without trained weights.
OWN, PEER, TIME_ONLY = GROUPS = ('own', 'peer', 'time only')
WARM_UP = 3  #: Frames that every detector processes before the first timed one


FoundBoxes = Detections | TeacherBoxes

#: Processes the next frame, BGR; returns the boxes, and whether the frame was read.
Look = Callable[[Pixels], tuple[FoundBoxes | None, bool]]


@dataclass(frozen=True)
class Contestant:
    """A compared detector."""

    name: str
    group: str  #: One of `GROUPS`
    policy: str  #: Text of the policy
    names: tuple[str, ...]  #: The class of each of its labels
    begin: Callable[[], Look]  #: Starts a sequence


@dataclass(frozen=True)
class Price:
    """The measurements of one detector; None if unknown."""

    name: str
    group: str
    policy: str
    frames: int
    #: Mean over the sequences, for the compared classes, at an IoU of 0.5.
    recall: float | None
    sequences: dict[str, float | None]  #: Recall of each sequence
    boxes_per_frame: float | None  #: Boxes of the compared classes
    #: Per frame: medians of read and forecast frames, weighted by the read ratio.
    ms: float
    read_ms: float | None
    forecast_ms: float | None
    read_ratio: float
    noise: float  #: Noise of the read frames' times, see `benchmark.timing.noise_of`


def own_contestant(name: str, detector: Detector, settings: DetectorSettings) -> Contestant:
    """Return a contestant for a detector of this package under a policy."""
    def begin() -> Look:
        state = StreamState.initial()

        def look(pixels: Pixels) -> tuple[FoundBoxes, bool]:
            nonlocal state
            result, state = detector.step(as_frame(pixels), state, settings)
            return result.detections, result.decision.kind == READ
        return look
    return Contestant(name, OWN, str(settings.policy), tuple(detector.labels), begin)


def peer_contestant(name: str, teacher: Teacher) -> Contestant:
    """Return a contestant that reads every frame; its time includes resizing and decoding."""
    def look(pixels: Pixels) -> tuple[FoundBoxes, bool]:
        return teacher.detect(pixels.array), True
    return Contestant(name, PEER, 'always_read', TEACHER_CLASSES, lambda: look)


def timed_contestant(contender: Contender) -> Contestant:
    """Return a contestant for a network with its own input picture: a time without a recall."""
    def look(_: Pixels) -> tuple[None, bool]:
        contender.run()
        return None, True
    return Contestant(contender.name, TIME_ONLY, 'always_read', (), lambda: look)


def compared_classes(contestants: Sequence[Contestant]) -> tuple[str, ...]:
    """Return the classes that all contestants have, except those that are only timed."""
    lists = [contestant.names for contestant in contestants if contestant.group != TIME_ONLY]
    return tuple(name for name in (lists[0] if lists else ())
                 if all(name in names for names in lists))


def measure_prices(contestants: Sequence[Contestant], videos: Sequence[Video],
                   classes: Sequence[str], seed: int = 0,
                   progress: Callable[[int, int], object] = lambda *_: None,
                   clock: Callable[[], float] = perf_counter) -> list[Price]:
    """
    Run all detectors over annotated video.

    :param videos: at least one sequence, loaded with `classes`
    :param classes: names; detections of other classes do not count
    :param seed: seed of the orders in which they take turns
    :param progress: called with the number of finished frames, and of all frames
    :returns: in the order of `contestants`
    :raises DataError: if a picture cannot be decoded
    """
    rng = np.random.default_rng(seed)
    tallies = [_Tally(contestant, classes) for contestant in contestants]
    first = _pixels(videos[0], 0)
    for contestant in contestants:
        look = contestant.begin()
        for _ in range(WARM_UP):
            look(first)
    done, total = 0, sum(len(item.frames) for item in videos)
    for item in videos:
        looks = [contestant.begin() for contestant in contestants]
        for number in range(len(item.frames)):
            pixels = _pixels(item, number)
            for index in rng.permutation(len(contestants)):
                start = clock()
                found, read = looks[index](pixels)
                tallies[index].take(number, found, read, (clock() - start) * 1e3)
            done += 1
            progress(done, total)
        for tally in tallies:
            tally.end(item)
    return [tally.price() for tally in tallies]


def _pixels(video: Video, number: int) -> Pixels:
    pixels = picture(video.frames[number])
    return Pixels(as_bgr(pixels.array, pixels.order), 'bgr')


class _Tally:
    """The measurements of one detector so far."""

    def __init__(self, contestant: Contestant, classes: Sequence[str]) -> None:
        self._contestant = contestant
        self._known = contestant.group != TIME_ONLY
        places = {name: place for place, name in enumerate(classes)}
        self._places = np.array([places.get(name, -1) for name in contestant.names], np.int64)
        self._times: list[float] = []
        self._read: list[bool] = []
        self._found: list[DetectionTable] = []
        self._recall: dict[str, float | None] = {}
        self._boxes = 0

    def take(self, number: int, found: FoundBoxes | None, read: bool, ms: float) -> None:
        """Add the result of a frame."""
        self._times.append(ms)
        self._read.append(read)
        if found is not None:
            labels = self._places[found.labels]
            self._found.append(DetectionTable(np.full(len(labels), number, np.int64), found.boxes,
                                              labels, found.scores).select(labels >= 0))

    def end(self, video: Video) -> None:
        """Finish a sequence."""
        table = DetectionTable.join(self._found)
        self._recall[video.name] = plain(recall(table, video.truth)) if self._known else None
        self._boxes += len(table)
        self._found = []

    def price(self) -> Price:
        """Return the result of all sequences."""
        read, times = np.array(self._read), np.array(self._times)
        steps = [times[read], times[~read]]
        medians = [float(np.median(part)) if len(part) else None for part in steps]
        return Price(
            self._contestant.name, self._contestant.group, self._contestant.policy, len(times),
            mean(list(self._recall.values())), self._recall,
            self._boxes / len(times) if self._known else None,
            sum((median or 0.0) * len(part) for median, part in zip(medians, steps)) / len(times),
            medians[0], medians[1], float(read.mean()), noise_of(steps[0].tolist()))


HEAD = ('detector', 'policy', 'recall', 'ms per frame', 'read ms', 'forecast ms', 'frames read',
        'boxes a frame')


def price_rows(prices: Sequence[Price]) -> list[list[str]]:
    """Return the table, its head first; recall in points."""
    def shown(value: float | None, digits: int, factor: float = 1.0) -> str:
        return '-' if value is None else f'{factor * value:.{digits}f}'

    return [list(HEAD), *(
        [price.name, price.policy, shown(price.recall, 1, 100), shown(price.ms, 1),
         shown(price.read_ms, 1), shown(price.forecast_ms, 1), f'{100 * price.read_ratio:.0f} %',
         shown(price.boxes_per_frame, 1)] for price in prices)]


#: A grey whose contrast is about 4.5 on white and 4.2 on a page in dark mode.
TINT = '#767676'
OWN_COLOUR, PEER_COLOUR = '#3b82f6', '#e0701a'
#: Markers of this package's detectors, by the kind of their policy.
EVERY, RULE, SCHEDULER = 's', '^', 'o'
OWN_MARKERS = ((EVERY, 'every frame read'), (RULE, 'a fixed rule'),
               (SCHEDULER, 'its scheduler decides'))
SIZE_INCHES = (7.0, 4.4)


def draw_prices(prices: Sequence[Price], path: Path, threads: int = 1) -> None:
    """
    Draw recall over milliseconds as PNG, on a transparent ground.

    The points of a detector under several policies are joined. A detector with only a time is a
    vertical line.

    :param threads: number of threads of the measurement
    :raises EvaluationError: if matplotlib is missing
    """
    figure = new_figure(*SIZE_INCHES)
    axes: Any = figure.subplots()
    for name in dict.fromkeys(price.name for price in prices if price.group == OWN):
        points = sorted((price for price in prices if price.name == name
                         and price.recall is not None), key=lambda price: price.ms)
        axes.plot([price.ms for price in points], [_points(price) for price in points],
                  color=OWN_COLOUR, linewidth=1.2)
        for price in points:
            axes.plot(price.ms, _points(price), color=OWN_COLOUR, markersize=8,
                      marker=_marker(price.policy))
        if points:
            # Above the fastest point, where no line is.
            _name(axes, points[0], OWN_COLOUR, (-2, 8), 'center')
    for price in prices:
        if price.group == PEER and price.recall is not None:
            axes.plot(price.ms, _points(price), color=PEER_COLOUR, marker='D', markersize=8)
            _name(axes, price, PEER_COLOUR)
        elif price.group == TIME_ONLY:
            axes.axvline(price.ms, color=PEER_COLOUR, linestyle=':', linewidth=1.4)
            axes.annotate(f'{price.name}: time alone', (price.ms, 0.98), rotation=90,
                          xycoords=('data', 'axes fraction'), xytext=(-3, 0), fontsize=7,
                          textcoords='offset points', ha='right', va='top', color=PEER_COLOUR)
    _legend(axes, prices)
    axes.set_xlabel(f'ms per frame, {"one thread" if threads == 1 else f"{threads} threads"}')
    axes.set_ylabel('recall, %')
    axes.set_xlim(left=0)
    axes.margins(x=0.12, y=0.12)
    _tint(axes)
    save_figure(figure, path, 'none')


def _marker(policy: str) -> str:
    kind = parse_policy(policy)
    if isinstance(kind, AlwaysReadPolicy):
        return EVERY
    return RULE if isinstance(kind, AlternatePolicy) else SCHEDULER


def _points(price: Price) -> float:
    return 100 * (price.recall or 0.0)


def _name(axes: Any, price: Price, colour: str, offset: tuple[int, int] = (7, 5),
          side: str = 'left') -> None:
    axes.annotate(price.name, (price.ms, _points(price)), xytext=offset, fontsize=8, ha=side,
                  textcoords='offset points', color=colour)


def _legend(axes: Any, prices: Sequence[Price]) -> None:
    used = {_marker(price.policy) for price in prices if price.group == OWN}
    for marker, text in OWN_MARKERS:
        if marker in used:
            axes.plot([], [], marker=marker, color=OWN_COLOUR, linestyle='',
                      label=f'this package, {text}')
    if any(price.group == PEER for price in prices):
        axes.plot([], [], marker='D', color=PEER_COLOUR, linestyle='',
                  label='others, every frame read')
    # Above the axes, where it hides no detector.
    axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0), ncol=2, labelcolor=TINT)


def _tint(axes: Any) -> None:
    """Draw axes and texts in a grey that is visible on white and on black."""
    axes.tick_params(colors=TINT)
    axes.xaxis.label.set_color(TINT)
    axes.yaxis.label.set_color(TINT)
    axes.grid(color=TINT, alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(TINT)
    axes.set_facecolor('none')
