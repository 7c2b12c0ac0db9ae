# SPDX-License-Identifier: Apache-2.0
"""
Streaming accuracy: the accuracy of the newest output at every instant, with the latency.

The method is that of Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020), section
3.1. The objects of each frame are compared with the newest output that was ready when the frame
arrived. Frames arrive at a fixed rate. An idle detector takes the newest frame, as the node does,
and drops frames that arrive while it is busy. The latencies decide which frames are processed, and
so all decisions; therefore the detector runs inside the simulation.

A forecast can be ready before its frame arrives: `AHEAD` makes, after each frame, the forecast for
one period later.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
import itertools
from typing import Any

import numpy as np

from .accuracy import HEADS, KEYS, measure_accuracy
from .runs import COLLECT_SCORE, Latencies
from .sequences import as_frame, picture, Video
from ..detector.detector import Detector, look_ahead, step_stamped, StepResult
from ..detector.policy import FORECAST, Policy, READ
from ..detector.processing import Detections
from ..detector.settings import DetectorSettings
from ..detector.stream import StreamState
from ..images.frame import Frame
from ..layout import mean, plain, table
from ..metrics.bootstrap import Bootstrap
from ..metrics.tables import DetectionTable, recall

RATES = (5, 10, 15, 30, 60)  #: Default frame rates

PRESENT, AHEAD, REPEATED = 'present', 'ahead', 'repeated'

#: The outputs of a detector.
OUTPUTS = {
    PRESENT: 'detections of every processed frame',
    AHEAD: 'also the forecast of one period later',
    REPEATED: 'detections of read frames, until the next read',
}


@dataclass(frozen=True)
class StreamedRun:
    """The newest detections of one sequence at each instant."""

    #: For each frame, the detections that were ready at its arrival.
    shown: DetectionTable

    #: The same from `COLLECT_SCORE` on; None if they were not collected.
    collected: DetectionTable | None

    #: ``(F,)`` int64: the frame of those detections; -1 before the first ones.
    answer: np.ndarray
    processed: np.ndarray  #: ``(P,)`` int64: the processed frames
    read: np.ndarray  #: ``(P,)`` bool: whether they were read


@dataclass(frozen=True)
class _Output:
    """Detections, and the instant at which they are ready."""

    ready: int  #: Nanoseconds since the first frame arrived
    frame: int  #: The frame of the detections
    seen: bool  #: Whether that frame had arrived
    found: Detections


def stream(detector: Detector, video: Video, settings: DetectorSettings, rate: float,
           latencies: Latencies | None, collect: bool, output: str = PRESENT) -> StreamedRun:
    """
    Simulate a sequence at a frame rate, from a fresh state.

    :param detector: must be warmed up if latencies are measured
    :param settings: of the decisions
    :param rate: frames per second, above 0
    :param latencies: latencies of the decisions; None to measure them, without decoding the file
    :param collect: whether to collect detections of low score as well
    :param output: one of `OUTPUTS`. With `AHEAD` the detector is busy for one forecast more after
        each frame. With `REPEATED` frames that are not read take the time of a forecast, too.
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if a latency is needed that was not recorded
    """
    simulation = _Simulation(detector, settings, latencies, collect)
    count, period = len(video.frames), 1e9 / rate
    # Whole nanoseconds, so that comparisons of instants are exact.
    arrival = np.array([round(i * period) for i in range(count)], np.int64)
    drawn = np.zeros(count) if latencies is None else latencies.draws(video.name, count)
    state, idle, newest = StreamState(), 0, -1
    processed, read, known = [], [], []
    while newest + 1 < count:
        newest = max(int(np.searchsorted(arrival, idle, 'right')) - 1, newest + 1)
        frame, stamp = as_frame(picture(video.frames[newest])), int(arrival[newest])
        kind, found, took, state = simulation.step(frame, stamp, state, drawn[newest])
        idle = max(idle, stamp) + took
        if kind == READ or output != REPEATED:
            known.append(_Output(idle, newest, True, found))
        if output == AHEAD:
            found, took = simulation.ahead(round((newest + 1) * period) - stamp, state,
                                           drawn[newest])
            idle += took
            known.append(_Output(idle, newest + 1, False, found))
        processed.append(newest)
        read.append(kind == READ)
    shown = [_newest(known, i, int(instant)) for i, instant in enumerate(arrival)]
    table = DetectionTable.join([DetectionTable.of_frame(i, item.found)
                                 for i, item in enumerate(shown) if item is not None])
    return StreamedRun(table.select(table.scores > settings.score_threshold),
                       table if collect else None,
                       np.array([-1 if item is None else item.frame for item in shown]),
                       np.array(processed), np.array(read))


def _newest(known: Sequence[_Output], frame: int, instant: int) -> _Output | None:
    """Return the ready output of the latest frame up to `frame`; forecasts come last."""
    return max((item for item in known if item.ready <= instant and item.frame <= frame),
               key=lambda item: (item.frame, item.seen), default=None)


class _Simulation:
    """Runs steps of a detector, and returns or draws their latencies."""

    def __init__(self, detector: Detector, settings: DetectorSettings,
                 latencies: Latencies | None, collect: bool) -> None:
        self._detector, self._latencies = detector, latencies
        low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
        # More candidates would slow down a timed step, so they need another step.
        self._settings = low if latencies is not None and collect else settings
        self._again = low if latencies is None and collect else None

    def step(self, frame: Frame, stamp: int, state: StreamState, drawn: float
             ) -> tuple[str, Detections, int, StreamState]:
        """Return decision, detections, latency in nanoseconds, and the state."""
        given = self._latencies
        result, after = step_stamped(
            self._detector, frame, stamp, state, self._settings,
            cost_ms=None if given is None else lambda kind: given.at(kind, float(drawn)))
        kind, found = result.decision.kind, result.detections
        if self._again is not None:
            more, _ = step_stamped(self._detector, frame, stamp, state, self._again)
            found = more.detections
        return kind, found, self._took(result, kind, drawn), after

    def ahead(self, elapsed: int, state: StreamState, drawn: float) -> tuple[Detections, int]:
        """Return the forecast for `elapsed` nanoseconds later, and its latency in nanoseconds."""
        result = look_ahead(self._detector, state, self._settings, elapsed / 1e9)
        found = result.detections
        if self._again is not None:
            found = look_ahead(self._detector, state, self._again, elapsed / 1e9).detections
        return found, self._took(result, FORECAST, drawn)

    def _took(self, result: StepResult, kind: str, drawn: float) -> int:
        took = (result.preprocess_ms + result.inference_ms if self._latencies is None
                else self._latencies.at(kind, float(drawn)))
        return round(took * 1e6)


def sweep(detector: Detector, videos: Sequence[Video], settings: DetectorSettings,
          policies: Sequence[Policy], rates: Sequence[float], latencies: Latencies | None,
          protocols: Sequence[str], outputs: Sequence[str] = (PRESENT,), seed: int = 0
          ) -> dict[str, Any]:
    """
    Measure streaming accuracy under each policy at each frame rate.

    :param detector, videos, settings, latencies: as for `stream`; at least one sequence
    :param policies, rates: each policy replaces that of the settings, and is run at each rate
    :param protocols: keys of `accuracy.KEYS`, for average precision, if all sequences have boxes
        for it
    :param outputs: of `OUTPUTS`: each policy is run with each of them
    :param seed: seed of the bootstrap over sequences
    :returns: plain values, None if not measurable: the source of latencies, and `runs`. `age_ms`
        is the mean time since the arrival of the frame whose detections are shown. `difference`
        is the recall minus that of the first policy and output at the same rate.
    :raises SettingsError: if the settings do not allow one of the policies
    :raises DataError, EvaluationError: as for `stream` and `measure_accuracy`
    """
    collect = all(item.labelled is not None for item in videos)
    names = [item.source_name for item in videos]
    wholes = list(dict.fromkeys(names))
    bootstrap = Bootstrap(len(wholes), seed)
    result: list[dict[str, Any]] = []
    first: dict[float, np.ndarray] = {}
    # All are made first, so that an impossible policy is an error before the measurements.
    changed = [replace(settings, policy=policy) for policy in policies]
    for own, output in itertools.product(changed, outputs):
        for rate in rates:
            runs = [stream(detector, item, own, rate, latencies, collect, output)
                    for item in videos]
            recalls = np.array([recall(run.shown, item.truth)
                                for item, run in zip(videos, runs)])
            # Parts of a video are not independent sequences, so their mean is used.
            drawn = np.array([mean([value for value, name in zip(recalls.tolist(), names)
                                    if name == whole]) for whole in wholes], float)
            difference = bootstrap.difference(drawn, first.setdefault(rate, drawn))
            result.append({
                'policy': str(own.policy), 'output': output, 'rate': rate,
                **_figures(videos, runs, rate),
                'mean_recall': mean(recalls.tolist()),
                'difference': {key: plain(value) for key, value in asdict(difference).items()},
                'sequences': dict(zip((item.name for item in videos), map(plain, recalls)))})
            if collect:
                tables = [run.collected for run in runs if run.collected is not None]
                result[-1].update(measure_accuracy(videos, tables, detector.labels, protocols))
    return {'latencies': None if latencies is None else str(latencies.path),
            'seed': None if latencies is None else latencies.seed, 'runs': result}


def _figures(videos: Sequence[Video], runs: Sequence[StreamedRun], rate: float
             ) -> dict[str, Any]:
    frames = sum(len(item.frames) for item in videos)
    read = np.concatenate([run.read for run in runs])
    late = np.concatenate([(np.arange(len(run.answer)) - run.answer)[run.answer >= 0]
                           for run in runs])
    return {'processed': len(read) / frames, 'read_ratio': float(read.mean()),
            'unanswered': frames - len(late),
            'age_ms': float(late.mean() * 1e3 / rate) if len(late) else None}


def streaming_as_text(result: dict[str, Any]) -> str:
    """Format the result of `sweep` as a table."""
    runs = result['runs']
    protocols = [name for name in KEYS if KEYS[name] in runs[0]]
    several = len({run['output'] for run in runs}) > 1
    rows = [[run['policy'], *([run['output']] if several else []), f'{run["rate"]:g}',
             run['processed'], run['read_ratio'],
             None if run['age_ms'] is None else f'{run["age_ms"]:.1f}', run['mean_recall'],
             *([_signed(run['difference'])] if several else []),
             *(run[KEYS[name]]['mean'] for name in protocols)] for run in runs]
    return table(('policy', *(['output'] if several else []), 'Hz', 'processed', 'read ratio',
                  'age ms', 'recall', *(['more than the first'] if several else []),
                  *(HEADS[name] for name in protocols)), rows,
                 title='streaming: against the newest output that was ready')


def _signed(value: dict[str, float | None]) -> str | None:
    if value['mean'] is None:
        return None
    middle, low, high = (f'{value[key]:+.3f}' for key in ('mean', 'low', 'high'))
    return f'{middle} [{low}, {high}]'
