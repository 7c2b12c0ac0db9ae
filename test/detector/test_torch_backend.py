# SPDX-License-Identifier: Apache-2.0
"""Check devices and precisions of the PyTorch back-end."""

from copy import deepcopy

from forecast_detector_ros.detector.backends import RawOutput
from forecast_detector_ros.detector.backends.torch_backend import (
    DeviceError,
    PRECISIONS,
    resolve_device,
    TorchBackend,
)
from forecast_detector_ros.detector.checkpoint import RuntimeConfigError
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.model.network import ForecastDetector
import numpy as np
import pytest
import torch

from .conftest import images


def refusal(function, *arguments, **values):
    with pytest.raises(DeviceError) as error:
        function(*arguments, **values)
    assert isinstance(error.value, RuntimeConfigError) and '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('name', ['', 'gpu', 'CPU', 'meta', 'mps', 'cuda:x', 'cuda:-1', 'tpu:0'])
def test_unknown_device(name):
    message = refusal(resolve_device, name)
    assert repr(name) in message and 'must be auto, cpu, cuda or cuda:N' in message


@pytest.mark.parametrize('name', ['cuda', 'cuda:0'])
def test_cuda_that_is_absent(name, checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    message = refusal(Detector.load, checkpoint, device=name)
    assert repr(name) in message and 'no CUDA device' in message


def test_cuda_index_that_is_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert resolve_device('cuda:0') == torch.device('cuda:0')
    assert 'only 1 CUDA' in refusal(resolve_device, 'cuda:1')


def test_unknown_precision(checkpoint):
    message = refusal(Detector.load, checkpoint, precision='fp8')
    assert "'fp8'" in message and 'fp16' in message and 'fp32' in message
    message = refusal(TorchBackend, None, precision='int8')
    assert "'int8'" in message and 'fp16' in message and 'fp32' in message


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_types(precision, network):
    backend = TorchBackend(network, 'cpu', precision)
    raw = backend.read_step(images(), backend.initial_state(1))
    raw = backend.forecast_step(raw.state)
    assert raw.logits.dtype == raw.offsets.dtype == backend.anchors.dtype == np.float32
    assert raw.confidence.dtype == np.float32 and raw.confidence.shape == (1,)
    assert raw.state.forecast[0].dtype == PRECISIONS[precision]
    assert (backend.name, backend.device, backend.precision) == ('torch', 'cpu', precision)


def test_half_precision_is_close(network, settle):
    settled = settle(ForecastDetector(network.config))
    single, half = TorchBackend(deepcopy(settled)), TorchBackend(deepcopy(settled), 'cpu', 'fp16')
    assert np.array_equal(half.anchors, single.anchors)
    a, b = (RawOutput(None, None, None, backend.initial_state(1)) for backend in (single, half))
    for index in range(4):
        if index % 2:
            a, b = single.forecast_step(a.state), half.forecast_step(b.state)
        else:
            a = single.read_step(images(index), a.state)
            b = half.read_step(images(index), b.state)
        for x, y in ((a.logits, b.logits), (a.offsets, b.offsets),
                     (a.state.forecast[0].numpy(), b.state.forecast[0].float().numpy())):
            assert np.abs(x - y).max() < 0.02 * x.std()
        assert a.confidence == pytest.approx(b.confidence, abs=1e-3)


def test_batch_of_streams(network):
    backend = TorchBackend(network)
    pictures = images(batch=2)
    together = backend.read_step(pictures, backend.initial_state(2))
    assert together.confidence.shape == (2,)
    for i in range(2):
        alone = backend.read_step(pictures[i:i + 1], backend.initial_state(1))
        np.testing.assert_allclose(together.logits[i], alone.logits[0], atol=1e-4, rtol=1e-4)
        assert together.confidence[i] == pytest.approx(alone.confidence[0], abs=1e-5)


def test_stacked_streams_are_split_again(network):
    backend = TorchBackend(network)
    states = [backend.read_step(images(seed), backend.initial_state(1)).state
              for seed in range(3)]
    batch = backend.stack(states)
    assert batch.forecast[0].shape[0] == 3
    for before, after in zip(states, backend.split(batch, 3), strict=True):
        torch.testing.assert_close(after, before, atol=0, rtol=0)
    together = backend.forecast_step(batch)
    for index, state in enumerate(states):
        alone = backend.forecast_step(state)
        np.testing.assert_allclose(together.logits[index], alone.logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_is_close_to_the_cpu(network):
    cpu, cuda = TorchBackend(deepcopy(network)), TorchBackend(deepcopy(network), 'cuda')
    a = cpu.read_step(images(), cpu.initial_state(1))
    b = cuda.read_step(images(), cuda.initial_state(1))
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-2, rtol=1e-2)
    assert a.confidence == pytest.approx(b.confidence, abs=1e-2)
