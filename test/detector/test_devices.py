# SPDX-License-Identifier: Apache-2.0
"""The GPU that is there is used, and what is said where there is none."""

import logging

from forecast_detector_ros.detector.backends.devices import cuda_absence, provider_absence
from forecast_detector_ros.detector.backends.registry import BACKENDS, choose_device, make_backend
from forecast_detector_ros.detector.backends.torch_backend import DeviceError, resolve_device
from forecast_detector_ros.detector.detector import Detector
import pytest
import torch

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')


@pytest.mark.parametrize('name', ['cpu', 'cuda:1'])
def test_what_is_asked_for_is_taken(name):
    choice = choose_device(name, 'openvino')
    assert (choice.device, choice.reason) == (name, 'asked for')


@without_cuda
@pytest.mark.parametrize('name', ['', 'auto'])
def test_without_cuda_the_cpu_is_taken_and_the_reason_said(name):
    choice = choose_device(name)
    assert choice.device == 'cpu'
    assert 'NVIDIA driver' in choice.reason or 'PyTorch' in choice.reason
    assert choice.reason == cuda_absence() and '\n' not in choice.reason
    assert resolve_device('auto') == torch.device('cpu')


@pytest.mark.parametrize(('backend', 'precision', 'words'), [
    ('openvino', 'fp32', 'openvino has no CUDA'), ('torch', 'int8', 'no precision int8'),
    ('auto', 'int8', 'torch has no precision int8')])
def test_what_a_back_end_cannot_do_on_cuda_is_done_on_the_cpu(backend, precision, words):
    choice = choose_device('auto', backend, precision)
    assert choice.device == 'cpu' and words in choice.reason


@without_cuda
def test_a_back_end_for_cuda_alone_says_that_there_is_none(network):
    assert choose_device('auto', 'tensorrt').device == 'cuda'
    with pytest.raises(DeviceError, match='no CUDA device here'):
        make_backend(network, 'tensorrt', 'auto')
    assert provider_absence('Tensorrt')


@without_cuda
def test_log_says_device_and_reason(checkpoint, caplog):
    with caplog.at_level(logging.INFO):
        detector = Detector.load(checkpoint, backend='torch')
    assert detector.device == 'cpu' and detector.device_reason == cuda_absence()
    assert f'torch on cpu ({cuda_absence()})' in caplog.text


def test_every_back_end_can_be_asked():
    for name in BACKENDS:
        assert choose_device('auto', name).device in ('cpu', 'cuda')


def test_only_cuda_has_tf32(network):
    with pytest.raises(DeviceError, match='tf32'):
        make_backend(network, 'torch', 'cpu', 'tf32')
