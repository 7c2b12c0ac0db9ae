# SPDX-License-Identifier: Apache-2.0
"""Show a run of the detector, or two side by side, as one HTML file."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from ..report.html_report import load_for_report, REPORT_NAME, write_report
from ..report.run_record import RunRecordError

FAILURE = 1
BAD_INPUT = 2


def main(args: Sequence[str] | None = None) -> int:
    """Run the program; 0, or after one line on stderr 2 for bad input, 1 for a full disk."""
    options = _parser().parse_args(args)
    paths = [options.run, *([options.compare] if options.compare else [])]
    output = options.output or (options.run if options.run.is_dir()
                                else options.run.parent) / (
        'comparison.html' if options.compare else REPORT_NAME)
    try:
        write_report(output, [load_for_report(path) for path in paths])
    except RunRecordError as error:
        print(f'report: {error}', file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f'report: {error.filename}: {error.strerror}', file=sys.stderr)
        return FAILURE
    print(f'written: {output}')
    return 0


def add_report(program: str, folder: Path) -> None:
    """Put a report into a folder of results; the results are as good without it."""
    try:
        write_report(folder / REPORT_NAME, [load_for_report(folder)])
    except RunRecordError as error:
        print(f'{program}: no report: {error}', file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='report', description=__doc__)
    parser.add_argument('run', type=Path, metavar='RUN',
                        help='folder that replay_bag or demo wrote, or the file of evaluate --run')
    parser.add_argument('--compare', type=Path, metavar='OTHER', help='a second run beside it')
    parser.add_argument('--output', type=Path, metavar='FILE',
                        help=f'default: {REPORT_NAME}, or comparison.html, beside the run')
    return parser


if __name__ == '__main__':
    sys.exit(main())
