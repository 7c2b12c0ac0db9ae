# SPDX-License-Identifier: Apache-2.0
"""Play a video through camera, detector and recorder, three processes connected by ROS 2."""
from __future__ import annotations

import argparse
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from itertools import count
import json
import logging
from pathlib import Path
import signal
import sys
import time
from typing import TextIO

from .graph import ChildError, DemoGraph, DemoOptions, yaml_text
from .options import add_checkpoint, add_hardware, add_policy, fraction, number_in
from .report import add_report
from .results import figure_lines, machine, ResultFolder, versions
from .shell import command_line, DONE, FAILURE, print_result, run_verb, say, verb_parser
from ..detector.checkpoint import SHIPPED
from ..detector.policy import FORECAST, READ
from ..errors import InputError, MissingLibraryError
from ..files import bundled_clip, write_json
from ..recording.recorded_frame import DROPPED, KINDS, RecordedFrame, summarise_frames
from ..report.noted_frames import record_recording
from ..report.report_figures import plot_decisions
from ..report.run_record import RUN_NAME, save_run

try:
    from rich.live import Live
    from rich.table import Table
    RICH = True
except ImportError:
    RICH = False

ROWS = 16
COLUMNS = ('frame', 'decision', 'reason', 'confidence', 'boxes', 'latency ms', 'found')
STYLES = {READ: 'blue', FORECAST: 'red', DROPPED: 'dim'}
LINE = '{:>5}  {:<8}  {:<15}  {:>10}  {:>5}  {:>10}  {}'


Show = Callable[[RecordedFrame], None]  #: Shows the next frame


def cells(number: int, record: RecordedFrame) -> tuple[str, ...]:
    """Return the text of each column of COLUMNS for frame `number`."""
    found = Counter(record.labels)
    return (
        str(number), record.kind, record.reason or '',
        '' if record.confidence is None else f'{record.confidence:.3f}',
        '' if record.dropped else str(len(record.labels)),
        '' if record.latency_ms is None else f'{record.latency_ms:.1f}',
        ', '.join(f'{count} {label}' for label, count in found.most_common(4)))


@contextmanager
def show_lines(stream: TextIO) -> Iterator[Show]:
    """Print one line of text per frame, for logs and pipes."""
    numbers = count(1)
    print(LINE.format(*COLUMNS).rstrip(), file=stream, flush=True)
    yield lambda record: print(LINE.format(*cells(next(numbers), record)).rstrip(), file=stream,
                               flush=True)


class LiveTable:
    """The newest frames and the totals, as a table of rich."""

    def __init__(self) -> None:
        """Begin without a frame."""
        self._totals: Counter[str] = Counter()
        self._rows: deque[tuple[str, tuple[str, ...]]] = deque(maxlen=ROWS)

    def show(self, record: RecordedFrame) -> None:
        """Add a frame."""
        self._totals[record.kind] += 1
        self._rows.append((record.kind, cells(self._totals.total(), record)))

    def table(self) -> Table:
        """Draw the table."""
        totals = '   '.join(f'{kind} {self._totals[kind]}' for kind in KINDS)
        table = Table(caption=f'{self._totals.total()} frames:   {totals}', expand=False)
        for column in COLUMNS:
            numeric = column in ('frame', 'confidence', 'boxes', 'latency ms')
            table.add_column(column, justify='right' if numeric else 'left', no_wrap=True)
        for kind, row in self._rows:
            table.add_row(*row, style=STYLES[kind])
        return table


@contextmanager
def open_display(plain: bool = False) -> Iterator[Show]:
    """Show frames in a table; as lines if `plain`, or without a terminal or rich."""
    if plain or not RICH or not sys.stdout.isatty():
        with show_lines(sys.stdout) as show:
            yield show
        return
    table = LiveTable()
    with Live(get_renderable=table.table, refresh_per_second=8):
        yield table.show


VERB = 'demo'

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the verb.

    :returns: the exit code: 1 without any detection or forecast; 2 also if a process failed
    """
    given = list(sys.argv[1:] if args is None else args)
    chosen = make_parser().parse_args(given)
    # These signals, like Ctrl-C, must end the three processes too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, signal.default_int_handler)
    return run_verb(
        VERB, chosen, lambda options: _run(options, given), (ChildError,),
        interrupted=f'interrupted; the recording so far is in {chosen.output}.part')


#: Packages of ROS 2 that the processes import.
ROS_MODULES = ('rclpy', 'rcl_interfaces', 'sensor_msgs', 'vision_msgs')


def _check(chosen: argparse.Namespace) -> None:
    """Raise errors that the three processes would report only after their start."""
    missing = [name for name in ROS_MODULES if find_spec(name) is None]
    if missing:
        raise MissingLibraryError(
            f'needs ROS 2, of which {", ".join(missing)} cannot be imported: source an '
            'installation, or type `make demo` in the checkout; `replay` needs no ROS')
    if chosen.video and Path(chosen.video).is_dir() and not chosen.rate:
        raise InputError(f'{chosen.video}: a folder of images has no rate of its own; name one '
                         'with --rate HZ')


def _run(chosen: argparse.Namespace, given: list[str]) -> int:
    _check(chosen)
    options = DemoOptions(
        video=str(_existing(chosen.video) if chosen.video else bundled_clip()),
        rate=chosen.rate, transport=chosen.transport, detector=_detector_parameters(chosen),
        domain=chosen.domain_id)
    result = ResultFolder(chosen.output)
    started = time.time()
    before = machine()
    _log.info('playing %s; logs of the processes: %s', options.video, result.partial / 'logs')
    records: list[RecordedFrame] = []
    # With --json, stdout has the JSON alone.
    shown = open_display(chosen.plain) if not (chosen.json or chosen.quiet) else nullcontext()
    with DemoGraph(options, result.partial) as graph, shown as show:
        for record in graph.frames():
            records.append(record)
            if show is not None:
                show(record)
    for line in graph.warnings():
        say(VERB, line)
    played = json.loads(graph.report.read_text())
    figures = summarise_frames(records, played['published'])
    summary = {
        **figures,
        'source': {'path': played['source'], 'rate': played['rate'], 'lost': played['loss'],
                   'transport': options.transport},
        'detector_parameters': dict(options.detector),
        'started': time.strftime('%Y-%m-%dT%H:%M:%S%z', time.localtime(started)),
        'duration_s': round(time.time() - started, 1),
        'command': command_line(VERB, given),
        'machine': before,
        'versions': versions(),
    }
    write_json(result.partial / 'summary.json', summary, indent=2)
    plot_decisions(records, result.partial / 'decisions.png',
                   f'{Path(options.video).name}: {figures["read"]} frames read, '
                   f'{figures["forecast"]} forecast, {figures["dropped"]} dropped')
    save_run(result.partial / RUN_NAME, record_recording(
        Path(options.video).name, records, summary['source'], dict(options.detector),
        {**before, **{key: summary[key] for key in ('started', 'command', 'versions')}},
        'annotated.mkv'))
    add_report(VERB, result.partial)
    result.accept()
    print_result(chosen, {**summary, 'output': str(result.path)},
                 _summary_text(figures, result.path, played['loss']))
    return _verdict(figures)


def _summary_text(figures: dict, folder: Path, loss: str | None) -> str:
    lines = [f'{figures["frames_in"]} frames in, {figures["processed"]} processed '
             f'({figures["read"]} read, {figures["forecast"]} forecast), '
             f'{figures["dropped"]} dropped', *figure_lines(figures)]
    if loss:
        lines.append(f'video: {loss}')
    return '\n'.join([*lines, f'written: {folder}/annotated.mkv, bag/, summary.json, '
                      'decisions.png, run.json, report.html'])


def _verdict(figures: dict) -> int:
    missing = [what for what, number in (
        ('detection', figures['boxes']), ('forecast decision', figures['forecast']))
        if not number]
    if missing:
        say(VERB, f'no {" and no ".join(missing)} came out of {figures["processed"]} '
            'processed frames')
        return FAILURE
    return DONE


def _detector_parameters(chosen: argparse.Namespace) -> dict[str, str]:
    parameters: dict[str, str] = {}
    if chosen.policy is not None:
        parameters['policy'] = yaml_text(chosen.policy)
    if chosen.threshold is not None:
        parameters['threshold'] = repr(chosen.threshold)
    if chosen.checkpoint is not None:
        shipped = str(chosen.checkpoint) in SHIPPED and not Path(chosen.checkpoint).exists()
        parameters['checkpoint'] = yaml_text(
            chosen.checkpoint if shipped else _existing(chosen.checkpoint))
    for key in ('device', 'precision', 'backend'):
        parameters[key] = yaml_text(getattr(chosen, key))
    parameters['num_threads'] = str(chosen.threads)
    parameters.update(chosen.param)
    return parameters


def _existing(path: str | Path) -> Path:
    """Return `path` as an absolute path; raises FileNotFoundError, in one line."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise FileNotFoundError(f'{path}: no such file')
    return found


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(':=')
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form name:=value')
    return name, value


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, '', __doc__)
    parser.add_argument('--video', metavar='PATH', help='video file, folder of images or '
                        'V4L2 device (default: bikes.mp4)')
    parser.add_argument('--output', type=Path, default=Path('demo_output'), metavar='FOLDER',
                        help='folder of the results; it is replaced (default %(default)s)')
    add_checkpoint(parser)
    add_policy(parser)
    parser.add_argument('--threshold', type=fraction, metavar='P',
                        help='threshold of the policy; a higher one reads more frames')
    add_hardware(parser)
    parser.add_argument('--rate', type=number_in(float, 0, 1000), default=0.0, metavar='HZ',
                        help="frames per second (default: the video's own)")
    parser.add_argument('--transport', choices=('raw', 'compressed'), default='raw',
                        help='how the images travel (default: %(default)s)')
    parser.add_argument('--param', '-p', type=_assignment, action='append', default=[],
                        metavar='NAME:=VALUE', help='further parameter of the detector')
    parser.add_argument('--domain-id', type=number_in(int, 0, 232), metavar='N',
                        help='ROS_DOMAIN_ID of the demo (default: one of its own)')
    parser.add_argument('--plain', action='store_true',
                        help='print one line per frame even in a terminal')
    return parser
