# SPDX-License-Identifier: Apache-2.0
"""Run a detector over many sequences in several processes, and keep what came out for later."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import json
from pathlib import Path
from typing import Any

import numpy as np

from .many import check_complete, Interrupt, ManyError, Progress
from .runner import FootageRun, run_footage
from .sequences import Footage
from ..annotations.errors import DataError
from ..detector.detector import Detector
from ..detector.settings import DetectorSettings
from ..metrics.tables import load_tables, save_tables

_ARRAYS = ('read', 'confidence', 'preprocess_ms', 'inference_ms')
_HEAD = 'head'


@dataclass(frozen=True)
class FootageWork:
    """What every process needs to run a detector over sequences."""

    checkpoint: Path
    device: str
    precision: str
    threads: int
    backend: str
    settings: DetectorSettings
    collect: bool
    """See `run_footage`."""

    def prepare(self) -> Callable[[Footage, Progress, Interrupt], FootageRun]:
        """Load the detector, warm it up, and return the function that runs one sequence."""
        detector = Detector.load(self.checkpoint, self.device, self.precision, self.threads,
                                 backend=self.backend)
        detector.warm_up()
        return self.with_detector(detector)

    def with_detector(self, detector: Detector
                      ) -> Callable[[Footage, Progress, Interrupt], FootageRun]:
        """Return that function for a detector that is loaded and warm."""
        return partial(_run, self, detector)


def _run(work: FootageWork, detector: Detector, footage: Footage, progress: Progress,
         interrupt: Interrupt) -> FootageRun:
    run = run_footage(detector, footage, work.settings, work.collect)
    progress(len(footage.frames), len(footage.frames))
    return run


def save_part(path: Path, head: Mapping[str, Any], runs: Mapping[int, FootageRun],
              failures: Mapping[int, str], machine: Mapping[str, Any]) -> None:
    """
    Keep what came out of some of the sequences, whole or not at all; raises OSError.

    Parameters
    ----------
    path:
        A NumPy archive.
    head:
        Plain values that parts must have in common to be merged; `names` lists all sequences.
    runs, failures:
        By the place of the sequence in that list.
    machine:
        What they were run with, as plain values.

    """
    document = {'head': head, 'machine': machine, 'failures': {
        str(key): text for key, text in failures.items()}}
    groups: dict[str, dict[str, Any]] = {_HEAD: {'json': np.array(json.dumps(document))}}
    for number, run in runs.items():
        groups[str(number)] = {
            'shown': run.shown, **{name: getattr(run, name) for name in _ARRAYS},
            'reasons': np.array(run.reasons, np.str_),
            **({} if run.collected is None else {'collected': run.collected})}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tables(path, groups)


def merge_parts(paths: Sequence[Path], head: Mapping[str, Any]
                ) -> tuple[dict[int, FootageRun], dict[int, str], dict[str, Any]]:
    """
    Put the parts of one evaluation together again.

    Parameters
    ----------
    paths:
        Files of `save_part`.
    head:
        What they must have been made with.

    Returns
    -------
    tuple
        Runs, and what is said of sequences without one, by place; what the first part was run
        with.

    Raises
    ------
    ManyError
        If a file is no part, or not one of this evaluation, or a sequence is in two of them.

    """
    wanted = json.loads(json.dumps(head))
    names, runs = list(wanted['names']), {}
    held: list[int] = []
    failures: dict[int, str] = {}
    machines: list[dict[str, Any]] = []
    for path in paths:
        try:
            groups = load_tables(path)
            document = json.loads(str(groups.pop(_HEAD)['json']))
        except (DataError, KeyError, ValueError) as error:
            raise ManyError(f'{path}: is no part that evaluate kept: {error}') from None
        for key, value in wanted.items():
            if document['head'].get(key) != value:
                raise ManyError(f'{path}: {key} is {_short(document["head"].get(key))}, here it '
                                f'is {_short(value)}')
        machines.append(document['machine'])
        for number, text in document['failures'].items():
            failures[int(number)] = text
        held += [int(number) for number in (*groups, *document['failures'])]
        for number, tables in groups.items():
            place = int(number)
            runs[place] = FootageRun(
                names[place], tables['shown'], tables.get('collected'),
                reasons=tuple(tables['reasons'].tolist()),
                **{name: tables[name] for name in _ARRAYS})
    for number in check_complete(held, len(names)):
        failures[number] = 'no part has it'
    return runs, failures, machines[0]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
