# SPDX-License-Identifier: Apache-2.0
"""Options of the verbs that take many inputs: who does the work, and inputs at URLs."""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, ExitStack
import logging
from pathlib import Path

from .options import add_jobs, checked, Group
from ..jobs.engine import Engine, parse_engine
from ..jobs.locations import put, scratch, Url

_log = logging.getLogger(__name__)


def add_engine(group: Group, what: str) -> None:
    """Add `--jobs` and `--engine`; `what` is one job."""
    add_jobs(group, what)
    group.add_argument('--engine', type=checked(parse_engine), metavar='ENGINE',
                       help='local (default), ray, or ray=ADDRESS of a cluster')


def engine_of(options: argparse.Namespace) -> Engine:
    """Return the engine that the options name; with Ray, `--jobs` counts from 2 on."""
    processes = options.jobs
    if options.engine is not None and processes == 1:
        processes = None
    gpu = str(getattr(options, 'device', '')).startswith('cuda')
    return Engine(options.engine, processes, options.threads, 1 if gpu else 0)


@contextmanager
def outputs_at(options: argparse.Namespace, *names: str) -> Iterator[None]:
    """Let options name files of this machine, which are put to their URLs in the end."""
    with ExitStack() as stack:
        for name in names:
            if isinstance(where := getattr(options, name), Url):
                setattr(options, name, stack.enter_context(_put_later(where)))
        yield


@contextmanager
def _put_later(url: Url) -> Iterator[Path]:
    path = scratch() / url.name
    try:
        yield path
    finally:
        # What is left of a run that was interrupted, too.
        for written, place in ((path, url),
                               (path.with_name(f'{path.name}.part'), Url(f'{url}.part'))):
            if written.exists():
                put(written, place)
                _log.info('put: %s', place)
