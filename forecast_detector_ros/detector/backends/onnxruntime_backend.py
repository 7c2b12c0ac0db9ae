# SPDX-License-Identifier: Apache-2.0
"""
Back-end: ONNX Runtime on the CPU, or on NVIDIA's GPUs with its CUDA or TensorRT provider.

CUDA and TensorRT follow the documentation and have not been measured:
https://onnxruntime.ai/docs/execution-providers/
"""

from typing import Any

import numpy as np

from .graph_backend import GraphBackend, StepGraphs, STEPS
from ..host import DeviceError, import_onnxruntime
from ...files import user_cache

# Errors of a graph raise exceptions, and the warnings about initialisers are not useful.
_LOG_ERRORS = 3


class OnnxRuntimeBackend(GraphBackend):
    """
    Run the graphs with ONNX Runtime.

    :param device: ``cpu``, ``cuda`` or ``cuda:N``
    :param precision: that of the graphs, ``fp32`` or ``int8``; with TensorRT also ``fp16``
    :param threads: threads of one operator, at least 1
    :param tensorrt: whether TensorRT runs the operators that it supports on a CUDA device
    :raises DeviceError: if this build of ONNX Runtime has no provider for the device
    """

    name = 'onnxruntime'

    def __init__(self, model: StepGraphs, device: str = 'cpu', precision: str = 'fp32',
                 threads: int = 1, tensorrt: bool = False) -> None:
        onnxruntime = import_onnxruntime()
        super().__init__(model, device, precision)
        if tensorrt:
            self.name = 'tensorrt'
        providers = _providers(device, precision, tensorrt)
        available = onnxruntime.get_available_providers()
        if providers[0][0] not in available:
            raise DeviceError(
                f'device is {device!r} and backend {self.name!r}, but this onnxruntime has no '
                f'{providers[0][0]} (it has {", ".join(available)}); onnxruntime-gpu has it')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS
        # Spinning threads would take CPU time from the executor and the middleware.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        self._sessions = {
            step: onnxruntime.InferenceSession(model.graphs[step], options, providers=providers)
            for step in STEPS}
        for session in self._sessions.values():
            if session.get_providers()[0] != providers[0][0]:
                raise DeviceError(f'device is {device!r}, but {providers[0][0]} does not start '
                                  'here; its libraries are missing or do not fit the driver')

    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        names = self._names[step][1]
        return dict(zip(names, self._sessions[step].run(names, feeds)))


def _providers(device: str, precision: str, tensorrt: bool) -> list[tuple[str, dict[str, Any]]]:
    cpu: tuple[str, dict[str, Any]] = ('CPUExecutionProvider', {})
    if device == 'cpu':
        return [cpu]
    index = {'device_id': int(device.partition(':')[2] or 0)}
    cuda = ('CUDAExecutionProvider', index)
    if not tensorrt:
        return [cuda, cpu]
    # Building an engine takes minutes, so engines are cached between starts.
    cache = user_cache('tensorrt')
    kept = {} if cache is None else {
        'trt_engine_cache_enable': True, 'trt_engine_cache_path': str(cache)}
    return [('TensorrtExecutionProvider', {
        **index, 'trt_fp16_enable': precision == 'fp16', 'trt_int8_enable': precision == 'int8',
        **kept}), cuda, cpu]
