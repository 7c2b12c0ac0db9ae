# SPDX-License-Identifier: Apache-2.0
"""
The common part of all verbs: exit codes, errors as one line, the log, and progress.

Progress is a bar in a terminal, a line now and then elsewhere.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import errno
from functools import partial
import io
from json import dumps
import logging
import os
from pathlib import Path
import shlex
import sys
from tempfile import TemporaryFile
from textwrap import fill
from time import monotonic
from typing import Any, NamedTuple, TextIO, TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..jobs.engine import Job

PROGRAM = 'forecast-detector'

DONE = 0
FAILURE = 1  #: The work came to its end, and its result is a failure
BAD_INPUT = 2
INTERRUPTED = 130

LOG_FORMAT = '%(asctime)s %(levelname)s: %(message)s'

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class VerbFailedError(Exception):
    """The result is a failure; one line says why."""


class Command(NamedTuple):
    """A verb that shares its module with others; alone, a verb is a module with these two."""

    main: Callable[[Sequence[str] | None], int]  #: Takes the arguments, gives the exit code
    make_parser: Callable[[], argparse.ArgumentParser]  #: Of the options


#: Form of ``--help``: most options in one line of 80 columns.
help_format = partial(argparse.HelpFormatter, max_help_position=33)


def verb_parser(verb: str, arguments: str, about: str | None, epilog: str | None = None
                ) -> argparse.ArgumentParser:
    """
    Make the parser of a verb, with the options that all have.

    :param verb: as the user types it
    :param arguments: what must follow, for the line of usage
    :param about: what the verb does; a module's docstring, of which the first paragraph counts
    :param epilog: behind the options
    """
    parser = argparse.ArgumentParser(
        prog=f'{PROGRAM} {verb}', usage=usage_line(verb, arguments),
        description=(about or '').strip().partition('\n\n')[0], epilog=epilog,
        formatter_class=help_format)
    add_output(parser)
    return parser


def add_output(parser: argparse.ArgumentParser, **more: Any) -> None:
    """Add `--quiet` and `--json`."""
    parser.add_argument('--quiet', action='store_true', help='show only warnings and errors',
                        **more)
    parser.add_argument('--json', action='store_true', help='print the result alone, as JSON',
                        **more)


def usage_line(verb: str, arguments: str) -> str:
    """Give the text behind `usage:` of a verb, in several lines if it is long."""
    words = ' '.join(filter(None, (PROGRAM, verb, arguments, '[options]')))
    return fill(words, 80 - len('usage: '), subsequent_indent=' ' * 7, break_on_hyphens=False)


def print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    """Print the result of a verb: as text, or with `--json` its plain values in one line."""
    print(dumps(result, allow_nan=False) if options.json else text, flush=True)


def tell_written(text: str, *places: object) -> str:
    """Put a last line under the text of a result, which names what was written, if anything."""
    return f'{text}\n\nwritten: {", ".join(map(str, places))}' if places else text


def run_verb(verb: str, options: argparse.Namespace,
             work: Callable[[argparse.Namespace], int | None],
             expected: tuple[type[Exception], ...] = (),
             failures: tuple[type[Exception], ...] = (), interrupted: str = 'interrupted',
             level: int = logging.INFO, files: Sequence[str] = ()) -> int:
    """
    Do the work of a verb, if its results can be written.

    :param verb: as the user typed it
    :param work: gives the exit code, or None for `DONE`
    :param expected: further errors that mean bad input
    :param failures: errors that mean `FAILURE`
    :param interrupted: what to say after Ctrl-C
    :param level: of the log without `--quiet`
    :param files: options that name files to write; another `output` names a folder
    :returns: one of the exit codes above; of every error one line on stderr says what it was
    """
    caught: tuple[type[BaseException], ...] = (InputError, *expected)
    failed: tuple[type[BaseException], ...] = (VerbFailedError, *failures)
    # A file's name may hold what the terminal's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    start_log(max(level, logging.WARNING) if options.quiet else level)
    try:
        for key in dict.fromkeys((*files, 'output')):
            if isinstance(path := getattr(options, key, None), Path):
                check_output(f'--{key}', path, key not in files)
        return work(options) or DONE
    except failed as error:
        say(verb, error)
        return FAILURE
    except caught as error:
        say(verb, error)
        return BAD_INPUT
    except BrokenPipeError:
        # Who read the output has gone, such as `head`. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        say(verb, f'{error.filename}: {error.strerror}' if error.filename else error)
        return FAILURE if error.errno in _NO_ROOM else BAD_INPUT
    except KeyboardInterrupt:
        say(verb, interrupted)
        return INTERRUPTED


def check_output(option: str, path: Path, folder: bool) -> None:
    """
    Raise InputError where results cannot be written: before the work and not after it.

    :param option: that names the path, as the user types it
    :param folder: whether the path is to be a folder, which may be there, and not a file
    """
    try:
        wrong = _obstacle(path, folder)
    except OSError as error:
        wrong = error.strerror
    if wrong:
        raise InputError(f'{option} {path}: cannot be written: {wrong}; name another path')


def _obstacle(path: Path, folder: bool) -> str | None:
    if not folder and path.is_dir():
        return f'{path} is a folder'
    place = path if folder else path.parent
    while not place.exists():
        # A link may lead to what is not there yet.
        place = (Path(os.path.realpath(place)) if place.is_symlink() else place).parent
    if not place.is_dir():
        return f'{place} is a file'
    # Permissions do not tell of file systems that are read-only, or have no files of this kind.
    with TemporaryFile(dir=place):
        return None


def command_line(verb: str, args: Sequence[str]) -> str:
    """Give the line that a user would type to have the same result again."""
    return shlex.join([PROGRAM, *verb.split(), *args])


def say(verb: str, text: object) -> None:
    """Tell the user something on stderr, whatever the log's level."""
    print(f'{verb}: {text}', file=sys.stderr)


def start_log(level: int = logging.INFO) -> None:
    """Log to stderr, in the one format; it may be replaced meanwhile, as a progress bar does."""
    logging.basicConfig(format=LOG_FORMAT, handlers=[_Stderr()], level=level)


class _Stderr(logging.StreamHandler[TextIO]):

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Give what `sys.stderr` is at the time."""
        return sys.stderr


LINE_EVERY_S = 10.0  #: Seconds between lines where there is no terminal

_log = logging.getLogger(__name__)

#: Called with what is done and what there is to do, 0 if unknown.
Show = Callable[[int, int], None]


@contextmanager
def show_progress(title: str) -> Iterator[Show]:
    """Give a function to call after each step, with (done, total); it is silent as the log is."""
    if sys.stderr.isatty() and _log.isEnabledFor(logging.INFO):
        try:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )
        except ImportError:
            pass
        else:
            with Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                          TextColumn('left:'), TimeRemainingColumn(),
                          console=Console(stderr=True)) as bar:
                task = bar.add_task(title, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total or None)
            return
    yield _Lines(title)


def show_many(show: Show, jobs: int) -> Callable[['Job', int, int], None]:
    """Give a function to call after each step of so many jobs, with the job, done and total."""
    steps: dict[int, tuple[int, int]] = {}

    def tell(job: 'Job', done: int, total: int) -> None:
        steps[job.number] = done, total
        # Jobs that have not begun are taken to be as long as the others on average.
        known = sum(total for _, total in steps.values())
        show(sum(done for done, _ in steps.values()), known * jobs // len(steps))

    return tell


class _Lines:
    """Logs a line when the last one is old; the first step counts from where it begins."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        # A job whose process is lost begins anew, and less is done than before.
        if self._first is None or done <= self._first:
            self._first = done - 1
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        if not total:
            _log.info('%s: %d', self._title, done)
            return
        left = round((now - self._start) / (done - self._first) * (total - done))
        _log.info('%s: %d of %d, %d:%02d:%02d left', self._title, done, total, left // 3600,
                  left // 60 % 60, left % 60)
