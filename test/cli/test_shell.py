# SPDX-License-Identifier: Apache-2.0
"""Progress with and without a terminal, and outputs that cannot be written."""

import io
import logging
from pathlib import Path
import sys

from forecast_detector_ros.cli import program, shell
from forecast_detector_ros.cli.shell import BAD_INPUT, show_progress
from forecast_detector_ros.errors import InputError
import pytest


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def lines(caplog, monkeypatch, steps):
    """Return the lines logged for steps of (seconds since the start, done, total)."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(shell, 'monotonic', lambda: clock[0])
    with show_progress('frames') as show:
        for clock[0], done, total in steps:
            show(done, total)
    return [record.getMessage() for record in caplog.records]


def test_lines_at_intervals_without_a_terminal(caplog, monkeypatch):
    steps = [(1.0 + second, 1 + second, 3662) for second in range(25)]
    assert lines(caplog, monkeypatch, steps) == [
        'frames: 10 of 3662, 1:00:52 left', 'frames: 20 of 3662, 1:00:42 left']


def test_time_left_is_that_of_this_run(caplog, monkeypatch):
    # 100 items were done before; this run did 10 in 10 seconds, and 40 are left.
    steps = [(float(second), 100 + second, 150) for second in range(1, 11)]
    assert lines(caplog, monkeypatch, steps) == ['frames: 110 of 150, 0:00:40 left']


def test_restarted_work_has_time_left(caplog, monkeypatch):
    steps = [(1.0, 5, 10), (11.0, 4, 10)]
    assert lines(caplog, monkeypatch, steps) == ['frames: 4 of 10, 0:01:06 left']


def test_unknown_total(caplog, monkeypatch):
    assert lines(caplog, monkeypatch, [(11.0, 5, 0)]) == ['frames: 5']


def test_a_bar_in_a_terminal(caplog, monkeypatch):
    pytest.importorskip('rich')
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setenv('TERM', 'xterm')
    with show_progress('frames') as show:
        for done in range(4):
            show(done + 1, 4)
    assert 'frames' in terminal.getvalue() and '4/4' in terminal.getvalue()


def test_lines_where_rich_is_missing(caplog, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    for name in ('rich.console', 'rich.progress'):
        monkeypatch.setitem(sys.modules, name, None)
    assert lines(caplog, monkeypatch, [(11.0, 1, 2)]) == ['frames: 1 of 2, 0:00:11 left']


@pytest.mark.parametrize(('path', 'folder', 'wrong'), [
    ('file/x.json', False, 'file is a file'),
    ('file/new/out', True, 'file is a file'),
    ('file', True, 'file is a file'),
    ('full', False, 'full is a folder'),
    ('link/x.json', False, 'link is a file'),
    ('/proc/new/x.json', False, 'No such file or directory'),
    (f'{300 * "x"}/x.json', False, 'File name too long'),
])
def test_output_that_cannot_be_written(tmp_path, monkeypatch, path, folder, wrong):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    Path('full').mkdir()
    Path('link').symlink_to('file')
    with pytest.raises(InputError) as raised:
        shell.check_output('--output', Path(path), folder)
    assert str(raised.value) == (f'--output {path}: cannot be written: {wrong}; '
                                 'name another path')


@pytest.mark.parametrize(('path', 'folder'), [
    ('file', False), ('full', True), ('new', False), ('new/out', True), ('link/new', True)])
def test_check_of_an_output_leaves_nothing(tmp_path, monkeypatch, path, folder):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    Path('full').mkdir()
    Path('link').symlink_to('later')
    shell.check_output('--output', Path(path), folder)
    assert sorted(item.name for item in tmp_path.rglob('*')) == ['file', 'full', 'link']


@pytest.mark.parametrize('line', [
    'evaluate accuracy --annotations none.json --output file/x',
    'evaluate accuracy --annotations none.json --run file/x',
    'evaluate static --annotations none.json --output file/x',
    'evaluate horizons --annotations none.json --markdown file/x',
    'label none.mp4 --frames new --teacher none.onnx --output file/x',
    'label none.mp4 --frames file/x --teacher none.onnx --output x.json',
    'figures fig4 --annotations none.json --output file/x',
    'compare detectors --annotations none.json --checkpoints a=none --output file/x',
    'benchmark --video none.mp4 --report file/x',
    'replay none --output file/x',
    'demo --video none.mp4 --output file/x',
    'train none.yaml --data none --output file/x',
    'report none --output file/x',
])
def test_outputs_are_checked_first(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    assert program.main(line.split()) == BAD_INPUT
    words = line.split()
    option = words[words.index('file/x') - 1]
    assert capsys.readouterr().err.partition(': ')[2] == (
        f'{option} file/x: cannot be written: file is a file; name another path\n')
