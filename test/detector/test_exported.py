# SPDX-License-Identifier: Apache-2.0
"""Write and read graphs; check that they belong to a checkpoint, and the errors of damage."""
from dataclasses import replace
import json
import shutil

from forecast_detector_ros.detector.backends.exported import (
    anchors_path,
    ExportError,
    fits,
    FLOAT,
    folded_weights,
    graph_path,
    INT8,
    read_graphs,
    record_path,
    WEIGHTLESS,
    WeightsError,
    with_weights,
    without_weights,
    write_graphs,
)
from forecast_detector_ros.detector.backends.graph_backend import READ_STEP, StateLayout, STEPS
from forecast_detector_ros.detector.backends.step_graph import make_graphs
from forecast_detector_ros.detector.checkpoint import card_path, read_checkpoint, save_checkpoint
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest

from .conftest import CONFIG, MOTION

onnx = pytest.importorskip('onnx')

WITH_NECK = {**MOTION, 'neck_channels': 8, 'tail': False}


def initializers(graph):
    model = onnx.load_from_string(graph)
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize('changes', [
    {}, WITH_NECK, {**WITH_NECK, 'motion_from_boxes': True}, {'scheduler_norm': False},
    {'variant': 'recurrent', 'forecast_mode': 'direct'}],
    ids=['features', 'motion', 'motion from boxes', 'without norm', 'recurrent'])
def test_graph_is_the_same_after_its_weights_were_removed_and_restored(changes, enliven):
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
            # Square roots and products may differ in the last digit.
            np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7, err_msg=name)
        onnx.checker.check_model(onnx.load_from_string(filled))


def test_weight_that_does_not_fit_is_named(checkpoint):
    source = read_checkpoint(checkpoint)
    graphs = make_graphs(source.network()).graphs
    weights = folded_weights(source.arrays())
    bare, shapes = without_weights(graphs[STEPS[0]])
    name = next(iter(shapes))
    with pytest.raises(WeightsError, match=f'{name} is missing'):
        with_weights(bare, {}, shapes)
    with pytest.raises(WeightsError, match=rf'{name} is \(1, 2\), must be'):
        with_weights(bare, {**weights, name: np.zeros((1, 2), np.float32)}, shapes)


@pytest.fixture(scope='module')
def model(checkpoint):
    """Return the graphs of the small network."""
    return make_graphs(read_checkpoint(checkpoint).network())


@pytest.fixture
def source(checkpoint, tmp_path):
    """Return a copy of the checkpoint after reading."""
    for path in (checkpoint, card_path(checkpoint)):
        shutil.copy(path, tmp_path)
    return read_checkpoint(tmp_path / checkpoint.name)


def failure(source, kind=FLOAT):
    with pytest.raises(ExportError) as error:
        read_graphs(source.path, source, kind)
    assert '\n' not in str(error.value) and 'run export --checkpoint' in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('kind', [FLOAT, INT8, WEIGHTLESS])
def test_round_trip(kind, source, model):
    record = write_graphs(source.path, source, model, kind, {'opset': 17})
    assert record == record_path(source.path, kind)
    assert json.loads(record.read_text())['opset'] == 17
    read = read_graphs(source.path, source, kind)
    assert (read.layout, read.classes) == (model.layout, 3)
    np.testing.assert_array_equal(read.anchors, model.anchors)
    if kind != WEIGHTLESS:
        assert read.graphs == model.graphs
        return
    small = sum(graph_path(source.path, step, kind).stat().st_size for step in STEPS)
    assert small < sum(map(len, read.graphs.values()))


def test_graphs_without_weights_go_with_other_weights(source, model, network, enliven):
    write_graphs(source.path, source, model, WEIGHTLESS, {})
    first = read_graphs(source.path, source, WEIGHTLESS)
    save_checkpoint(source.path, enliven(network, 1), source.card)
    other = read_checkpoint(source.path)
    assert other.digest != source.digest
    assert read_graphs(source.path, other, WEIGHTLESS).graphs != first.graphs


def test_other_weights_are_refused(source, model, network, enliven):
    for kind in (FLOAT, INT8):
        write_graphs(source.path, source, model, kind, {})
    save_checkpoint(source.path, enliven(network, 1), source.card)
    other = read_checkpoint(source.path)
    assert 'made from other weights than small.safetensors' in failure(other)
    assert failure(other, INT8).endswith('--int8 --calibrate VIDEO')


@pytest.mark.parametrize('kind', [FLOAT, INT8, WEIGHTLESS])
def test_graphs_for_other_anchors_are_refused(kind, source, model):
    write_graphs(source.path, source, model, kind, {})
    network = replace(source.card.network, anchor_scales=(0.2, 0.8))
    other = replace(source, card=replace(source.card, network=network))
    assert 'made for another network' in failure(other, kind)
    read_graphs(source.path, source, kind)


def test_weights_of_another_shape_are_refused(source, model):
    write_graphs(source.path, source, model, WEIGHTLESS, {})
    record = record_path(source.path, WEIGHTLESS)
    values = json.loads(record.read_text())
    values['network']['width'] = 0.5
    record.write_text(json.dumps(values))
    assert 'made for another network' in failure(source, WEIGHTLESS)


@pytest.mark.parametrize('network', [
    {'width': 'wide'}, {'unheard': 1}, {'levels': [[8]]}, {'classes': 2**62}, {'input_size': {}}])
def test_record_of_an_invalid_network_is_one_line(network, source, model):
    write_graphs(source.path, source, model, WEIGHTLESS, {})
    record = record_path(source.path, WEIGHTLESS)
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, 'network': network}))
    assert 'describes no network' in failure(source, WEIGHTLESS)
    assert not fits(source.path, source, WEIGHTLESS)


@pytest.mark.parametrize(('damage', 'words'), [
    (lambda path: graph_path(path, READ_STEP).write_bytes(b'other'), 'read_step.onnx: differs'),
    (lambda path: graph_path(path, READ_STEP).unlink(), 'read_step.onnx: No such file'),
    (lambda path: anchors_path(path).write_bytes(b''), 'anchors.npy: differs'),
    (lambda path: record_path(path).unlink(), 'no such file'),
    (lambda path: record_path(path).write_text('[1'), 'not a record'),
    (lambda path: record_path(path).write_text('[' * 100_000), 'not a record'),
    (lambda path: record_path(path).write_text('{"a": 1' + '0' * 400 + '}'), 'not a record'),
    (lambda path: record_path(path).write_text('[1]'), 'not a record'),
    (lambda path: record_path(path).write_bytes(b'\xff\xfe'), 'not a record'),
    (lambda path: record_path(path).write_text('{"format": "other"}'), 'not a record')])
def test_damage_is_one_line(damage, words, source, model):
    write_graphs(source.path, source, model, FLOAT, {})
    damage(source.path)
    assert words in failure(source)


@pytest.mark.parametrize(('key', 'value'), [
    ('state', None), ('state', {'shapes': {'a': ['x']}}), ('classes', 'three'),
    ('classes', float('inf'))])
def test_record_with_invalid_values_is_refused(key, value, source, model):
    write_graphs(source.path, source, model, FLOAT, {})
    values = json.loads(record_path(source.path).read_text())
    record_path(source.path).write_text(json.dumps({**values, key: value}))
    assert 'not a record' in failure(source)


def test_unreadable_weights_are_not_reported_as_a_bad_record(source, model):
    write_graphs(source.path, source, model, WEIGHTLESS, {})
    broken = replace(source, data=source.data[:-1])
    with pytest.raises(ExportError, match='small.safetensors: not a safetensors file'):
        read_graphs(source.path, broken, WEIGHTLESS)


def test_layout_that_names_missing_parts_is_refused(model):
    values = model.layout.values()
    assert StateLayout.from_values(json.loads(json.dumps(values))) == model.layout
    values['inputs'][READ_STEP] = ['absent']
    with pytest.raises(ValueError, match='names unknown parts'):
        StateLayout.from_values(values)
