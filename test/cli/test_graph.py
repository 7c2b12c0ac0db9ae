# SPDX-License-Identifier: Apache-2.0
"""Failed child processes are named, and children never outlive their parent."""
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from forecast_detector_ros.cli.graph import Child, ChildError, end_all, yaml_text
import pytest
import yaml

SLEEP = 'import time; print("up", flush=True); time.sleep(600)'
STUBBORN = ('import signal, time\n'
            'for number in (signal.SIGINT, signal.SIGTERM):\n'
            '    signal.signal(number, signal.SIG_IGN)\n'
            'print("up", flush=True)\n'
            'time.sleep(600)')


def child(tmp_path: Path, program: str, piped: bool = False) -> Child:
    """Start a Python program."""
    return Child('worker', [sys.executable, '-c', program], tmp_path / 'worker.log', os.environ,
                 piped=piped)


def wait_for(condition, what: str) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_failed_child_is_named_with_its_last_words(tmp_path: Path) -> None:
    worker = child(tmp_path, 'import sys; sys.exit("out of ideas")')
    assert worker.wait(20)
    with pytest.raises(ChildError, match='worker ended with exit code 1') as caught:
        worker.check(may_end=True)
    assert 'out of ideas' in str(caught.value)


def test_messages_of_killed_and_failed_children_differ(tmp_path: Path) -> None:
    worker = child(tmp_path, SLEEP)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait(20)
    with pytest.raises(ChildError, match='killed by SIGKILL'):
        worker.check()


def test_child_may_end_only_if_allowed(tmp_path: Path) -> None:
    worker = child(tmp_path, '')
    assert worker.wait(20)
    worker.check(may_end=True)
    with pytest.raises(ChildError, match='exit code 0; its log is empty'):
        worker.check()


def test_output_of_a_piped_child_can_be_read(tmp_path: Path) -> None:
    worker = child(tmp_path, 'import sys; print("one"); print("log", file=sys.stderr)', piped=True)
    assert worker.output.read() == b'one\n'
    assert worker.wait(20)
    assert worker.log.read_text() == 'log\n'


def test_all_children_are_ended_even_if_they_ignore_signals(tmp_path: Path) -> None:
    workers = [child(tmp_path, program, piped=True) for program in (SLEEP, STUBBORN)]
    for worker in workers:
        assert worker.output.readline() == b'up\n'
        worker.check()
    end_all(workers, patience=0.3)
    # Python raises KeyboardInterrupt on SIGINT and then dies of SIGINT.
    assert [worker.exit_code for worker in workers] == [-signal.SIGINT, -signal.SIGKILL]


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = ('import os, sys, time\n'
               'from pathlib import Path\n'
               'from forecast_detector_ros.cli.graph import Child\n'
               f'child = Child("c", [sys.executable, "-c", {SLEEP!r}],\n'
               f'              Path({str(tmp_path / "log")!r}), os.environ, piped=True)\n'
               'child.output.readline()\n'
               'print(child.pid, flush=True)\n'
               'time.sleep(600)\n')
    parent = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.wait(20)
    wait_for(lambda: not alive(pid), 'the child outlived its parent')


def test_child_has_default_signals_if_its_parent_ignores_them(tmp_path: Path) -> None:
    # The test reads the mask from the kernel, because Python itself ignores some signals.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker = Child('worker', ['grep', 'SigIgn', '/proc/self/status'], tmp_path / 'log',
                       os.environ, piped=True)
    finally:
        signal.signal(signal.SIGINT, before)
    ignored = int(worker.output.read().split()[1], 16)
    assert [number for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
            if ignored >> (number - 1) & 1] == []
    assert worker.wait(120)


def test_no_python_code_runs_after_a_fork() -> None:
    """A fork copies the locks of native threads, and Python code may wait for them for ever."""
    root = Path(__file__).resolve().parents[2]
    name = 'preexec' + '_fn'
    assert [str(path.relative_to(root)) for place in ('dev', 'forecast_detector_ros', 'test')
            for path in sorted((root / place).rglob('*.py')) if name in path.read_text()] == []


@pytest.mark.parametrize('text', ["O'Brien.mp4", 'a: b', 'x #1', "''", 'plain'])
def test_texts_are_quoted_for_parameters(text: str) -> None:
    assert yaml.safe_load(yaml_text(text)) == text
