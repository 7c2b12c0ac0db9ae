# SPDX-License-Identifier: Apache-2.0
"""Tables, plots, comparisons and targets of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from forecast_detector_ros.benchmark.document import (
    about,
    benchmark_markdown,
    benchmark_text,
    changes_text,
    compare_runs,
    compare_starts,
    graph_rows,
    peak,
    SIGMAS,
    TARGETS,
    timing_rows,
    TOLERANCE,
    verdicts,
)
from forecast_detector_ros.benchmark.plots import write_plots
from hypothesis import given
from hypothesis import strategies as st
import pytest


def timing(name: str, median_ms: float, group: str = 'step', **more: Any) -> dict[str, Any]:
    return {'name': name, 'group': group, 'backend': '', 'precision': 'fp32', 'threads': 1,
            'batch': 1, 'macs': None, 'runs': 60, 'median_ms': median_ms,
            'p95_ms': 1.1 * median_ms, 'noise': 0.01, **more}


def graph(node: str, transport: str, policy: str, cpu: float, **more: Any) -> dict[str, Any]:
    return {'node': node, 'size': '1080p', 'transport': transport, 'policy': policy,
            'rate': 30.0, 'published': 240, 'cpu_ms_per_frame': cpu, 'cores': cpu * 0.03, **more}


@pytest.fixture
def run() -> dict[str, Any]:
    """Return a run in which every target was measured."""
    answers = {'lost': 0, 'latency_p50_ms': 20.0, 'latency_p95_ms': 25.0, 'read_ratio': 0.5}
    return {
        'default_backend': 'openvino', 'read_ratio': 0.5, 'rounds': 60, 'skipped': ['a: why'],
        'command': 'benchmark', 'versions': {'torch': '2', 'gone': None},
        'machine': {'processor': 'a processor', 'cores': 2, 'load_1min': 0.1},
        'timings': [
            timing('read step openvino fp32', 14.0, macs=700 * 10**6),
            timing('forecast step openvino fp32', 2.0, macs=80 * 10**6),
            timing('read step torch fp32', 35.0), timing('forecast step torch fp32', 7.0),
            timing('read step onnxruntime fp32', 16.0),
            timing('read step openvino bf16', 7.0), timing('read step openvino int8', 8.0),
            timing('plain SSDLite openvino fp32', 13.0, 'peer'),
            timing('ssdlite320_mobilenet_v3_large openvino', 12.0, 'peer'),
            timing('yolo11n 320 openvino', 20.0, 'peer'),
            timing('yolo11n 640 openvino', 80.0, 'peer'),
            timing('read step openvino fp32 x4', 42.0, 'batch', batch=4),
            timing('forecast step openvino fp32 x4', 8.0, 'batch', batch=4),
            timing('preprocess 720p', 0.3, 'part'), timing('post-process', 0.25, 'part'),
            timing('GEMM fp32', 20.0, 'probe', macs=1024**3)],
        'start': [
            {'cache': 'cold', 'starts': 1, 'seconds': 3.0, 'cpu_seconds': 3.5, 'memory_mb': 310.0},
            {'cache': 'warm', 'starts': 5, 'seconds': 2.5, 'cpu_seconds': 2.25,
             'memory_mb': 300.0}],
        'graph': [
            graph('detector', 'raw', 'always_read', 19.0, **answers),
            graph('detector', 'raw', 'alternate(1)', 12.0, **answers),
            graph('detector', 'raw', 'forecast', 6.5, **answers),
            graph('detector', 'compressed', 'always_read', 24.0, **answers),
            graph('detector', 'compressed', 'forecast', 3.0, **answers),
            graph('bare', 'raw', 'none', 4.0)]}


def test_share_of_the_peak_is_that_of_the_probe(run: dict[str, Any]) -> None:
    assert peak(run) == pytest.approx(1024**3 / 0.02)
    rows = {row[0]: row for row in timing_rows(run, 'step')}
    # 700e6 in 14 ms are 50e9 per second; the peak is 53.7e9.
    assert rows['read step openvino fp32'][4:] == ['700', '93']
    assert rows['read step torch fp32'][4:] == [None, None]


def test_without_a_probe_there_is_no_share(run: dict[str, Any]) -> None:
    run['timings'] = [row for row in run['timings'] if row['group'] != 'probe']
    assert peak(run) is None
    assert all(row[5] is None for row in timing_rows(run, 'step'))


def test_text_and_markdown_have_everything(run: dict[str, Any]) -> None:
    for text in (benchmark_text(run), benchmark_markdown(run, ['plot.png'])):
        for row in run['timings']:
            assert row['name'] in text
        assert 'detector, 1080p, raw, always_read' in text
        assert '2.25' in text and '310' in text
        assert 'a: why' in text and 'a processor' in text and 'gone' not in text
        assert 'MISSED' in text
    assert '![plot.png](plot.png)' in benchmark_markdown(run, ['plot.png'])
    widths = {line.count('|') for line in benchmark_markdown(run).splitlines()
              if line.startswith('|')}
    assert widths == {5, 6, 7}


def test_the_instructions_follow_the_processor(run: dict[str, Any]) -> None:
    assert 'a processor, 2 cores' in about(run)
    run['machine']['instructions'] = 'AVX2, AVX512'
    assert 'a processor (AVX2, AVX512), 2 cores' in about(run)


def test_bare_subscriber_has_no_latency(run: dict[str, Any]) -> None:
    assert graph_rows(run)[-1] == ['bare, 1080p, raw, none', '4.00', '0.12', None, None, None]


def test_comparison_marks_what_is_slower(run: dict[str, Any]) -> None:
    now = [{**row, 'median_ms': 2 * row['median_ms']} if row['name'] == 'post-process' else row
           for row in run['timings']]
    lines = changes_text(compare_runs(run['timings'], now)).splitlines()
    assert [line.split()[0] for line in lines if 'SLOWER' in line] == ['post-process']


def test_plots_are_pictures(run: dict[str, Any], tmp_path: Path) -> None:
    names = write_plots(run, tmp_path)
    assert names == ['benchmark_steps.png', 'benchmark_parts.png', 'benchmark_batches.png',
                     'benchmark_graph.png']
    for name in names:
        assert cv2.imread(str(tmp_path / name)).std() > 0
    assert write_plots({**run, 'timings': [], 'graph': None}, tmp_path) == []


def test_rival_may_have_dollars_in_its_name(run: dict[str, Any], tmp_path: Path) -> None:
    for item in run['timings']:
        item['name'] += ' $x^$'
    assert 'benchmark_steps.png' in write_plots(run, tmp_path)


def row(name: str, median_ms: float, noise: float = 0.0) -> dict[str, Any]:
    return {'name': name, 'median_ms': median_ms, 'noise': noise}


@pytest.mark.parametrize(('now', 'noise', 'regressed'), [
    (10.0, 0.0, False), (8.0, 0.0, False), (10.4, 0.0, False), (10.6, 0.0, True),
    (12.0, 0.1, False), (13.0, 0.1, True)])
def test_slower_beyond_noise_is_a_regression(now: float, noise: float, regressed: bool) -> None:
    (change,) = compare_runs([row('a', 10.0, noise)], [row('a', now, noise)])
    assert change.regressed is regressed
    assert change.growth == pytest.approx(now / 10.0 - 1.0)


def test_slower_or_larger_start_is_a_regression(run: dict[str, Any]) -> None:
    starts = run['start']
    assert not any(change.regressed for change in compare_starts(starts, starts))
    later = [starts[0], {**starts[1], 'seconds': 1.3 * starts[1]['seconds'], 'memory_mb': 320.0}]
    changes = compare_starts(starts, later)
    assert [change.name for change in changes if change.regressed] == [
        'seconds to active, warm caches', 'resident memory, warm caches']
    lines = changes_text(changes).splitlines()
    assert [line.split()[-1] for line in lines if 'ER' in line] == ['SLOWER', 'LARGER']
    assert compare_starts((), starts) == [] and len(compare_starts(starts, starts[1:])) == 3


def test_only_common_timings_are_compared() -> None:
    changes = compare_runs([row('a', 1.0), row('b', 1.0)], [row('c', 9.0), row('b', 1.0)])
    assert [change.name for change in changes] == ['b']


@given(st.floats(0.01, 1000), st.floats(0, 1), st.floats(0, 1))
def test_equal_times_are_never_a_regression(median: float, one: float, other: float) -> None:
    (change,) = compare_runs([row('a', median, one)], [row('a', median, other)])
    assert not change.regressed
    assert change.allowed >= max(TOLERANCE, SIGMAS * max(one, other))


EXPECTED = [
    14 / 2, 14 / 13, 12 / 8, 20 / 8, 80 / 8, 35 / 14, 14 / 7, 14 / 8, 0.55, 42 / 4 / 14, 8 / 4 / 2,
    0.36, 0, 19 / 18, 0.5, 3 / 24, 2.5, 3.0, 300.0]


def test_every_target_by_hand(run: dict[str, Any]) -> None:
    found = [verdict.measured for verdict in verdicts(run)]
    assert found == pytest.approx(EXPECTED)
    missed = [verdict.target.name for verdict in verdicts(run) if not verdict.met]
    assert missed == ['batch of four / four single forecast steps',
                      'forecast frame / read frame, 1080p compressed, CPU',
                      'node from start to active, full caches']


def test_targets_without_measurement_are_marked(run: dict[str, Any]) -> None:
    bare = {**run, 'timings': [], 'graph': None, 'start': None}
    assert [verdict.met for verdict in verdicts(bare)] == [None] * len(TARGETS)
    assert all(verdict.row[-1] == 'not measured' for verdict in verdicts(bare))


def test_rows_have_units_and_verdict(run: dict[str, Any]) -> None:
    assert verdicts(run)[0].row == ['read step / forecast step', '>= 6 x', '7.00 x', 'met']
    assert verdicts(run)[-3].row == [
        'node from start to active, full caches', '<= 2 s', '2.50 s', 'MISSED']
