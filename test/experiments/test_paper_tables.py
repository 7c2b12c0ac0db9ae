# SPDX-License-Identifier: Apache-2.0
"""Tables 1 and 2 by hand and on small networks."""

from dataclasses import replace

from forecast_detector_ros.detector.policy import AlternatePolicy, AlwaysReadPolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.evaluation.motion import from_tracks
from forecast_detector_ros.experiments.paper_tables import over_seeds, table1_row, table2_rows
import numpy as np
import pytest


def row(model, accuracy, fast=0.5):
    return {'model': model, 'policy': 'always_read', 'accuracy': accuracy, 'slow': 0.25,
            'medium': None, 'fast': fast}


def test_trainings_of_one_name_are_joined():
    first, second = over_seeds([row('complete', 0.5), row('baseline', 0.25),
                                row('complete', 0.75, None)])
    assert (first['model'], first['trainings'], first['accuracy']) == ('complete', 2, 0.625)
    assert first['accuracy_sd'] == pytest.approx(0.125 * 2 ** 0.5)
    assert (first['slow'], first['slow_sd']) == (0.25, 0.0)
    assert first['medium'] is None and first['fast'] is None
    assert (second['accuracy'], second['accuracy_sd']) == (0.25, None)


def test_table_1_says_what_ran(detector, footage):
    items = footage(a=('cat', 4))
    found = table1_row(detector, items, DetectorSettings(policy=AlternatePolicy(1)), 'plain')
    assert (found['backbone'], found['input'], found['policy']) == (
        'MobileNetV2 0.35', '64x96', 'alternate(1)')
    assert found['read_ratio'] == 0.5 and found['fps'] > 0
    assert found['accuracy'] == found['recall']


def test_table_2_has_a_row_a_policy(make_network, card, footage):
    items = [replace(item, truth=replace(item.truth, tracks=np.zeros(len(item.truth), np.int64)))
             for item in footage(a=('cat', 4))]
    items = [replace(item, labelled=item.truth) for item in items]
    rows = table2_rows(make_network(variant='without_combination'), card, items,
                       DetectorSettings(), [AlwaysReadPolicy(), AlternatePolicy(3)], 'devkit',
                       from_tracks(items))
    assert [(found['policy'], found['read_ratio']) for found in rows] == [
        ('always_read', 1.0), ('alternate(3)', 0.25)]
    for found in rows:
        assert (found['variant'], found['forecast_mode']) == ('without_combination', 'residual')
        # Its boxes move by a pixel a frame: slow or medium, never fast.
        assert found['fast'] is None and found['medium'] is not None
