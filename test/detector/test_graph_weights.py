# SPDX-License-Identifier: Apache-2.0
"""Weights that NumPy puts into a graph are those that PyTorch would have put there."""

from dataclasses import replace

from forecast_detector_ros.detector.backends.graph_weights import (
    folded_weights,
    WeightsError,
    with_weights,
    without_weights,
)
from forecast_detector_ros.detector.backends.step_graph import make_graphs
from forecast_detector_ros.detector.backends.step_layout import STEPS
from forecast_detector_ros.detector.checkpoint import read_checkpoint
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest

from .conftest import CONFIG

onnx = pytest.importorskip('onnx')

MOTION = {'forecast_mode': 'motion', 'levels': (8, 16, 32), 'feature_channels': (8, 12, 20),
          'lstm_channels': (4, 8, 10), 'motion_channels': 8, 'neck_channels': 8, 'tail': False}


def initializers(graph):
    model = onnx.load_from_string(graph)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize('changes', [
    {}, MOTION, {'scheduler_norm': False}, {'variant': 'recurrent', 'forecast_mode': 'direct'}],
    ids=['features', 'motion', 'without norm', 'recurrent'])
def test_graph_is_the_same_after_its_weights_were_taken_out_and_put_back(changes, enliven):
    network = enliven(ForecastDetector(replace(CONFIG, **changes))).eval()
    weights = folded_weights({key: value.numpy() for key, value in network.state_dict().items()})
    for graph in make_graphs(network).graphs.values():
        bare, shapes = without_weights(graph)
        assert initializers(bare) == {} and len(bare) < len(graph)
        filled = with_weights(bare, weights, shapes)
        expected, found = initializers(graph), initializers(filled)
        assert list(found) == list(expected) and len(found) >= 4
        for name, array in expected.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            # Roots and products may differ in the last digit.
            np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7, err_msg=name)
        onnx.checker.check_model(onnx.load_from_string(filled))


def test_what_does_not_fit_is_named(checkpoint):
    source = read_checkpoint(checkpoint)
    graphs = make_graphs(source.network()).graphs
    weights = folded_weights(source.arrays())
    bare, shapes = without_weights(graphs[STEPS[0]])
    name = next(iter(shapes))
    with pytest.raises(WeightsError, match=f'{name} is missing'):
        with_weights(bare, {}, shapes)
    with pytest.raises(WeightsError, match=rf'{name} is \(1, 2\), must be'):
        with_weights(bare, {**weights, name: np.zeros((1, 2), np.float32)}, shapes)
