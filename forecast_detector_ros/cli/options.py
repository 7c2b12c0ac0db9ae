# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share; types of arguments; outputs at URLs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, ExitStack
import logging
from math import inf
import os
from pathlib import Path
from typing import Any, TypeAlias

from ..detector.policy import parse_policy
from ..detector.settings import DetectorSettings
from ..errors import InputError
from ..jobs.engine import Engine, parse_engine
from ..jobs.locations import put, scratch, Url

Group: TypeAlias = argparse._ActionsContainer  #: A parser, or a group of its options


def add_checkpoint(group: Group, kind: Callable[[str], Any] = Path, default: bool = True) -> None:
    """Add `--checkpoint`, converted by `kind`; `default`: whether the help names a default."""
    group.add_argument('--checkpoint', type=kind, metavar='FILE', help='small, large, default'
                       + ' (the default)' * default + ' or a file')


def add_backend(group: Group) -> None:
    """Add `--backend`."""
    # The registry has the names but needs PyTorch; in `demo` only the node imports it.
    group.add_argument('--backend', default='auto', metavar='NAME', help='auto (default), '
                       'openvino, onnxruntime, tensorrt, torch[_compile]')


def add_device(group: Group) -> None:
    """Add `--device`."""
    group.add_argument('--device', default='auto', metavar='NAME',
                       help='auto (default), cpu, cuda or cuda:N')


def add_precision(group: Group) -> None:
    """Add `--precision`."""
    group.add_argument('--precision', default='auto', metavar='NAME',
                       help='auto (default), fp32, bf16, fp16, int8, tf32')


def add_threads(group: Group) -> None:
    """Add `--threads`."""
    group.add_argument('--threads', type=threads, default=1, metavar='N',
                       help='CPU threads of one inference (default 1)')


def add_detector(parser: argparse.ArgumentParser, kind: Callable[[str], Any] = Path) -> Group:
    """Add a group of options that name a detector and its settings; return it."""
    group = parser.add_argument_group('detector (default: what the card recommends)')
    add_checkpoint(group, kind)
    add_settings(group)
    add_hardware(group)
    return group


def add_hardware(group: Group) -> None:
    """Add `--device`, `--backend`, `--precision` and `--threads`."""
    add_device(group)
    add_backend(group)
    add_precision(group)
    add_threads(group)


def add_settings(group: Group) -> None:
    """Add the options that `given_settings` reads."""
    add_policy(group)
    # Users often try this name: the threshold is the one number of the default policy.
    group.add_argument('--threshold', type=_no_threshold, default=argparse.SUPPRESS,
                       help=argparse.SUPPRESS)
    add_limits(group)


def add_limits(group: Group) -> None:
    """Add the options of `add_settings` except the policy."""
    group.add_argument('--score-threshold', type=fraction, metavar='S',
                       help='boxes of a lower score are not shown')
    add_nms_threshold(group)
    group.add_argument('--vote-threshold', type=fraction, metavar='IOU',
                       help='boxes with this overlap are averaged; 1: off')
    group.add_argument('--score-memory', type=fraction, metavar='W',
                       help="weight of an object's earlier score; 0: none")
    group.add_argument('--max-consecutive-forecasts', type=limit, metavar='N',
                       help='most forecasts in a row (default '
                       f'{DetectorSettings().max_consecutive_forecasts})')


def add_nms_threshold(group: Group, default: float | None = None) -> None:
    """Add `--nms-threshold`."""
    group.add_argument('--nms-threshold', type=fraction, default=default, metavar='IOU',
                       help='of two boxes with this overlap, one is kept'
                       + ('' if default is None else f' (default {default:g})'))


def add_min_score(group: Group, default: float) -> None:
    """Add `--min-score` of annotations."""
    group.add_argument('--min-score', type=fraction, default=default, metavar='S',
                       help=f'drop boxes of a lower score (default {default:g})')


def add_ignore_score(group: Group, default: float | None) -> None:
    """Add `--ignore-score` of annotations."""
    group.add_argument('--ignore-score', type=fraction, default=default, metavar='S',
                       help='of those, ignore boxes from this score on'
                       + ('' if default is None else f' (default {default:g})'))


def add_policy(group: Group) -> None:
    """Add `--policy`."""
    group.add_argument('--policy', type=policy, metavar='P',
                       help='always_read, alternate(k), threshold(p) or budget(fps)')


def _no_threshold(text: str) -> None:
    raise argparse.ArgumentTypeError(f"is no option; use --policy 'threshold({text})'")


def add_policies(group: Group, default: str, **more: Any) -> None:
    """Add `--policies`; `default` is the help's text for the default."""
    group.add_argument('--policies', type=policy, nargs='+', metavar='P',
                       help=f'compare these (default: {default})', **more)


def add_seed(group: Group, what: str) -> None:
    """Add `--seed`; `what` names what is drawn at random."""
    group.add_argument('--seed', type=whole, default=0, metavar='N',
                       help=f'seed of {what} (default 0)')


def add_latencies(group: Group, kind: Callable[[str], Any] = Path) -> None:
    """Add `--latencies`, converted by `kind`."""
    group.add_argument('--latencies', type=kind, metavar='FILE',
                       help='draw latencies from the result of another run')


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `DetectorSettings` that the options of `add_settings` name."""
    return {key: value for key in ('policy', 'score_threshold', 'nms_threshold', 'vote_threshold',
                                   'score_memory', 'max_consecutive_forecasts', 'max_detections')
            if (value := getattr(options, key, None)) is not None}


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `parse` with its errors in the form that argparse prints."""
    def read(text: str) -> Any:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return read


def number_in(kind: type, low: float, high: float = inf) -> Callable[[str], Any]:
    """Return a function that reads a finite number of `kind` from `low` to `high`."""
    wanted = 'an integer' if kind is int else 'a number'
    wanted += f' from {low:g} to {high:g}' if high < inf else f' of at least {low:g}'

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or value == inf:
            raise argparse.ArgumentTypeError(f'is {text!r}, must be {wanted}')
        return value
    return read


fraction = number_in(float, 0, 1)
positive = number_in(int, 1)
whole = number_in(int, 0)
seconds = number_in(float, 0)
frame_rate = number_in(float, 0.001, 1000)  #: Frames per second
threads = number_in(int, 1, 256)  #: As the node's parameter `num_threads`
limit = number_in(int, 1, 1000)  #: For the counts of `DetectorSettings`
engine = checked(parse_engine)
policy = checked(parse_policy)


def named_file(text: str, kind: Callable[[str], Any] = Path) -> tuple[str, Any]:
    """Read ``NAME=FILE``; `kind` converts the file."""
    name, _, path = text.partition('=')
    if not name or not path:
        raise argparse.ArgumentTypeError(f'is {text!r}, must be NAME=FILE')
    return name, kind(path)


def refuse_same_names(option: str, files: Sequence[tuple[str, Any]]) -> None:
    """Raise InputError if two ``NAME=FILE`` of an option have the same name."""
    names = [name for name, _ in files]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'{option}: {name!r} stands for two files; give each its own name')


def _jobs(text: str) -> int:
    return (os.cpu_count() or 1) if text == 'auto' else positive(text)


_log = logging.getLogger(__name__)


def add_engine(group: Group) -> None:
    """Add `--jobs` and `--engine`."""
    group.add_argument('--jobs', type=_jobs, default=1, metavar='N|auto',
                       help='processes; auto: one per core (default 1)')
    group.add_argument('--engine', type=engine, metavar='ENGINE',
                       help='local (default), ray or ray=ADDRESS')


def engine_of(options: argparse.Namespace) -> Engine:
    """Return the engine that the options name; with Ray, `--jobs` counts from 2 on."""
    processes = options.jobs
    if options.engine is not None and processes == 1:
        processes = None
    gpu = str(getattr(options, 'device', '')).startswith('cuda')
    return Engine(options.engine, processes, options.threads, 1 if gpu else 0)


@contextmanager
def outputs_at(options: argparse.Namespace, *names: str) -> Iterator[None]:
    """Replace URLs in the options by local files; copy the files to their URLs at the end."""
    with ExitStack() as stack:
        for name in names:
            where = getattr(options, name)
            if isinstance(where, Url):
                setattr(options, name, stack.enter_context(_put_later(where)))
                setattr(options, f'{name}_url', where)
        yield


def asked_output(options: argparse.Namespace) -> Url | None:
    """Return the URL to which `outputs_at` copies `--output`; None for a local file."""
    return getattr(options, 'output_url', None)


@contextmanager
def _put_later(url: Url) -> Iterator[Path]:
    path = scratch() / url.name
    try:
        yield path
    finally:
        # An interrupted run leaves a partial file, which is copied as well.
        for written, place in ((path, url),
                               (path.with_name(f'{path.name}.part'), Url(f'{url}.part'))):
            if written.exists():
                put(written, place)
                _log.info('put: %s', place)
