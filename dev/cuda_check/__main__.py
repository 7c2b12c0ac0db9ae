# SPDX-License-Identifier: Apache-2.0
"""
Run all parts within a time limit, and write their results as JSON and Markdown.

Every part is a process with its own time limit. A part that fails or hangs does not affect the
others, nor its earlier results.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic, sleep
from typing import Any

from forecast_detector_ros.layout import markdown

ROOT = Path(__file__).resolve().parents[2]

FORMAT = 'forecast_detector_ros/cuda_check/1'

DEFAULT_LIMIT = 150.0  #: Seconds for all parts together

LARGEST_LIMIT = 240.0

DRY_LIMIT = 3600.0  #: Seconds; long, because a busy processor is no failure

LEAST = 8.0  #: Fewest remaining seconds at which a part is started

#: Parts by turns, which run one after the other; the parts of a turn run at the same time.
TURNS = (('machine',), ('precisions', 'tests'), ('speed',), ('preprocess',),
         ('compile', 'onnx'))

#: Seconds of each part, for `DEFAULT_LIMIT`; other limits scale them.
LIMITS = {'machine': 40.0, 'precisions': 45.0, 'tests': 45.0, 'speed': 75.0, 'preprocess': 25.0,
          'compile': 75.0, 'onnx': 75.0}


@dataclass
class _Running:
    """A part that has been started."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    log: Path
    start: float
    limit: float
    late: bool = False
    seconds: float = 0.0


def main(args: Sequence[str] | None = None) -> int:
    """Run; return 0 if every part is done, 1 if one is not, 2 for a wrong argument."""
    options = _parser().parse_args(args)
    most = DRY_LIMIT if options.dry_run else LARGEST_LIMIT
    if not LEAST <= options.limit <= most:
        print(f'cuda_check: error: limit is {options.limit:g}, must be from {LEAST:g} to '
              f'{most:g} seconds', file=sys.stderr)
        return 2
    # SIGTERM must end the parts, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = monotonic()
    folder: Path = options.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f'cuda_check: error: {folder}: {error.strerror}', file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        'format': FORMAT, 'dry_run': options.dry_run, 'limit_s': options.limit, 'parts': {}}
    wanted = options.parts or [name for turn in TURNS for name in turn]
    for turn in TURNS:
        running: list[_Running] = []
        for name in turn:
            left = options.limit - (monotonic() - begin)
            if name not in wanted:
                continue
            if left < LEAST:
                report['parts'][name] = {'status': 'left out', 'why': 'no time was left'}
                continue
            limit = min(left - 2.0, LIMITS[name] * options.limit / DEFAULT_LIMIT)
            running.append(_start(name, folder, limit, options.dry_run))
        try:
            for part in _ended(running):
                report['parts'][part.name] = _found(part)
                state = report['parts'][part.name]
                print(f'cuda_check: {part.name}: {state["status"]}, {state["seconds"]} s'
                      + (f': {state["why"]}' if 'why' in state else ''), file=sys.stderr,
                      flush=True)
        finally:
            for part in running:
                _kill(part.process)
        report['seconds'] = round(monotonic() - begin, 1)
        (folder / 'cuda_check.json').write_text(json.dumps(report, indent=1) + '\n')
        (folder / 'cuda_check.md').write_text(as_markdown(report))
    print(as_markdown(report))
    return 0 if all(part['status'] == 'done' for part in report['parts'].values()) else 1


def _start(name: str, folder: Path, limit: float, dry_run: bool) -> _Running:
    output, log = folder / f'{name}.json', folder / f'{name}.log'
    output.unlink(missing_ok=True)
    command = [sys.executable, '-m', 'dev.cuda_check.parts', name, '--output', str(output),
               '--seconds', f'{limit:.1f}', *(['--dry-run'] if dry_run else [])]
    with log.open('wb') as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream,
                                   start_new_session=True)
    return _Running(name, process, output, log, monotonic(), limit)


def _ended(running: list[_Running]) -> Iterator[_Running]:
    """Yield each part when it ends, by itself or at its time limit."""
    left = list(running)
    while left:
        for part in list(left):
            part.seconds = round(monotonic() - part.start, 1)
            part.late = part.process.poll() is None and part.seconds > part.limit
            if part.late:
                _kill(part.process)
            if part.process.poll() is not None:
                left.remove(part)
                yield part
        sleep(0.05)


def _found(part: _Running) -> dict[str, Any]:
    """Return the results of a part, and its status."""
    found: dict[str, Any] = {'status': 'done', 'seconds': part.seconds}
    try:
        found.update(json.loads(part.output.read_text()))
    except (OSError, ValueError):
        found['notes'] = ['nothing was found']
    if part.late:
        found.update(status='out of time', why=f'ended after {part.limit:.0f} s')
    elif part.process.returncode:
        found.update(status='failed', why=_last_line(part.log, part.process.returncode))
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a part and its child processes, if it has not ended."""
    if process.poll() is not None:
        return
    for number, wait in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        sleep(wait)
    process.wait()


def _last_line(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()
             if line.strip()]
    return f'exit code {code}: {lines[-1][:300]}' if lines else f'exit code {code}'


TITLES = {'machine': 'Machine', 'tests': 'Tests',
          'precisions': 'Precisions against fp32 on the processor',
          'speed': 'Steps, frames and other detectors', 'preprocess': 'Before the network',
          'compile': 'torch.compile', 'onnx': "ONNX Runtime's providers"}

TIMING = ('name', 'batch', 'median_ms', 'p95_ms', 'noise', 'runs')


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return the report of a run, which may be unfinished."""
    what = 'A dry run on the processor' if report['dry_run'] else 'A check on a CUDA device'
    lines = [f'# {what}', '', f'{report["seconds"]} s of at most {report["limit_s"]:g} s.', '']
    lines += _table(('part', 'status', 'seconds', 'why'),
                    [[name, part['status'], part.get('seconds', ''), part.get('why', '')]
                     for name, part in report['parts'].items()])
    for name, part in report['parts'].items():
        lines += ['', f'## {TITLES[name]}', '']
        facts = part.get('facts', {})
        if facts:
            lines += _table(('', ''), [[key, value] for key, value in facts.items()])
            lines.append('')
        for key, rows in part.get('tables', {}).items():
            if rows:
                head = TIMING if key == 'timings' else tuple(rows[0])
                lines += [f'{key}:', '',
                          *_table(head, [[row.get(column, '') for column in head]
                                         for row in rows]), '']
        lines += [f'- {note}' for note in part.get('notes', ())]
    return '\n'.join(lines).rstrip() + '\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return markdown([[_cell(cell) for cell in row] for row in (head, *rows)]).splitlines()


def _cell(value: Any) -> str:
    text = f'{value:.3g}' if isinstance(value, float) else str(value)
    return ' '.join(text.split()).replace('|', '\\|')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='cuda_check', description=__doc__.splitlines()[1])
    parser.add_argument('--output', type=Path, default=Path('cuda_check_output'),
                        metavar='FOLDER', help='default: %(default)s')
    parser.add_argument('--limit', type=float, default=DEFAULT_LIMIT, metavar='SECONDS',
                        help=f'for all parts together, up to {LARGEST_LIMIT:g} '
                        '(default: %(default)g)')
    parser.add_argument('--dry-run', action='store_true',
                        help='the same on the processor, with small counts')
    parser.add_argument('--parts', nargs='+', choices=tuple(LIMITS), metavar='PART',
                        help='some of ' + ', '.join(LIMITS))
    return parser


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
