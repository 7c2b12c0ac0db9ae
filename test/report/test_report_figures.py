# SPDX-License-Identifier: Apache-2.0
"""Check that the report's figures are complete SVG of the requested size, equal in each run."""

from dataclasses import replace
from xml.etree import ElementTree

from forecast_detector_ros.detector.policy import FORECAST, READ
from forecast_detector_ros.recording.recorded_frame import DROPPED
from forecast_detector_ros.report.report_figures import as_svg, FIGURES, MOST_POINTS
from forecast_detector_ros.report.run_record import (
    Accuracy,
    ClassAccuracy,
    SequenceRecord,
)
import pytest

from ..helpers.runs import frame, run, two_sequences

BARE = run(accuracy=None, sequences=(SequenceRecord('walk', (frame(0, DROPPED),), True),))


@pytest.mark.parametrize('name', FIGURES)
@pytest.mark.parametrize('record, width', [(run(), 3.6), (two_sequences(), 9.6), (BARE, 3.6)],
                         ids=['one', 'two', 'bare'])
def test_every_figure_of_every_run_is_drawn(name, record, width):
    text = as_svg(FIGURES[name], record, width)
    drawn = float(ElementTree.fromstring(text).get('width').removesuffix('pt'))
    assert drawn == pytest.approx(72 * width)


@pytest.mark.parametrize('name', FIGURES)
def test_names_with_dollars_are_not_formulas(name):
    # Matplotlib's parser of formulas would raise an error for these texts.
    odd = ('$x^$', '$\\nothing$', '$', '\\$$\\frac{$')
    frames = tuple(frame(number, READ, *odd) for number in range(4))
    record = run(
        sequences=(SequenceRecord('$x^$', frames, True), SequenceRecord('$_$', frames, True)),
        accuracy=Accuracy(0.5, 0.25, tuple(
            ClassAccuracy(label, 3, 3, 0.5, (1.0,) * 101) for label in odd)))
    assert as_svg(FIGURES[name], record, 9.6).startswith('<svg')


def test_negative_latencies_are_drawn():
    # Decisions of another node may have negative latencies.
    frames = tuple(replace(frame(number, READ), latency_ms=-1.0) for number in range(3))
    record = run(sequences=(SequenceRecord('walk', frames, True),))
    assert as_svg(FIGURES['latency'], record, 5.0).startswith('<svg')


def test_the_same_run_gives_the_same_file():
    first, second = (as_svg(FIGURES['latency'], run(), 5.0) for _ in range(2))
    assert first == second


def test_long_runs_do_not_make_large_files():
    frames = tuple(frame(number, (READ, FORECAST)[number % 2], 'dog')
                   for number in range(MOST_POINTS + 1000))
    record = run(sequences=(SequenceRecord('walk', frames, True),))
    for draw in FIGURES.values():
        assert len(as_svg(draw, record, 9.6)) < 500_000
