# SPDX-License-Identifier: Apache-2.0
"""
Turn the graphs of a network into int8 by static quantisation with calibration.

ONNX Runtime's quantiser writes graphs with QuantizeLinear and DequantizeLinear (QDQ), which ONNX
Runtime, OpenVINO and TensorRT all read.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .graph_backend import StepGraphs, STEPS
from .onnxruntime_backend import OnnxRuntimeBackend
from .parity import run_clips
from ..host import import_onnxruntime

#: Parts of the graph that stay in float, by their nodes' names. The gates decide what the cell
#: keeps over many frames, where rounding adds up; the scheduler's score is compared with a
#: threshold. Together they are a small part of either step. The first convolution and the first
#: three blocks of MobileNetV2 cost most of the accuracy where they are quantised
#: (docs/results/performance.md), and are not small.
FLOAT_PARTS = ('/lstm/gates/', '/scheduler/', '/stem.0/', '/stem.1/', '/stem.2/', '/stem.3/')


class _Recorder(OnnxRuntimeBackend):
    """Keeps what goes into the graphs."""

    def __init__(self, model: StepGraphs) -> None:
        super().__init__(model)
        self.feeds: dict[str, list[dict[str, np.ndarray]]] = {step: [] for step in STEPS}

    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        self.feeds[step].append(feeds)
        return super()._run(step, feeds, batch)


def quantise(model: StepGraphs, clips: Sequence[Sequence[np.ndarray]]) -> StepGraphs:
    """
    Quantise convolutions, but for `FLOAT_PARTS`, to int8.

    Weights are signed with a scale for each channel, activations unsigned with a range for each
    tensor, the range met while both steps run over the clips in float.  Everything else, the
    state included, stays float32.

    :param model: the graphs in float
    :param clips: as for `run_clips`; together they must hold a frame of either kind
    :returns: the same with quantised graphs
    """
    import onnx
    import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    recorder = _Recorder(model)
    for _ in run_clips(recorder, clips):
        pass

    class Feeds(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives calibration data to the quantiser."""

        def __init__(self, step: str) -> None:
            self._left = iter(recorder.feeds[step])

        def get_next(self) -> Any:
            """Give the next feed, or None at the end."""
            return next(self._left, None)

    result = {}
    with TemporaryDirectory() as folder:
        for step in STEPS:
            plain, ready, made = (Path(folder) / f'{step}.{name}.onnx'
                                  for name in ('plain', 'ready', 'int8'))
            plain.write_bytes(model.graphs[step])
            quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            loaded = onnx.load(str(ready))
            keep = [node.name for node in loaded.graph.node
                    if any(part in f'/{node.name}' for part in FLOAT_PARTS)]
            quantization.quantize_static(
                str(ready), str(made), Feeds(step), nodes_to_exclude=keep,
                op_types_to_quantize=['Conv'], per_channel=True,
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8)
            result[step] = made.read_bytes()
    return replace(model, graphs=result)
