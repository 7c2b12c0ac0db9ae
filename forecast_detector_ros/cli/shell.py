# SPDX-License-Identifier: Apache-2.0
"""
The common part of all verbs: exit codes, errors as one line, the log, and progress.

Progress is a bar in a terminal; otherwise it is a line of the log from time to time.
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
FAILURE = 1  #: The work was completed, and its result is a failure
BAD_INPUT = 2
INTERRUPTED = 130

LOG_FORMAT = '%(asctime)s %(levelname)s: %(message)s'

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class VerbFailedError(Exception):
    """The result is a failure; one line says why."""


class Command(NamedTuple):
    """A verb in a module with several; a verb with its own module has these as functions."""

    main: Callable[[Sequence[str] | None], int]  #: Takes the arguments, returns the exit code
    make_parser: Callable[[], argparse.ArgumentParser]


#: Form of ``--help``: most options in one line of 80 columns.
help_format = partial(argparse.HelpFormatter, max_help_position=33)


def verb_parser(verb: str, arguments: str, about: str | None, epilog: str | None = None
                ) -> argparse.ArgumentParser:
    """
    Make the parser of a verb, with the options that all verbs have.

    :param verb: as the user types it
    :param arguments: required arguments, as shown in the line of usage
    :param about: description of the verb; only the first paragraph is used
    :param epilog: text after the options
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
    """Return the text after `usage:` of a verb, in several lines if it is long."""
    words = ' '.join(filter(None, (PROGRAM, verb, arguments, '[options]')))
    return fill(words, 80 - len('usage: '), subsequent_indent=' ' * 7, break_on_hyphens=False)


def print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    """Print the result of a verb as text, or with `--json` as plain values in one line."""
    print(dumps(result, allow_nan=False) if options.json else text, flush=True)


def tell_written(text: str, *places: object) -> str:
    """Append a line with the written files to the text of a result, if there are any."""
    return f'{text}\n\nwritten: {", ".join(map(str, places))}' if places else text


def run_verb(verb: str, options: argparse.Namespace,
             work: Callable[[argparse.Namespace], int | None],
             expected: tuple[type[Exception], ...] = (),
             failures: tuple[type[Exception], ...] = (), interrupted: str = 'interrupted',
             level: int = logging.INFO, files: Sequence[str] = ()) -> int:
    """
    Do the work of a verb, if its results can be written.

    :param verb: as the user typed it
    :param work: returns the exit code, or None for `DONE`
    :param expected: further errors that mean bad input
    :param failures: errors that mean `FAILURE`
    :param interrupted: message after Ctrl-C
    :param level: level of the log without `--quiet`
    :param files: options that name files to write; if `output` is not one, it names a folder
    :returns: one of the exit codes above; each error is one line on stderr
    """
    caught: tuple[type[BaseException], ...] = (InputError, *expected)
    failed: tuple[type[BaseException], ...] = (VerbFailedError, *failures)
    # A file name may contain characters that the terminal's encoding lacks.
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
        # The reader of the pipe, such as head, has ended. Python would report it again at its end.
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
    Raise InputError before the work if the results could not be written after it.

    :param option: the option that names the path, as the user types it
    :param folder: whether the path must be a folder, which may exist; else it must be a file
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
        # The target of a link need not exist.
        place = (Path(os.path.realpath(place)) if place.is_symlink() else place).parent
    if not place.is_dir():
        return f'{place} is a file'
    # Only writing a file shows that a file system is read-only or does not store ordinary files.
    with TemporaryFile(dir=place):
        return None


def command_line(verb: str, args: Sequence[str]) -> str:
    """Return the command line that gives the same result again."""
    return shlex.join([PROGRAM, *verb.split(), *args])


def say(verb: str, text: object) -> None:
    """Print a message on stderr, independent of the log's level."""
    print(f'{verb}: {text}', file=sys.stderr)


def start_log(level: int = logging.INFO) -> None:
    """Log to stderr in the common format, also when a progress bar replaces `sys.stderr`."""
    logging.basicConfig(format=LOG_FORMAT, handlers=[_Stderr()], level=level)


class _Stderr(logging.StreamHandler[TextIO]):

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the present `sys.stderr`."""
        return sys.stderr


LINE_EVERY_S = 10.0  #: Seconds between lines of progress without a terminal

_log = logging.getLogger(__name__)

#: Called with the number of finished steps and of all steps, 0 if unknown.
Show = Callable[[int, int], None]


@contextmanager
def show_progress(title: str) -> Iterator[Show]:
    """Yield a function to call after each step with (done, total); it follows the log's level."""
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
    """Return a function to call after each step of a job, with the job, done and total."""
    steps: dict[int, tuple[int, int]] = {}

    def tell(job: 'Job', done: int, total: int) -> None:
        steps[job.number] = done, total
        # Jobs that have not begun are assumed to have the mean length of the others.
        known = sum(total for _, total in steps.values())
        show(sum(done for done, _ in steps.values()), known * jobs // len(steps))

    return tell


class _Lines:
    """Logs a line if the last line is old; the rate is measured from the first step on."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        # A job whose process was lost begins again, so `done` may become smaller.
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
