# SPDX-License-Identifier: Apache-2.0
"""
Check the CUDA back-end: rows of state, prepared sizes, captured graphs.

Tests that need no device run on the CPU without captured graphs. This file does not use
`conftest.py`, because a machine with a device may lack ROS and other libraries
(`dev/cuda_check.sh`).
"""

from copy import deepcopy
from dataclasses import replace

from forecast_detector_ros.detector.backends.cuda_graphs import (
    CudaGraphBackend,
    CudaOptions,
    SIZES,
    StateRows,
)
from forecast_detector_ros.detector.backends.parity import compare_backends, MAX_DIFFERENCE
from forecast_detector_ros.detector.backends.registry import make_backend
from forecast_detector_ros.detector.backends.torch_backend import (
    arithmetic,
    state_parts,
    TorchBackend,
)
from forecast_detector_ros.detector.checkpoint import Card, save_checkpoint
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.policy import AlternatePolicy
from forecast_detector_ros.detector.settings import DetectorSettings
from forecast_detector_ros.detector.stream import StreamState
from forecast_detector_ros.images.frame import Frame, Pixels
from forecast_detector_ros.model.config import NetworkConfig
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch
from torch import nn

CONFIG = NetworkConfig(
    classes=3, input_size=(64, 96), width=0.35, levels=(16, 32), feature_channels=(12, 20),
    lstm_channels=(8, 10), extra_channels=(16, 8), scheduler_channels=8,
    forecast_mode='residual', scheduler_reference='expected')

CLASSES = ('cat', 'dog', 'train')

UNCAPTURED = CudaOptions(capture=False)

ON_CPU = [pytest.param('cpu', UNCAPTURED, id='cpu'),
          pytest.param('cpu', CudaOptions(capture=False, channels_last=False), id='cpu, planes')]

ON_CARD = [pytest.param('cuda', CudaOptions(), marks=pytest.mark.cuda, id='captured'),
           pytest.param('cuda', UNCAPTURED, marks=pytest.mark.cuda, id='launched'),
           pytest.param('cuda', CudaOptions(channels_last=False), marks=pytest.mark.cuda,
                        id='planes'),
           pytest.param('cuda', CudaOptions(search=True), marks=pytest.mark.cuda, id='search')]

VARIANTS = (
    {}, {'variant': 'baseline'}, {'variant': 'persistence'}, {'variant': 'without_combination'},
    {'state_update': 'hold', 'forecast_mode': 'direct', 'scheduler_reference': 'temporal'},
    {'levels': (32,), 'feature_channels': (20,), 'lstm_channels': (10,),
     'upsample_channels': 6, 'scheduler_reference': 'fused'},
    {'levels': (8, 16, 32), 'feature_channels': (8, 12, 20), 'lstm_channels': (4, 8, 10),
     'forecast_mode': 'motion'})

#: Largest differences of logits from float32 on the CPU, for 24, 11, 11 and 8 bits of mantissa.
LARGEST = {'fp32': MAX_DIFFERENCE, 'tf32': 0.05, 'fp16': 0.1, 'bf16': 1.0}


@pytest.fixture(autouse=True)
def needs_a_device(request):
    """Skip tests marked for CUDA if there is no device; use one thread."""
    torch.set_num_threads(1)
    if request.node.get_closest_marker('cuda') and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')


def settled(config=CONFIG):
    """Return a network whose BatchNorm statistics fit its weights, as after training."""
    torch.manual_seed(0)
    network = ForecastDetector(config).train()
    for encoder in (*network.encoder1, *network.encoder2):
        if isinstance(encoder.expand, nn.Conv2d):
            nn.init.normal_(encoder.expand.weight, std=0.2)
    for predictor in network.head.classification:
        nn.init.normal_(predictor[1].weight, std=0.5)
    pictures = torch.randint(0, 256, (8, *config.input_size, 3), dtype=torch.uint8)
    for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
        # One step equals twenty steps on the same batch.
        norm.momentum = 1.0 - (1.0 - norm.momentum) ** 20
    with torch.no_grad():
        network.read_step(pictures, network.initial_state(8))
    return network.eval()


@pytest.fixture(scope='module')
def network():
    """Return a settled network; tests must not change it."""
    return settled()


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)


def make(network, device, options, precision='fp32'):
    return CudaGraphBackend(deepcopy(network), device, precision, options)


def card(network):
    return Card('small', CLASSES, network.config)


@pytest.mark.parametrize('channels_last', [True, False])
def test_unpacked_rows_equal_the_packed_state(network, channels_last):
    with torch.no_grad():
        state = network.read_step(torch.from_numpy(pictures(3)), network.initial_state(3)).state
        rows = StateRows(network.initial_state(1), channels_last)
        packed = rows.pack(state)
        assert packed.shape == (3, sum(part[0].numel() for part in state_parts(state)))
        torch.testing.assert_close(rows.unpack(packed), state, rtol=0, atol=0)
        # The row of a stream holds nothing of other streams.
        alone = rows.unpack(packed[1:2])
    for part, whole in zip(state_parts(alone), state_parts(state), strict=True):
        torch.testing.assert_close(part, whole[1:2], rtol=0, atol=0)
        assert part.data_ptr() != whole.data_ptr()


def test_rows_of_several_types_are_refused(network):
    state = network.initial_state(1)
    with pytest.raises(ValueError, match='several types'):
        StateRows(state._replace(expected=(torch.zeros(1, 2, dtype=torch.int64),)))


@pytest.mark.parametrize(('device', 'options'), ON_CPU + ON_CARD)
def test_same_as_eager_pytorch_on_the_cpu(network, device, options):
    clips = [list(pictures(6, seed)) for seed in range(2)]
    parity = compare_backends(TorchBackend(deepcopy(network)), make(network, device, options),
                              clips, card(network))
    assert parity.same and parity.boxes > 20, parity


@pytest.mark.parametrize('values', VARIANTS, ids=str)
@pytest.mark.parametrize(('device', 'options'), ON_CPU[:1] + ON_CARD[:1])
def test_every_variant(values, device, options):
    other = settled(replace(CONFIG, **values))
    parity = compare_backends(TorchBackend(deepcopy(other)), make(other, device, options),
                              [list(pictures(5))], card(other))
    assert parity.same and parity.boxes > 0, parity


@pytest.mark.parametrize('count', [2, 3, SIZES[-1] + 3])
@pytest.mark.parametrize(('device', 'options'), ON_CPU[:1] + ON_CARD[:1])
def test_batch_gives_what_single_streams_give(network, device, options, count):
    backend = make(network, device, options)
    images = pictures(count)
    single = [backend.read_step(images[i:i + 1], backend.initial_state(1))
              for i in range(count)]
    together = backend.read_step(images, backend.initial_state(count))
    ahead = backend.forecast_step(backend.stack([raw.state for raw in single]))
    parted = backend.split(together.state, count)
    assert len(parted) == count and ahead.confidence.shape == (count,)
    for i in sorted({0, 1, count - 1}):
        alone = backend.forecast_step(single[i].state)
        for raw, whole in ((single[i], together), (alone, ahead)):
            for key in ('logits', 'offsets', 'confidence'):
                np.testing.assert_allclose(getattr(whole, key)[i], getattr(raw, key)[0],
                                           atol=MAX_DIFFERENCE)
        np.testing.assert_allclose(backend.forecast_step(parted[i]).logits, alone.logits,
                                   atol=MAX_DIFFERENCE)


@pytest.mark.parametrize(('device', 'options'), ON_CPU[:1] + ON_CARD)
def test_state_and_output_are_values(network, device, options):
    backend = make(network, device, options)
    before = backend.read_step(pictures(1), backend.initial_state(1)).state
    kept = before.clone()
    first = backend.forecast_step(before)
    copies = [torch.as_tensor(value).clone() for value in first]
    again = backend.forecast_step(before)
    backend.read_step(pictures(1, 1), first.state)
    backend.forecast_step(first.state)
    torch.testing.assert_close(before, kept, rtol=0, atol=0)
    for value, copy in zip(first, copies, strict=True):
        torch.testing.assert_close(torch.as_tensor(value), copy, rtol=0, atol=0)
    np.testing.assert_array_equal(first.logits, again.logits)


@pytest.mark.parametrize(('device', 'options'), ON_CPU[:1] + ON_CARD[:1])
def test_further_arguments_of_a_step(device, options):
    other = settled(replace(CONFIG, **VARIANTS[-1]))
    nn.init.normal_(other.motion.encoder.predictors[0][2].bias, std=0.5)
    backend = make(other, device, options)
    state, rows = other.initial_state(2), backend.initial_state(2)
    for number, elapsed in enumerate((1.0, 1.0, 3.0)):
        time = np.full((2, 1), elapsed, np.float32)
        images = pictures(2, number)
        with torch.no_grad():
            head, _, state = (
                other.read_step(torch.from_numpy(images), state, torch.from_numpy(time))
                if number < 2 else other.forecast_step(state, torch.from_numpy(time)))
        raw = (backend.read_step(images, rows, elapsed=time) if number < 2
               else backend.forecast_step(rows, elapsed=time))
        np.testing.assert_allclose(raw.offsets, head.offsets.numpy(), atol=MAX_DIFFERENCE)
        if number == 2:
            sooner = backend.forecast_step(rows, elapsed=time / 3.0).offsets
            assert np.abs(sooner - raw.offsets).max() > 10 * MAX_DIFFERENCE
        rows = raw.state


def test_sizes_of_batches_are_rounded_up_and_prepared_once(network):
    backend = make(network, 'cpu', UNCAPTURED)
    for count in (3, 4, 3, 5):
        backend.read_step(pictures(count), backend.initial_state(count))
    assert sorted(backend._prepared) == [('read_step', 4), ('read_step', 8)]


def test_first_frame_in_half_precision_is_finite(network):
    # The expected features of a first frame are zero, so the norms of the cosines are also zero.
    raw = TorchBackend(deepcopy(network), 'cpu', 'fp16')
    found = raw.read_step(pictures(1), raw.initial_state(1))
    assert np.isfinite(found.confidence).all() and np.isfinite(found.logits).all()


def test_arithmetic_leaves_the_process_as_it_was():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    with arithmetic(torch.device('cuda'), 'fp32', search=True):
        assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    with arithmetic(torch.device('cuda'), 'tf32'):
        assert torch.backends.cudnn.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before


@pytest.mark.cuda
@pytest.mark.parametrize('precision', LARGEST)
def test_precisions_on_a_device(network, precision):
    clips = [list(pictures(6, seed)) for seed in range(2)]
    backend = make_backend(network, 'torch', 'cuda', precision)
    parity = compare_backends(TorchBackend(deepcopy(network)), backend, clips, card(network))
    assert parity.logits < LARGEST[precision] and parity.confidence < LARGEST[precision], parity
    assert (backend.name, backend.precision) == ('torch', precision)


@pytest.mark.cuda
def test_launched_graph_gives_the_captured_outputs(network):
    captured, launched = (make(network, 'cuda', CudaOptions(capture=capture))
                          for capture in (True, False))
    a, b = (backend.read_step(pictures(2), backend.initial_state(2))
            for backend in (captured, launched))
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-4)
    torch.testing.assert_close(captured.forecast_step(a.state).state,
                               launched.forecast_step(b.state).state, atol=1e-4, rtol=0)


@pytest.mark.cuda
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_detector_on_a_device(network, precision, tmp_path):
    path = tmp_path / 'small.safetensors'
    save_checkpoint(path, network, card(network), torch.float32)
    detectors = [Detector.load(path, device=device, precision=kind, backend='torch')
                 for device, kind in (('cpu', 'fp32'), ('cuda', precision))]
    detectors[1].warm_up(3)
    settings = DetectorSettings(AlternatePolicy(1), score_threshold=0.2)
    states = [StreamState.initial(), StreamState.initial()]
    found = 0
    for picture in pictures(6):
        frame = Frame((64, 96), lambda picture=picture: Pixels(picture, 'bgr'))
        outcomes = [detector.step(frame, state, settings)
                    for detector, state in zip(detectors, states, strict=True)]
        states = [state for _, state in outcomes]
        a, b = (result.detections for result, _ in outcomes)
        found += len(a)
        assert outcomes[0][0].decision.kind == outcomes[1][0].decision.kind
        if precision == 'fp32':
            np.testing.assert_allclose(a.boxes, b.boxes, atol=0.1)
            np.testing.assert_array_equal(a.labels, b.labels)
    assert found > 0 and detectors[1].device.startswith('cuda')
