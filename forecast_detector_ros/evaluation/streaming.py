# SPDX-License-Identifier: Apache-2.0
"""
Streaming accuracy: what is known of the world at every instant, late as it may be.

After Li, Wang and Ramanan, "Towards Streaming Perception" (ECCV 2020), section 3.1: the objects
of each frame are compared with the newest output that was ready when the frame arrived.  Frames
arrive at a fixed rate; the detector takes the newest one whenever it is idle, as the node does,
so those that arrive while it is busy are dropped.  Which frames are processed, and with that every
decision, depends on how long the ones before took; so the detector runs inside the simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .accuracy import HEADS, KEYS, measure_accuracy
from .latencies import Latencies
from .runner import COLLECT_SCORE
from .sequences import as_frame, Footage, picture
from ..detector.detector import Detector
from ..detector.policy import Policy, READ
from ..detector.settings import DetectorSettings
from ..detector.stream import CameraState, step_stamped
from ..layout import mean, plain, table
from ..metrics.recall import recall
from ..metrics.tables import DetectionTable


@dataclass(frozen=True)
class StreamedRun:
    """What was known of one sequence, instant by instant."""

    shown: DetectionTable
    """Under the given settings: for each frame, the detections that were ready."""

    collected: DetectionTable | None
    """The same from `COLLECT_SCORE` on; None if they were not asked for."""

    answer: np.ndarray
    """``(F,)`` int64: the frame that those detections are of; -1 before there were any."""

    processed: np.ndarray
    """``(P,)`` int64: the frames that the detector took."""

    read: np.ndarray
    """``(P,)`` bool: which of them it read."""


def stream(detector: Detector, footage: Footage, settings: DetectorSettings, rate: float,
           latencies: Latencies | None, collect: bool) -> StreamedRun:
    """
    Let a sequence pass at a frame rate, from a fresh state.

    Parameters
    ----------
    detector:
        Warmed up, if latencies are measured.
    footage:
        The sequence.
    settings:
        Under which the detector decides.
    rate:
        Frames per second, above 0.
    latencies:
        What decisions take; None to take what each one takes now, without decoding the file.
    collect:
        Whether to collect detections of low score as well.

    Raises
    ------
    DataError
        If a picture cannot be decoded.
    EvaluationError
        If a latency is needed that was not recorded.

    """
    low = replace(settings, score_threshold=min(COLLECT_SCORE, settings.score_threshold))
    count = len(footage.frames)
    # Whole nanoseconds: "ready at that instant" is then a matter of fact.
    arrival = np.array([round(i * 1e9 / rate) for i in range(count)], np.int64)
    luck = np.zeros(count) if latencies is None else latencies.shares(footage.name, count)
    state, idle, newest = CameraState(), 0, -1
    processed, ready, read, found = [], [], [], []
    while newest + 1 < count:
        newest = max(int(np.searchsorted(arrival, idle, 'right')) - 1, newest + 1)
        frame = as_frame(picture(footage.frames[newest]))
        timed = latencies is None or not collect
        stamp = int(arrival[newest])
        result, after = step_stamped(detector, frame, stamp, state, settings if timed else low)
        # More candidates would make the timed step slower, so they get a step of their own.
        if timed and collect:
            more, _ = step_stamped(detector, frame, stamp, state, low)
        else:
            more = result
        found.append(more.detections)
        state = after
        kind = result.decision.kind
        took = (result.preprocess_ms + result.inference_ms if latencies is None
                else latencies.at(kind, float(luck[newest])))
        idle = max(idle, stamp) + round(took * 1e6)
        processed.append(newest)
        ready.append(idle)
        read.append(kind == READ)
    output = np.searchsorted(np.array(ready), arrival, 'right') - 1
    known = DetectionTable.join([DetectionTable.of_frame(i, found[place])
                                 for i, place in enumerate(output) if place >= 0])
    return StreamedRun(known.select(known.scores > settings.score_threshold),
                       known if collect else None,
                       np.where(output >= 0, np.array(processed)[output], -1),
                       np.array(processed), np.array(read))


def sweep(detector: Detector, footage: Sequence[Footage], settings: DetectorSettings,
          policies: Sequence[Policy], rates: Sequence[float], latencies: Latencies | None,
          protocols: Sequence[str]) -> dict[str, Any]:
    """
    Measure streaming accuracy under each policy at each frame rate.

    Parameters
    ----------
    detector, footage, settings, latencies:
        As for `stream`; at least one sequence.
    policies, rates:
        Each policy is run at each rate, in place of that of the settings.
    protocols:
        For average precision, of `accuracy.KEYS`; measured where all sequences have boxes for it.

    Returns
    -------
    dict
        Plain values: where latencies are from, and `runs`; what cannot be measured is None.
        `age_ms` is the mean time since the frame arrived whose detections are shown.

    Raises
    ------
    DataError, EvaluationError
        As for `stream` and `measure_accuracy`.

    """
    collect = all(item.labelled is not None for item in footage)
    result: list[dict[str, Any]] = []
    for policy in policies:
        for rate in rates:
            runs = [stream(detector, item, replace(settings, policy=policy), rate, latencies,
                           collect) for item in footage]
            result.append({'policy': str(policy), 'rate': rate,
                           **_figures(footage, runs, rate)})
            if collect:
                tables = [run.collected for run in runs if run.collected is not None]
                result[-1].update(measure_accuracy(footage, tables, detector.labels, protocols))
    return {'latencies': None if latencies is None else str(latencies.path),
            'seed': None if latencies is None else latencies.seed, 'runs': result}


def _figures(footage: Sequence[Footage], runs: Sequence[StreamedRun], rate: float
             ) -> dict[str, Any]:
    frames = sum(len(item.frames) for item in footage)
    read = np.concatenate([run.read for run in runs])
    late = np.concatenate([(np.arange(len(run.answer)) - run.answer)[run.answer >= 0]
                           for run in runs])
    recalls = [plain(recall(run.shown, item.truth)) for item, run in zip(footage, runs)]
    return {'processed': len(read) / frames, 'read_ratio': float(read.mean()),
            'unanswered': frames - len(late),
            'age_ms': float(late.mean() * 1e3 / rate) if len(late) else None,
            'mean_recall': mean(recalls),
            'sequences': dict(zip((item.name for item in footage), recalls))}


def streaming_as_text(result: dict[str, Any]) -> str:
    """Lay out the result of `sweep` as a table."""
    protocols = [name for name in KEYS if KEYS[name] in result['runs'][0]]
    rows = [[run['policy'], f'{run["rate"]:g}', run['processed'], run['read_ratio'],
             None if run['age_ms'] is None else f'{run["age_ms"]:.1f}', run['mean_recall'],
             *(run[KEYS[name]]['mean'] for name in protocols)] for run in result['runs']]
    return table(('policy', 'Hz', 'processed', 'read ratio', 'age ms', 'recall',
                  *(HEADS[name] for name in protocols)), rows,
                 title='streaming: against the newest output that was ready')
