# SPDX-License-Identifier: Apache-2.0
"""Measure the time of the detector and its parts, compared with other detectors."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import json
import logging
import os
from pathlib import Path
import selectors
import signal
from statistics import median
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Any

from .graph import Child, ChildError, environment, node_command, yaml_text
from .options import add_checkpoint, add_device, frame_rate, positive
from .results import machine, versions
from .shell import (
    command_line,
    DONE,
    FAILURE,
    print_result,
    run_verb,
    say,
    show_progress,
    tell_written,
    verb_parser,
)
from ..benchmark.document import (
    benchmark_markdown,
    benchmark_text,
    changes_text,
    compare_runs,
    compare_starts,
    verdicts,
)
from ..benchmark.peers import OnnxPeer, PeerError, TORCHVISION
from ..benchmark.plots import write_plots
from ..benchmark.run import BenchmarkOptions, DEFAULT_BATCHES, default_builds, measure_run
from ..benchmark.steps import Build, SIZES
from ..detector.backends.torch_backend import resolve_device
from ..detector.checkpoint import default_checkpoint, RuntimeConfigError
from ..files import bundled_clip, write_atomically, write_json
from ..plain_values import PlainJsonError, read_plain_json

FORMAT = 'forecast_detector_ros/benchmark/1'  #: Value of the key `format` of the JSON file

VERB = 'benchmark'

_log = logging.getLogger(__name__)


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; its exit code is 1 for a regression (`--compare`) or a missed target."""
    given = list(sys.argv[1:] if args is None else args)
    options = make_parser().parse_args(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_verb(VERB, options, lambda chosen: _tell(
        chosen, _read(chosen.load) if chosen.load else _measure(chosen, given)),
        (ChildError, ImportError), files=('output', 'report'))


def _measure(options: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    before = _read(options.compare) if options.compare else None
    clip = options.video or bundled_clip()
    checkpoint = options.checkpoint or default_checkpoint()
    about = {'format': FORMAT, 'machine': machine(), 'versions': versions(
        'onnx', 'onnxruntime', 'openvino'),
        'command': command_line(VERB, given),
        'checkpoint': checkpoint.name, 'clip': clip.name}
    device = str(resolve_device(options.device))
    builds = [replace(build, device=device) for build in dict.fromkeys(options.build or ())]
    chosen = BenchmarkOptions(
        checkpoint, clip, builds or default_builds(device), tuple(options.batches),
        options.rounds, tuple(dict.fromkeys(options.peers)),
        tuple(map(OnnxPeer.parse, options.peer_onnx)),
        not options.no_parts)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
    # The nodes come first: if they cannot run, no other measurement is lost.
    nodes: dict[str, Any] = {}
    if options.start_up:
        nodes['start'] = measure_start(
            {'checkpoint': yaml_text(checkpoint)}, options.start_up,
            lambda what: print(f'node: {what}', file=sys.stderr, flush=True))
    if options.graph:
        with tempfile.TemporaryDirectory(prefix='benchmark_') as folder:
            nodes['graph'] = measure_graph(GraphOptions(
                clip.resolve(), {'checkpoint': yaml_text(checkpoint)}, options.sizes,
                options.transports, options.frames, rate=options.rate), Path(folder),
                lambda what: _log.info('end to end: %s', what))
    with show_progress('rounds') as show:
        run = measure_run(chosen, show)
    return {**about, **run, **nodes, 'before': before}


def _tell(options: argparse.Namespace, run: dict[str, Any]) -> int:
    before = run.pop('before', None)
    if options.load and options.compare:
        before = _read(options.compare)
    if options.output:
        write_json(options.output, run, nan=True)
    if options.report:
        images = options.report.parent / 'images'
        images.mkdir(parents=True, exist_ok=True)
        plots = [f'{images.name}/{name}' for name in write_plots(run, images)]
        write_atomically(options.report, benchmark_markdown(run, plots).encode())
    text, result, code = benchmark_text(run), run, DONE
    if before is not None:
        changes = [*compare_runs(before['timings'], run['timings']),
                   *compare_starts(before.get('start') or (), run.get('start') or ())]
        text += f'\n\n{changes_text(changes)}'
        result = {**run, 'changes': [asdict(change) for change in changes]}
        worse = [change.name for change in changes if change.regressed]
        if worse:
            say(VERB, f'worse, {len(worse)} of {len(changes)} figures: {"; ".join(worse)}')
            code = FAILURE
    if options.targets:
        found = verdicts(run)
        missed = [verdict.target.name for verdict in found if verdict.met is False]
        if missed:
            say(VERB, f'missed, {len(missed)} of {len(found)} targets: {"; ".join(missed)}')
            code = FAILURE
        absent = [verdict.target.name for verdict in found if verdict.met is None]
        if absent:
            say(VERB, f'not measured, {len(absent)} of {len(found)} targets: {"; ".join(absent)}')
    print_result(options, result, tell_written(
        text, *filter(None, (options.output, options.report))))
    return code


def _read(path: Path) -> dict[str, Any]:
    try:
        run = read_plain_json(path)
    except PlainJsonError as error:
        raise PeerError(str(error)) from None
    if not isinstance(run, dict) or run.get('format') != FORMAT:
        raise PeerError(f'{path}: no benchmark: its format must be {FORMAT}')
    for key in ('machine', 'versions', 'timings', 'default_backend'):
        if key not in run:
            raise PeerError(f'{path}: no whole benchmark: {key} is missing')
    return run


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(
        VERB, '', __doc__, epilog='Everything is timed in turns within one '
        'process, so ratios are valid on a noisy machine. docs/reference/benchmark.md '
        'describes each row.')
    add_checkpoint(parser)
    parser.add_argument('--video', type=Path, metavar='FILE',
                        help='video whose frames are used (default bikes.mp4)')
    parser.add_argument('--build', type=_build, action='append', metavar='B[:PRECISION[:THREADS]]',
                        help='build to measure, such as openvino:bf16:2; repeatable (default: '
                        'all that run here, the fastest first)')
    add_device(parser)
    parser.add_argument('--batches', type=positive, nargs='*', metavar='N',
                        default=DEFAULT_BATCHES, help='streams in a batch '
                        f'(default {" ".join(map(str, DEFAULT_BATCHES))})')
    parser.add_argument('--peers', nargs='*', choices=tuple(TORCHVISION), metavar='NAME',
                        default=tuple(TORCHVISION),
                        help=f'detectors of torchvision (default {" ".join(TORCHVISION)})')
    parser.add_argument('--peer-onnx', action='append', default=[], metavar='FILE:SIDE',
                        help='other detector, such as yolo11n.onnx:320; repeatable')
    parser.add_argument('--rounds', type=positive, default=60, metavar='N',
                        help='timed runs of each detector (default %(default)s)')
    parser.add_argument('--no-parts', action='store_true',
                        help='do not measure the parts and whole frames')
    graph = parser.add_argument_group('end to end (needs ROS 2)')
    graph.add_argument('--graph', action='store_true',
                       help='measure the node with a camera and a subscriber, too')
    graph.add_argument('--sizes', nargs='+', choices=tuple(SIZES), default=tuple(SIZES),
                       metavar='SIZE', help=f'sizes of the images (default {" ".join(SIZES)})')
    graph.add_argument('--transports', nargs='+', choices=('raw', 'compressed'), metavar='NAME',
                       default=('raw', 'compressed'),
                       help='transports of the images (default raw compressed)')
    graph.add_argument('--frames', type=positive, default=240, metavar='N',
                       help='frames of each measurement (default %(default)s)')
    graph.add_argument('--rate', type=frame_rate, default=30.0, metavar='HZ',
                       help='frame rate of the camera (default %(default)s)')
    start = parser.add_argument_group("the node's start (needs ROS 2)")
    start.add_argument('--start-up', type=positive, nargs='?', const=5, metavar='N',
                       help='measure N starts of the node (without N: 5)')
    results = parser.add_argument_group('results')
    results.add_argument('--output', type=Path, metavar='FILE', help='write JSON')
    results.add_argument('--report', type=Path, metavar='FILE',
                         help='write Markdown, and plots into images/')
    results.add_argument('--load', type=Path, metavar='FILE',
                         help='measure nothing; take the JSON of an earlier run')
    results.add_argument('--compare', type=Path, metavar='FILE',
                         help='exit with 1 if a figure is worse than in this JSON')
    results.add_argument('--targets', action='store_true',
                         help='exit with 1 when a target is missed')
    return parser


def _build(text: str) -> Build:
    try:
        return Build.parse(text)
    except RuntimeConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


POLICIES = ('always_read', 'alternate(1)', 'forecast')  #: `forecast` reads the first frame alone

LONGEST_S = 400.0  #: For one measurement, the start of the detector included


@dataclass(frozen=True)
class GraphOptions:
    """The settings of the measurement end to end."""

    source: Path  #: Video of the pictures

    #: Parameters of the detector, name -> value as in `-p name:=value`.
    detector: Mapping[str, str]
    sizes: Sequence[str] = tuple(SIZES)
    transports: Sequence[str] = ('raw', 'compressed')
    frames: int = 240  #: Measured pictures of each measurement
    warm_up: int = 60  #: Pictures before them, which are not measured
    rate: float = 30.0


def measure_graph(options: GraphOptions, folder: Path,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Measure the detector, and a subscriber that does nothing, for each transport and size.

    :param folder: existing folder for the logs of the processes
    :param progress: called with the name of the next measurement
    :returns: one row per measurement: `node`, `transport`, `size`, `policy`, and the figures of
        `benchmark_camera`
    :raises ChildError: if a process fails
    """
    rows = []
    variables = environment(folder)
    for transport in options.transports:
        for node, module, parameters, policies in (
                ('detector', 'detector_node', {'autostart': 'true', **options.detector}, POLICIES),
                ('bare', 'bare_subscriber', {}, ('none',))):
            command = node_command(module, {'image_transport': transport, **parameters})
            child = Child(node, command, folder / f'{node}_{transport}.log', variables)
            try:
                for size in options.sizes:
                    for policy in policies:
                        progress(f'{node}, {size}, {transport}, {policy}')
                        figures = _camera(options, child, transport, size, policy, variables)
                        child.check()
                        rows.append({'node': node, 'transport': transport, 'size': size,
                                     'policy': policy, 'rate': options.rate, **figures})
            finally:
                child.end()
    return rows


def _camera(options: GraphOptions, child: Child, transport: str, size: str, policy: str,
            variables: Mapping[str, str]) -> dict[str, Any]:
    height, width = SIZES[size]
    command = node_command('benchmark_camera', {
        'source': yaml_text(options.source), 'height': height, 'width': width,
        'rate': repr(float(options.rate)), 'frames': options.frames, 'warm_up': options.warm_up,
        'image_transport': transport, 'pid': child.pid,
        'policy': "''" if policy == 'none' else policy})
    try:
        done = subprocess.run(command, env=dict(variables), capture_output=True, text=True,
                              timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise ChildError(f'the camera was not done after {LONGEST_S:g} s') from None
    if done.returncode != 0:
        child.check()
        raise ChildError(f'the camera ended with exit code {done.returncode}: '
                         f'{" ".join(done.stderr.split())[-500:]}; the {child.name}: '
                         f'{child.last_words()}')
    return json.loads(done.stdout.strip().splitlines()[-1])


LONGEST_START_S = 300.0  #: For one start, seconds

ACTIVE = b'active: '  #: Text in the node's log when it receives images

COLD, WARM = 'cold', 'warm'


def measure_start(detector: Mapping[str, str], starts: int,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Start the node once with empty caches, then several times with the caches of that start.

    The caches are the detector's own and OpenVINO's. The system's file cache is not emptied.

    :param detector: parameters of the node, name -> value as in `-p name:=value`
    :param starts: starts with full caches, at least 1; the row has their medians
    :param progress: called with the name of the next start
    :returns: one row for `cache` ``cold`` and one for ``warm``: `seconds` until the node is
        active, `cpu_seconds` of all its threads, `memory_mb` (resident, 10^6 bytes), `starts`
    :raises ChildError: if the node does not become active
    """
    with tempfile.TemporaryDirectory(prefix='benchmark_start_') as folder:
        variables = {**environment(Path(folder)),
                     'XDG_CACHE_HOME': str(Path(folder) / 'cache'),
                     'RCUTILS_LOGGING_USE_STDOUT': '1',
                     'RCUTILS_CONSOLE_OUTPUT_FORMAT': '{message}'}
        rows = []
        for cache, count in ((COLD, 1), (WARM, starts)):
            found = []
            for number in range(count):
                progress(f'{cache} start {number + 1} of {count}')
                found.append(_start(detector, variables, Path(folder) / 'node.log'))
            rows.append({'cache': cache, 'starts': count, **{
                key: median(one[key] for one in found) for key in found[0]}})
        return rows


def _start(detector: Mapping[str, str], variables: Mapping[str, str], log: Path
           ) -> dict[str, float]:
    command = node_command('detector_node', {'autostart': 'true', **detector})
    start = perf_counter()
    child = Child('detector', command, log, variables, piped=True)
    try:
        said = _read_until(child, ACTIVE, start + LONGEST_START_S)
        seconds = perf_counter() - start
        if ACTIVE not in said:
            lines = said.decode(errors='replace').strip().splitlines()
            raise ChildError('the detector did not become active: '
                             + (lines[-1] if lines else child.last_words()))
        return {'seconds': seconds, 'cpu_seconds': child.processor_s,
                'memory_mb': _resident_bytes(child.pid) / 1e6}
    finally:
        child.end()


def _read_until(child: Child, words: bytes, until: float) -> bytes:
    """Return the output up to `words`; if it ends before, or at the time `until`, all of it."""
    read = b''
    with selectors.DefaultSelector() as selector:
        selector.register(child.output, selectors.EVENT_READ)
        while words not in read:
            if not selector.select(max(0.0, until - perf_counter())):
                break
            if not (data := os.read(child.output.fileno(), 2**16)):
                break
            read += data
    return read


def _resident_bytes(pid: int) -> int:
    """Return the resident set of a process (proc(5), field 2 of statm)."""
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
