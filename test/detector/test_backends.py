# SPDX-License-Identifier: Apache-2.0
"""Compare all back-ends with eager PyTorch; check their errors of one line."""

from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec

from forecast_detector_ros.detector.backends import registry
from forecast_detector_ros.detector.backends.graph_backend import (
    FORECAST_STEP,
    IMAGE,
    READ_STEP,
    STEPS,
)
from forecast_detector_ros.detector.backends.openvino_backend import FORECAST_TOGETHER
from forecast_detector_ros.detector.backends.parity import compare_backends, MAX_DIFFERENCE
from forecast_detector_ros.detector.backends.registry import (
    BackendError,
    BACKENDS,
    choose_backend,
    CPU_ORDER,
    make_backend,
)
from forecast_detector_ros.detector.backends.step_graph import make_graphs
from forecast_detector_ros.detector.backends.torch_backend import DeviceError, TorchBackend
from forecast_detector_ros.detector.checkpoint import Card, read_checkpoint, RuntimeConfigError
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.host import import_openvino
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

from .conftest import CLASSES, CONFIG, images, MOTION

GRAPHS = ('onnxruntime', 'openvino')

onnx = pytest.importorskip('onnx')
if any(find_spec(library) is None for library in GRAPHS):
    pytest.skip('needs onnxruntime and openvino', allow_module_level=True)


CLIPS = [[images(10 * clip + frame)[0] for frame in range(6)] for clip in range(2)]


def card_of(network):
    return Card('small', CLASSES, network.config, score_threshold=0.25)


def refusal(function, *arguments, **values):
    with pytest.raises(RuntimeConfigError) as error:
        function(*arguments, **values)
    assert '\n' not in str(error.value)
    return str(error.value)


def shallow(network):
    """Replace each part of the extractor by one convolution; return the network."""
    channels = (3, network.extractor.stem[-1].out_channels,
                network.extractor.trunk[-1].out_channels)
    for name, inputs, outputs, stride in zip(('stem', 'trunk'), channels, channels[1:], (16, 2)):
        setattr(network.extractor, name, torch.nn.Sequential(
            torch.nn.Conv2d(inputs, outputs, 3, stride, padding=1), torch.nn.ReLU6()))
    return network


@pytest.fixture(scope='module')
def shared(settle):
    """Return a small network and a back-end of each kind for it."""
    network = settle(ForecastDetector(replace(CONFIG, forecast_mode='direct')))
    return network, {name: make_backend(network, name) for name in ('torch', *GRAPHS)}


@pytest.mark.parametrize('name', ['torch', *GRAPHS])
def test_same_output_and_boxes_as_the_network_itself(name, shared):
    network, backends = shared
    parity = compare_backends(TorchBackend(deepcopy(network)), backends[name], CLIPS,
                              card_of(network))
    assert parity.same, parity
    assert parity.steps == 12 and parity.boxes > 20
    assert backends[name].name == name and backends[name].precision == 'fp32'


@pytest.mark.slow
def test_compiled_torch_gives_the_same_outputs(settle, monkeypatch):
    # Without this, the compiler first tries the processor's instruction sets for seconds.
    monkeypatch.setattr('torch._inductor.config.cpp.vec_isa_ok', True)
    network = ForecastDetector(NetworkConfig(
        classes=3, variant='recurrent', input_size=(64, 96), width=0.35, tail=False,
        feature_channels=(20,), lstm_channels=(10,), extra_channels=(8,), scheduler_channels=8))
    settle(shallow(network))  # The compiler takes seconds for each layer.
    parity = compare_backends(TorchBackend(deepcopy(network)),
                              make_backend(network, 'torch_compile'), CLIPS[:1],
                              card_of(network))
    assert parity.same and parity.boxes > 0, parity


@pytest.mark.parametrize('values', [
    {'variant': 'baseline'}, {'variant': 'persistence'}, {'variant': 'without_combination'},
    {'variant': 'recurrent'}, {'variant': 'recurrent', 'forecast_mode': 'direct'},
    {**MOTION, 'variant': 'recurrent'}, {'scheduler_norm': False},
    {'state_update': 'hold', 'forecast_mode': 'direct'},
    {'levels': (32,), 'feature_channels': (20,), 'lstm_channels': (10,),
     'upsample_channels': 6, 'scheduler_reference': 'fused'},
    MOTION, {**MOTION, 'motion_from_boxes': True}, {**MOTION, 'variant': 'persistence'},
    {**MOTION, 'neck_channels': 8, 'tail': False},
    {'scheduler_reference': 'expected'}, {'variant': 'persistence',
                                          'scheduler_reference': 'expected'}], ids=str)
def test_every_variant_can_be_a_graph(values, shared, settle):
    other = settle(ForecastDetector(replace(shared[0].config, **values)))
    parity = compare_backends(TorchBackend(deepcopy(other)), make_backend(other, 'onnxruntime'),
                              CLIPS[:1], card_of(other))
    assert parity.same and parity.boxes > 0, parity


@pytest.mark.parametrize('name', ['torch', *GRAPHS])
def test_streams_of_a_batch_may_have_different_times(name, shared, settle):
    """Streams of a batch may have different times between frames if motion is forecast."""
    network = settle(ForecastDetector(replace(shared[0].config, **MOTION)))
    for predictor in network.motion.encoder.predictors:
        torch.nn.init.normal_(predictor[2].weight, std=0.3)
    backend = make_backend(network, name)
    pictures = images(6, batch=4)
    times = np.array([[1.0, 2.0, 0.5], [3.0, 1.0, 2.0]], np.float32)

    def run(streams):
        state = backend.initial_state(len(streams))
        for step, time in enumerate(times.T[:, streams]):
            raw = (backend.forecast_step(state, time) if step == 2 else
                   backend.read_step(pictures[2 * step:2 * step + 2][streams], state, time))
            state = raw.state
        return raw
    together = run([0, 1])
    for stream in (0, 1):
        alone = run([stream])
        for key in ('logits', 'offsets', 'confidence'):
            np.testing.assert_allclose(getattr(together, key)[stream], getattr(alone, key)[0],
                                       atol=MAX_DIFFERENCE)
    assert not np.allclose(together.offsets[0], together.offsets[1])


@pytest.mark.parametrize('name', ['torch', *GRAPHS])
def test_batch_gives_what_single_streams_give(name, shared):
    backend = shared[1][name]
    pictures = images(3, batch=3)
    single = [backend.read_step(pictures[i:i + 1], backend.initial_state(1)) for i in range(3)]
    together = backend.read_step(pictures, backend.initial_state(3))
    alone = [backend.forecast_step(raw.state) for raw in single]
    # The state of the batch, and the joined states of single steps.
    for state in (together.state, backend.stack([raw.state for raw in single])):
        after = backend.forecast_step(state)
        assert after.confidence.shape == (3,)
        for i, expected in enumerate(alone):
            for key in ('logits', 'offsets', 'confidence'):
                np.testing.assert_allclose(getattr(after, key)[i], getattr(expected, key)[0],
                                           atol=MAX_DIFFERENCE)
    for raw, state in zip(alone, backend.split(together.state, 3), strict=True):
        np.testing.assert_allclose(backend.forecast_step(state).logits, raw.logits,
                                   atol=MAX_DIFFERENCE)


def test_more_streams_than_a_graph_takes_are_divided(shared):
    backend = shared[1]['openvino']
    count = FORECAST_TOGETHER + 1
    pictures = images(4, batch=count)
    raw = backend.read_step(pictures, backend.initial_state(count))
    after = backend.forecast_step(raw.state)
    for i in (0, count - 2, count - 1):
        alone = backend.read_step(pictures[i:i + 1], backend.initial_state(1))
        np.testing.assert_array_equal(raw.logits[i], alone.logits[0])
        expected = backend.forecast_step(alone.state)
        for key in ('logits', 'offsets', 'confidence'):
            np.testing.assert_allclose(getattr(after, key)[i], getattr(expected, key)[0],
                                       atol=MAX_DIFFERENCE)


@pytest.mark.parametrize('name', GRAPHS)
def test_state_is_a_value(name, shared):
    backend = shared[1][name]
    before = backend.read_step(images(), backend.initial_state(1)).state
    kept = deepcopy(before)
    first = backend.forecast_step(before)
    copies = [array.copy() for array in (first.logits, *first.state)]
    again = backend.forecast_step(before)
    backend.read_step(images(1), first.state)
    for a, b in zip(before, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    for array, copy in zip((first.logits, *first.state), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(first.logits, again.logits)
    restored = backend.split(backend.stack([before, first.state]), 2)
    for a, b in zip((*before, *first.state), (*restored[0], *restored[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_precision_that_the_processor_may_lack(shared):
    network, backends = shared
    if 'BF16' not in import_openvino().Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        assert 'bf16' in refusal(make_backend, network, 'openvino', precision='bf16')
        return
    half = make_backend(network, 'openvino', precision='bf16')
    parity = compare_backends(backends['openvino'], half, CLIPS, card_of(network))
    # bf16 has 8 bits of mantissa. Equal logits would mean that fp32 also computes in bf16.
    assert MAX_DIFFERENCE < parity.logits < 1.0
    # The graph takes four pictures, so the fifth needs a second run.
    pictures = images(5, batch=5)
    together = half.read_step(pictures, half.initial_state(5)).logits
    for i in (0, 3, 4):
        alone = half.read_step(pictures[i:i + 1], half.initial_state(1)).logits[0]
        np.testing.assert_allclose(together[i], alone, atol=parity.logits)


def test_other_weights_are_not_the_same(shared):
    network, backends = shared
    other = deepcopy(network)
    # All biases are changed, because the anchors with the best scores are random.
    biases = [level[1].bias for level in other.head.regression]
    for bias in biases:
        bias.data += 0.5
    parity = compare_backends(backends['torch'], TorchBackend(other), CLIPS, card_of(network))
    assert not parity.same and parity.boxes_off > 0 and parity.offsets == pytest.approx(0.5, 0.01)
    biases[0].data[0] = float('nan')
    parity = compare_backends(backends['torch'], TorchBackend(other), CLIPS, card_of(network))
    assert not parity.same


def test_graphs_are_folded_and_forecasting_needs_no_image(shared):
    network = shared[0]
    graphs = make_graphs(network).graphs
    models = {step: onnx.load_from_string(graphs[step]) for step in STEPS}
    for model in models.values():
        # The BatchNorm after the correlation does not follow a convolution and stays.
        assert sum(node.op_type == 'BatchNormalization' for node in model.graph.node) <= 1
        assert all(value.type.tensor_type.shape.dim[0].dim_param == 'batch'
                   for value in (*model.graph.input, *model.graph.output))
    inputs = {step: {value.name for value in model.graph.input}
              for step, model in models.items()}
    assert IMAGE in inputs[READ_STEP] and IMAGE not in inputs[FORECAST_STEP]
    assert models[FORECAST_STEP].ByteSize() < models[READ_STEP].ByteSize()


@pytest.mark.parametrize(('values', 'words'), [
    ({'backend': 'tvm'}, ['tvm', 'openvino', 'torch']),
    ({'backend': 'openvino', 'precision': 'fp8'}, ['fp8', 'int8', 'openvino']),
    ({'backend': 'onnxruntime', 'precision': 'bf16'}, ['bf16', 'fp32', 'onnxruntime']),
    ({'backend': 'tensorrt', 'device': 'cpu'}, ['cuda', 'cpu']),
    ({'backend': 'tensorrt'}, ['tensorrt', 'CUDA alone']),
    ({'precision': 'int8'}, ['export', 'int8', 'small.int8.export.json'])])
def test_unavailable_back_end_is_one_line(values, words, checkpoint):
    message = refusal(Detector.load, checkpoint, **values)
    assert all(word in message for word in words), message


@pytest.mark.parametrize('name', GRAPHS)
def test_missing_library_says_how_to_install_it(name, checkpoint, monkeypatch):
    monkeypatch.setattr(registry, 'missing_modules', lambda other: BACKENDS[other].modules)
    message = refusal(Detector.load, checkpoint, backend=name)
    assert f'{name} is not installed' in message and f'pip install {name}' in message


def test_the_fastest_installed_back_end_is_used(monkeypatch):
    assert choose_backend('auto', 'cpu', 'fp32') == choose_backend('', 'cpu', 'fp32') \
        == CPU_ORDER[0]
    assert choose_backend('auto', 'cpu', 'fp16') in ('openvino', 'torch')
    for index in range(1, len(CPU_ORDER)):
        gone = CPU_ORDER[:index]
        monkeypatch.setattr(registry, 'missing_modules',
                            lambda name, gone=gone: ('x',) if name in gone else ())
        assert choose_backend('auto', 'cpu', 'fp32') == CPU_ORDER[index]
    with pytest.raises(BackendError, match='pip install openvino'):
        choose_backend('auto', 'cpu', 'int8')
    with pytest.raises(DeviceError, match='fp8'):
        choose_backend('auto', 'cpu', 'fp8')


def test_without_onnx_a_checkpoint_runs_by_torch(monkeypatch, checkpoint, network):
    monkeypatch.setattr(registry, 'find_spec',
                        lambda name: None if name == 'onnx' else object())
    assert choose_backend('auto', 'cpu', 'fp32', read_checkpoint(checkpoint)) == 'torch'
    monkeypatch.setattr('forecast_detector_ros.detector.backends.step_graph.find_spec',
                        lambda name: None)
    assert 'pip install onnx' in refusal(make_backend, network, 'openvino')
