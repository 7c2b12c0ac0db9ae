# SPDX-License-Identifier: Apache-2.0
"""Tables and picture of a reproduction, with means over seeds."""

import json
from statistics import mean, stdev

from forecast_detector_ros.evaluation.sequences import EvaluationError
from forecast_detector_ros.experiments.reproduction_tables import (
    components_table,
    draw_reproduction,
    load_reproduction,
    mean_and_spread,
    reproduction_rows,
    skipping_table,
    sweep_table,
)
import pytest


def figures(ap50, read_ratio=1.0):
    return {'ap50': ap50, 'slow': 0.5, 'medium': None, 'fast': ap50, 'read_ratio': read_ratio}


REPORT = {'recipe': 'tiny', 'seeds': [0, 1], 'frames': 12, 'results': {str(seed): {
    'baseline': {'always_read': figures(0.25 + seed / 4)},
    'complete': {'always_read': figures(0.5), 'alternate(1)': figures(0.4, 0.5),
                 'threshold(0.5)': figures(0.5, 0.25 + seed / 2)},
    'held_feature': {'always_read': figures(0.5), 'alternate(1)': figures(0.3, 0.5)}}
    for seed in range(2)}}


def test_means_and_deviations_by_hand():
    rows = {(row['row'], row['policy']): row for row in reproduction_rows(REPORT)}
    assert len(rows) == 6
    first = rows['baseline', 'always_read']
    assert (first['ap50'], first['seeds']) == (0.375, 2)
    assert first['ap50_sd'] == pytest.approx(0.125 * 2 ** 0.5)
    assert first['medium'] is None and first['medium_sd'] is None
    assert rows['complete', 'threshold(0.5)']['read_ratio'] == 0.5
    one = {**REPORT, 'results': {'0': REPORT['results']['0']}}
    assert reproduction_rows(one)[0]['ap50_sd'] is None


def test_tables_are_means_and_spreads_over_seeds():
    results = {str(seed): {
        'baseline': {'always_read': figures(0.5 + seed / 10)},
        'complete': {'always_read': figures(0.6 + seed / 10),
                     'alternate(1)': figures(0.4, 0.5),
                     'threshold(0.5)': figures(0.5, 0.4 + seed / 5)}} for seed in range(2)}
    first, second = components_table(results)[1:]
    values = [50.0, 60.0]
    assert first == ['baseline', f'{mean(values):.1f} ± {stdev(values):.1f}', '50.0 ± 0.0', '-',
                     first[1], '']
    assert second[-1] == '+10.0 ± 0.0'
    assert skipping_table(results)[1:] == [['complete', '65.0 ± 7.1', '40.0 ± 0.0']]
    # Fixed rules have no value at a read ratio of 0.4. At 0.6 they have 0.4 + (0.7 - 0.4) / 5 of
    # the second seed.
    assert sweep_table(results)[-1] == ['complete', 'threshold(0.5)', '0.50', '50.0 ± 0.0', '-']
    del results['0']
    assert sweep_table(results)[-1] == ['complete', 'threshold(0.5)', '0.60', '50.0', '+4.0']


def test_one_seed_has_no_spread():
    assert mean_and_spread([0.25]) == '25.0'
    assert mean_and_spread([-0.25], True) == '-25.0'
    assert mean_and_spread([None]) == '-'


def test_bars_are_distinct_rows_and_lines_are_all_rows():
    left, right = draw_reproduction(REPORT).axes
    heights = [bar.get_height() for bar in left.patches]
    # The two rows have four figures each. With every frame read, held features make no difference.
    assert heights == pytest.approx([37.5, 50, 0, 37.5, 50, 50, 0, 50])
    labels = right.get_legend_handles_labels()[1]
    assert labels == ['baseline', 'complete', 'complete: threshold(p)', 'held_feature']


@pytest.mark.parametrize(('text', 'message'), [
    ('{', 'not valid JSON'), ('[]', 'has no results'), ('{"results": {}}', 'has no results'),
    ('{"results": 3}', 'results is missing or no dict'),
    ('{"results": {"0": {"baseline": {}}}}', 'seeds is missing or no list')])
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / 'results.json'
    with pytest.raises(EvaluationError, match='cannot be read'):
        load_reproduction(path)
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        load_reproduction(path)
    path.write_text(json.dumps(REPORT))
    assert load_reproduction(path) == REPORT
