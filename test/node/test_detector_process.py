# SPDX-License-Identifier: Apache-2.0
"""Run the detector as a process: exit codes, signals, and errors of one line."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
import queue
import signal
import subprocess
import sys
import threading
from time import monotonic

import pytest

pytestmark = pytest.mark.slow

PATIENCE_S = 360.0  #: Importing PyTorch takes many seconds on a busy machine


class Program:
    """A running detector whose output is read line by line."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'forecast_detector_ros.node.detector_node', *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            self._queue.put(line)

    def wait_for(self, word: str) -> None:
        """Wait until the program prints a line with this word."""
        deadline = monotonic() + PATIENCE_S
        while word not in self._queue.get(timeout=max(0.0, deadline - monotonic())):
            pass

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        code = self._process.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=PATIENCE_S)
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Return a function that starts the detector; kill the process at the end of the test."""
    programs: list[Program] = []

    def run(*extra: str, **parameters: object) -> Program:
        arguments = [part for name, value in parameters.items()
                     for part in ('-p', f'{name}:={value}')]
        programs.append(Program('--ros-args', *arguments, *extra))
        return programs[-1]

    yield run
    for program in programs:
        program.kill()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_active_node_cleanly(start: Callable[..., Program],
                                             small_checkpoint: Path, number: int) -> None:
    program = start(autostart='true', checkpoint=small_checkpoint)
    program.wait_for('active: /image_raw -> /detections')
    program.signal(number)
    assert program.end() == 0
    assert not any('Traceback' in line or 'ERROR' in line for line in program.lines)


def test_signal_while_the_node_starts_ends_it_cleanly(start: Callable[..., Program],
                                                      small_checkpoint: Path) -> None:
    program = start('--log-level', 'debug', autostart='true', checkpoint=small_checkpoint)
    program.wait_for('')
    program.signal(signal.SIGINT)
    # During imports the signal ends the process directly.
    assert program.end() in (0, -signal.SIGINT)
    assert not any('Traceback' in line or 'ERROR' in line for line in program.lines)


def test_autostart_without_a_checkpoint_ends_with_one_line(start: Callable[..., Program]) -> None:
    program = start(autostart='true', checkpoint='/nowhere/best.safetensors')
    assert program.end() == 1
    (line,) = program.lines
    assert '/nowhere/best.safetensors' in line


HUMBLE = """
import sys
from rclpy.node import Node
del Node.add_post_set_parameters_callback
from forecast_detector_ros.node.detector_node import main
sys.exit(main())
"""


def test_unsupported_distribution_is_one_line(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    done = subprocess.run([sys.executable, '-c', HUMBLE], capture_output=True, text=True,
                          check=False, timeout=PATIENCE_S)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith('ROS 2 humble is not supported, must be Jazzy or later: its rclpy has '
                         'no add_post_set_parameters_callback')


def test_parameter_out_of_range_ends_with_one_line(start: Callable[..., Program]) -> None:
    program = start(num_threads=0)
    assert program.end() == 2
    (line,) = program.lines
    assert 'num_threads' in line
