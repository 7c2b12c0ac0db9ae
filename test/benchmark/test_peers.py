# SPDX-License-Identifier: Apache-2.0
"""Rivals: torchvision's networks and a user's ONNX file."""
from __future__ import annotations

from pathlib import Path

from forecast_detector_ros.benchmark.peers import (
    count_macs,
    cuda_peers,
    graph_runner,
    onnx_peers,
    OnnxPeer,
    PeerError,
    torchvision_peers,
)
from forecast_detector_ros.detector.backends.step_graph import trace_onnx
import pytest
import torch
from torch import nn


class Net(nn.Module):
    """A convolution with 3 * 8 * 9 multiply-accumulates per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return eight maps."""
        return self.conv(images)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small network as an ONNX file."""
    pytest.importorskip('onnx')
    path = tmp_path / 'net.onnx'
    example = torch.zeros(1, 3, 32, 32)
    path.write_bytes(trace_onnx(Net().eval(), (example,), input_names=['images']))
    return path


def test_multiply_accumulates_are_counted() -> None:
    assert count_macs(lambda: Net()(torch.zeros(1, 3, 10, 12))) == 10 * 12 * 3 * 8 * 9


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_network_of_a_file_runs(model: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    peer = OnnxPeer.parse(f'{model}:32')
    (contender,) = onnx_peers([peer], ['torch', runtime])
    assert (contender.name, contender.group) == (f'net 32 {runtime}', 'peer')
    contender.run()


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_file_that_does_not_fit_is_one_line(model: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    broken = model.with_name('broken.onnx')
    broken.write_bytes(b'no model')
    for peer, words in ((OnnxPeer(model, 64), '[1, 3, 64, 64]'), (OnnxPeer(broken, 32), runtime)):
        with pytest.raises(PeerError) as refusal:
            onnx_peers([peer], [runtime])
        text = str(refusal.value)
        assert text.startswith(str(peer.path)) and words in text and '\n' not in text


def test_runner_refuses_a_network_with_two_inputs() -> None:
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node('Add', ['a', 'b'], ['c'])], 'two',
        [helper.make_tensor_value_info(name, kind, [1, 3, 8, 8]) for name in 'ab'],
        [helper.make_tensor_value_info('c', kind, [1, 3, 8, 8])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    with pytest.raises(PeerError, match='has 2 inputs'):
        graph_runner('onnxruntime', model.SerializeToString(), (8, 8))


@pytest.mark.slow
def test_ssdlite_of_torchvision() -> None:
    (contender,) = torchvision_peers(['torch', 'tensorrt'], 1, ['ssdlite320_mobilenet_v3_large'])
    # torchvision documents 0.58 GFLOPS, which counts a multiply-accumulate once.
    assert contender.macs == pytest.approx(0.58e9, rel=0.02)
    logits, offsets = contender.run()
    assert logits.shape[:2] == offsets.shape[:2] == (1, 3234)


@pytest.mark.slow
def test_ssdlite_of_torchvision_for_a_device() -> None:
    single, four = cuda_peers('cpu', 'fp32', (1, 4), False, ['ssdlite320_mobilenet_v3_large'])
    assert single.name == 'ssdlite320_mobilenet_v3_large launched fp32'
    assert four.name.endswith(' x4') and four.batch == 4 and four.macs == 4 * single.macs
    single.run()
