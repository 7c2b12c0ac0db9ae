# SPDX-License-Identifier: Apache-2.0
"""Check that a signal ends a program at once, or after the program has finished its work."""
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from ..helpers.slow_import import make_slow, PATIENCE_S, signalled_while_importing

NODES = 'forecast_detector_ros.node'


@pytest.mark.parametrize(('node', 'library'), [
    ('camera_node', 'cv2'), ('recorder_node', 'cv2'), ('detector_node', 'rclpy'),
    ('detector_node', 'numpy')])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program_during_imports(
        tmp_path: Path, node: str, library: str, number: int) -> None:
    code, said = signalled_while_importing(
        ['-m', f'{NODES}.{node}'], make_slow(tmp_path, library), number)
    assert code == -number
    assert 'Traceback' not in said


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    head = ('import os, signal, sys\n'
            f'from {NODES}.stop_signal import end_at_once, StopSignal\n')
    return subprocess.run([sys.executable, '-c', head + code], capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)


def test_signal_is_noted_and_does_not_interrupt_work() -> None:
    done = in_child('stop = StopSignal()\n'
                    'print(bool(stop))\n'
                    'os.kill(os.getpid(), signal.SIGTERM)\n'
                    'print(bool(stop))\n')
    assert (done.returncode, done.stdout) == (0, 'False\nTrue\n')


def test_signal_ends_a_program_that_has_nothing_to_finish() -> None:
    done = in_child('stop = StopSignal()\n'
                    'with stop.ending_at_once():\n'
                    '    os.kill(os.getpid(), signal.SIGINT)\n'
                    '    print("goes on")\n')
    assert (done.returncode, done.stdout) == (0, '')


def test_signal_does_not_interrupt_work_after_the_block() -> None:
    done = in_child('stop = StopSignal()\n'
                    'with stop.ending_at_once():\n'
                    '    pass\n'
                    'os.kill(os.getpid(), signal.SIGINT)\n'
                    'print(bool(stop))\n')
    assert (done.returncode, done.stdout) == (0, 'True\n')


def test_program_that_inherited_ignored_signals_is_ended() -> None:
    # Background jobs of a shell ignore SIGINT.
    done = in_child('signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
                    'end_at_once()\n'
                    'os.kill(os.getpid(), signal.SIGINT)\n')
    assert done.returncode == -signal.SIGINT
