# SPDX-License-Identifier: Apache-2.0
"""
Streaming accuracy: what is known of the world at every instant, late as it may be.

After Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020), section 3.1: the objects
of each frame are compared with the newest output that was ready when the frame arrived.  Frames
arrive at a fixed rate; the detector takes the newest one whenever it is idle, as the node does,
so those that arrive while it is busy are dropped.  Which frames are processed, and with that every
decision, depends on how long the ones before took; so the detector runs inside the simulation.

A forecast is known before its frame exists: `AHEAD` makes, after each frame, that of the frame one
period later, and it is what is known when that frame arrives.
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

RATES = (5, 10, 15, 30, 60)  #: Frame rates that are measured unless others are named

PRESENT, AHEAD, REPEATED = 'present', 'ahead', 'repeated'

#: What a detector makes known.
OUTPUTS = {
    PRESENT: 'detections of every processed frame',
    AHEAD: 'also the forecast of one period later',
    REPEATED: 'detections of read frames, until the next read',
}


@dataclass(frozen=True)
class StreamedRun:
    """The detections known of one sequence at each instant."""

    #: Under the given settings: for each frame, the detections that were ready.
    shown: DetectionTable

    #: The same from `COLLECT_SCORE` on; None if they were not asked for.
    collected: DetectionTable | None

    #: ``(F,)`` int64: the frame that those detections are for; -1 before there were any.
    answer: np.ndarray
    processed: np.ndarray  #: ``(P,)`` int64: the frames that the detector took
    read: np.ndarray  #: ``(P,)`` bool: which of them it read


@dataclass(frozen=True)
class _Output:
    """Detections that became known at some instant."""

    ready: int  #: Nanoseconds since the first frame arrived
    frame: int  #: The frame that they are for
    seen: bool  #: Whether that frame had arrived
    found: Detections


def stream(detector: Detector, video: Video, settings: DetectorSettings, rate: float,
           latencies: Latencies | None, collect: bool, output: str = PRESENT) -> StreamedRun:
    """
    Let a sequence pass at a frame rate, from a fresh state.

    :param detector: warmed up, if latencies are measured
    :param settings: under which the detector decides
    :param rate: frames per second, above 0
    :param latencies: what decisions take; None to take what each one takes now, without decoding
        the file
    :param collect: whether to collect detections of low score as well
    :param output: one of `OUTPUTS`. With `AHEAD` the detector is busy for one forecast more after
        each frame; with `REPEATED` frames that are not read still take the time of a forecast.
    :raises DataError: if a picture cannot be decoded
    :raises EvaluationError: if a latency is needed that was not recorded
    """
    simulation = _Simulation(detector, settings, latencies, collect)
    count, period = len(video.frames), 1e9 / rate
    # Whole nanoseconds: "ready at that instant" is then a matter of fact.
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
    """Give what is ready for the latest frame up to one; what was seen goes before forecasts."""
    return max((item for item in known if item.ready <= instant and item.frame <= frame),
               key=lambda item: (item.frame, item.seen), default=None)


class _Simulation:
    """Steps a detector and says how long that takes."""

    def __init__(self, detector: Detector, settings: DetectorSettings,
                 latencies: Latencies | None, collect: bool) -> None:
        self._detector, self._latencies = detector, latencies
        low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
        # More candidates would make a timed step slower, so they get a step of their own.
        self._settings = low if latencies is not None and collect else settings
        self._again = low if latencies is None and collect else None

    def step(self, frame: Frame, stamp: int, state: StreamState, drawn: float
             ) -> tuple[str, Detections, int, StreamState]:
        """Give decision, detections, time taken in nanoseconds, and the state."""
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
        """Give what is expected so many nanoseconds later, and the time that this takes."""
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
    :param policies, rates: each policy is run at each rate, in place of that of the settings
    :param protocols: for average precision, of `accuracy.KEYS`; measured where all sequences have
        boxes for it
    :param outputs: of `OUTPUTS`: each policy is run with each of them
    :param seed: of the bootstrap over sequences
    :returns: plain values: the source of latencies, and `runs`; None if not measurable. `age_ms`
        is the mean time since the arrival of the frame of the shown detections. `difference` is
        the recall minus that of the first policy and output at the same rate, with its interval.
    :raises SettingsError: if the settings do not allow one of the policies
    :raises DataError, EvaluationError: as for `stream` and `measure_accuracy`
    """
    collect = all(item.labelled is not None for item in videos)
    names = [item.source_name for item in videos]
    wholes = list(dict.fromkeys(names))
    bootstrap = Bootstrap(len(wholes), seed)
    result: list[dict[str, Any]] = []
    first: dict[float, np.ndarray] = {}
    # Made at once: a policy that the limit refuses is refused before anything is measured.
    changed = [replace(settings, policy=policy) for policy in policies]
    for own, output in itertools.product(changed, outputs):
        for rate in rates:
            runs = [stream(detector, item, own, rate, latencies, collect, output)
                    for item in videos]
            recalls = np.array([recall(run.shown, item.truth)
                                for item, run in zip(videos, runs)])
            # Parts of a video are no sequences of their own: they show the same.
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
    """Lay out the result of `sweep` as a table."""
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
