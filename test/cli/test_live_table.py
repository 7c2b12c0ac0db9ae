# SPDX-License-Identifier: Apache-2.0
"""Check what the frames look like on the screen."""
import io

from forecast_detector_ros.cli.live_table import Lines, LiveTable, open_display, ROWS
from forecast_detector_ros.recording.frame_record import RecordedFrame
import pytest

FORECAST = RecordedFrame(0, 'forecast', 'scheduler', 0.75, 0.5, 1, latency_ms=4.25,
                         labels=('person', 'person', 'bicycle'), scores=(0.9, 0.8, 0.7))
DROPPED = RecordedFrame(1, 'dropped')


def test_lines_show_every_frame() -> None:
    stream = io.StringIO()
    with Lines(stream) as display:
        display.show(FORECAST)
        display.show(DROPPED)
    header, first, second = stream.getvalue().splitlines()
    assert header.split() == ['frame', 'decision', 'reason', 'confidence', 'boxes', 'latency',
                              'ms', 'found']
    assert first.split() == ['1', 'forecast', 'scheduler', '0.750', '3', '4.2', '2', 'person,',
                             '1', 'bicycle']
    assert second.split() == ['2', 'dropped']


def test_output_that_is_no_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display() as display:
        display.show(DROPPED)
    assert 'dropped' in capsys.readouterr().out


def test_table_shows_the_newest_frames_and_the_totals() -> None:
    console = pytest.importorskip('rich.console')
    table = LiveTable()
    for _ in range(ROWS + 5):
        table.show(FORECAST)
    table.show(DROPPED)
    screen = console.Console(file=io.StringIO(), width=120)
    screen.print(table._table())
    text = screen.file.getvalue()
    assert text.count('forecast ') >= ROWS - 1
    assert f'{ROWS + 6} frames' in text
    assert f'forecast {ROWS + 5}' in text
    assert 'dropped 1' in text
