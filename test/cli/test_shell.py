# SPDX-License-Identifier: Apache-2.0
"""Progress in a terminal and elsewhere."""

import io
import logging
import sys

from forecast_detector_ros.cli import shell
from forecast_detector_ros.cli.shell import show_progress
import pytest


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def lines(caplog, monkeypatch, steps):
    """Give the lines logged for steps of (seconds since the start, done, total)."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(shell, 'monotonic', lambda: clock[0])
    with show_progress('frames') as show:
        for clock[0], done, total in steps:
            show(done, total)
    return [record.getMessage() for record in caplog.records]


def test_a_line_now_and_then_without_a_terminal(caplog, monkeypatch):
    steps = [(1.0 + second, 1 + second, 3662) for second in range(25)]
    assert lines(caplog, monkeypatch, steps) == [
        'frames: 10 of 3662, 1:00:52 left', 'frames: 20 of 3662, 1:00:42 left']


def test_time_left_is_that_of_this_run(caplog, monkeypatch):
    # 100 were there before: 10 in 10 seconds, 40 to go.
    steps = [(float(second), 100 + second, 150) for second in range(1, 11)]
    assert lines(caplog, monkeypatch, steps) == ['frames: 110 of 150, 0:00:40 left']


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
