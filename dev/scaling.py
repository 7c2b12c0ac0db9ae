# SPDX-License-Identifier: Apache-2.0
"""Measure how replaying many bags scales on this machine: dev.scaling; prints a table."""
from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter

from forecast_detector_ros.files import bundled_clip

WAYS = {'1 process': ('--jobs', '1'), '2 processes': ('--jobs', '2'),
        'Ray, 2 cores': ('--engine', 'ray', '--jobs', '2')}


def seconds(bags: Path, output: Path, options: tuple[str, ...]) -> float:
    """Replay the bags; return the seconds of the whole command with its start and report."""
    start = perf_counter()
    subprocess.run([sys.executable, '-m', 'forecast_detector_ros.cli', 'replay', bags, '--quiet',
                    '--latency', 'read=20,forecast=4', '--output', output, *options],
                   check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def main() -> int:
    """Write the bags, replay them in each way, and print the table."""
    parser = argparse.ArgumentParser(prog='dev.scaling', description=__doc__)
    parser.add_argument('--bags', type=int, default=8, metavar='N',
                        help='copies of the demo clip (default %(default)s)')
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        first = Path(scratch) / 'bags/bag0'
        first.parent.mkdir()
        subprocess.run([sys.executable, '-m', 'dev.clip_bag', bundled_clip(), first], check=True,
                       stdout=subprocess.DEVNULL)
        for number in range(1, options.bags):
            shutil.copytree(first, first.with_name(f'bag{number}'))
        print(f'| {options.bags} bags of the demo clip | s | bags/min | speed-up |')
        print('| --- | --- | --- | --- |')
        alone = None
        for name, way in WAYS.items():
            if 'ray' in way and find_spec('ray') is None:
                print(f'| {name} | Ray is not installed | | |')
                continue
            took = seconds(first.parent, Path(scratch) / 'output', way)
            alone = alone or took
            print(f'| {name} | {took:.1f} | {60 * options.bags / took:.1f} | '
                  f'{alone / took:.2f} |', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
