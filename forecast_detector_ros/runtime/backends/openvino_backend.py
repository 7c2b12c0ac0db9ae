# SPDX-License-Identifier: Apache-2.0
"""Back-end: OpenVINO on the CPU."""

from threading import Lock
from typing import Any

import numpy as np

from .graph_backend import GraphBackend
from .quiet_openvino import import_openvino
from .step_graph import STEPS
from .torch_backend import DeviceError
from ...model.network import ForecastDetector

HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16', 'int8': 'f32'}
"""
OpenVINO's inference precision for each of ours.

Said always: left alone, OpenVINO computes in bf16 or fp16 wherever the processor can
(https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html).
"""

_CAPABILITIES = {'bf16': 'BF16', 'fp16': 'FP16'}


class OpenVinoBackend(GraphBackend):
    """
    Run the graphs with OpenVINO.

    One stream at a time has a graph of fixed shape; for batches there is one with an open batch,
    made when the first batch comes.

    Parameters
    ----------
    network:
        Whose steps the graphs are.
    graphs:
        The ONNX bytes of each of `STEPS`; quantised ones for int8.
    device, precision:
        ``cpu``; one of `HINTS`.
    threads:
        Threads of one inference, at least 1.

    Raises
    ------
    DeviceError
        If the processor has no instructions for bf16 or fp16.

    """

    name = 'openvino'

    def __init__(self, network: ForecastDetector, graphs: dict[str, bytes], device: str = 'cpu',
                 precision: str = 'fp32', threads: int = 1) -> None:
        super().__init__(network, device, precision)
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        wanted = _CAPABILITIES.get(precision)
        if wanted and wanted not in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
            raise DeviceError(f'precision is {precision!r}, but OpenVINO finds no instructions '
                              'for it in this processor; use fp32')
        self._options = {
            'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1',
            'INFERENCE_NUM_THREADS': str(threads), 'INFERENCE_PRECISION_HINT': HINTS[precision],
            # Every process would pin its threads to the same first cores.
            'ENABLE_CPU_PINNING': 'NO'}
        self._graphs = graphs
        self._requests: dict[tuple[str, bool], Any] = {}
        # A request holds the arrays of one inference.
        self._lock = Lock()
        for step in STEPS:
            self._request(step, 1)

    def _request(self, step: str, batch: int) -> Any:
        """Give the request for a step, compiled when it is first needed."""
        key = (step, batch == 1)
        if key not in self._requests:
            model = self._core.read_model(self._graphs[step])
            if batch == 1:
                model.reshape({port.any_name: [1, *list(port.partial_shape)[1:]]
                               for port in model.inputs})
            compiled = self._core.compile_model(model, 'CPU', self._options)
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        # The results are written into arrays that are the caller's: nothing is copied.
        found = {name: np.empty((batch, *self._shapes[name]), np.float32)
                 for name in self._names[step][1]}
        tensor = self._openvino.Tensor
        with self._lock:
            request = self._request(step, batch)
            for name, array in feeds.items():
                request.set_tensor(name, tensor(array, shared_memory=True))
            for name, array in found.items():
                request.set_tensor(name, tensor(array, shared_memory=True))
            request.infer()
        return found
