# SPDX-License-Identifier: Apache-2.0
"""Show a run of the detector, or two side by side, as one HTML file."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .shell import print_result, run_verb, say, verb_parser
from ..report.html_report import load_for_report, REPORT_NAME, write_report
from ..report.run_record import RunRecordError

VERB = 'report'


def main(args: Sequence[str] | None = None) -> int:
    """Run the verb; return its exit code."""
    return run_verb(VERB, make_parser().parse_args(args), _report, files=('output',))


def _report(options: argparse.Namespace) -> None:
    paths = [options.run, *([options.compare] if options.compare else [])]
    output = options.output or (options.run if options.run.is_dir()
                                else options.run.parent) / (
        'comparison.html' if options.compare else REPORT_NAME)
    write_report(output, [load_for_report(path) for path in paths])
    print_result(options, {'output': str(output)}, f'written: {output}')


def add_report(verb: str, folder: Path) -> None:
    """Write a report into a folder of results; a failure is only a message on stderr."""
    try:
        write_report(folder / REPORT_NAME, [load_for_report(folder)])
    except RunRecordError as error:
        say(verb, f'no report: {error}')


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = verb_parser(VERB, 'RUN', __doc__)
    parser.add_argument('run', type=Path, metavar='RUN',
                        help='folder of replay or demo, or file of evaluate accuracy --run')
    parser.add_argument('--compare', type=Path, metavar='OTHER',
                        help='second run, shown beside the first')
    parser.add_argument('--output', type=Path, metavar='FILE',
                        help='HTML file '
                        f'(default: {REPORT_NAME} or comparison.html, in the folder of the run)')
    return parser
