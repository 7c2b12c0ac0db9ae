# SPDX-License-Identifier: Apache-2.0
"""
Make ONNX graphs of a network's two steps, and int8 graphs from these.

`graph_backend` describes their inputs and outputs.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
import io
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
import warnings

import numpy as np
import torch
from torch import nn, Tensor

from .graph_backend import (
    FORECAST_STEP,
    HELD,
    OPSET,
    READ_STEP,
    RESULTS,
    StateLayout,
    step_names,
    StepGraphs,
    STEPS,
)
from .onnxruntime_backend import OnnxRuntimeBackend
from .parity import run_clips
from .torch_backend import state_parts
from ..checkpoint import RuntimeConfigError
from ..host import import_onnxruntime
from ...model.config import EXPECTED
from ...model.encoder import LSTMState
from ...model.extractor import fold_batch_norm
from ...model.motion_forecast import Keys, MotionState
from ...model.network import ForecastDetector, NetworkState
from ...model.scheduler import confidence

VIEWS = 'views'  #: Part of the state: the boxes of the last read frame, one per cell

#: Parts of a network, and of its state, that have an LSTM at every level.
_ENCODERS = ('encoder1', 'encoder2', 'recurrent')


class GraphError(RuntimeConfigError):
    """A step cannot be exported as a graph here; one line."""


def state_layout(network: ForecastDetector) -> StateLayout:
    """Return the layout of a network's state."""
    if network.motion is not None:
        return _motion_layout(network)
    config = network.config
    levels = tuple(zip(config.levels, network.feature_sizes, config.feature_channels,
                       config.lstm_channels))
    forecast = {f'forecast_{stride}': (channels, *size) for stride, size, channels, _ in levels}
    encoders = {
        f'{name}_{stride}_{part}': (hidden, *size)
        for name in _ENCODERS if len(getattr(network, name))
        for stride, size, _, hidden in levels for part in LSTMState._fields}
    changed = () if config.state_update == 'hold' or network.recurrent else tuple(encoders)
    if len(network.encoder1):
        # In the other variants, a forecast step keeps the last feature.
        changed = (*forecast, *changed)
    expected: dict[str, tuple[int, int, int]] = {}
    needed = tuple(encoders)
    if network.remembers_expected:
        # The reference of a read step is the forecast of its frame. A forecast step keeps the
        # reference of the last read step.
        deepest = f'forecast_{config.levels[-1]}'
        expected[EXPECTED] = forecast[deepest]
        needed = (deepest, *needed)
    return StateLayout(
        {**forecast, **encoders, **expected},
        {READ_STEP: needed,
         FORECAST_STEP: (*forecast, *(() if network.recurrent else encoders), *expected)},
        {READ_STEP: (*forecast, *encoders, *expected), FORECAST_STEP: changed},
        {step: RESULTS for step in STEPS})


def _motion_layout(network: ForecastDetector) -> StateLayout:
    motion = network.initial_state(1).motion
    assert isinstance(motion, MotionState)
    names = (*(f'keys_{stride}' for stride in network.config.levels),
             *((VIEWS,) if network.config.motion_from_boxes else ()),
             *(f'memory_{part}' for part in LSTMState._fields),
             *HELD, *MotionState._fields[4:])
    parts = state_parts(motion)
    shapes = {name: tuple(part.shape[1:]) for name, part in zip(names, parts)}
    compared = tuple(name for name in names if name.startswith(('keys', VIEWS, 'memory')))
    return StateLayout(
        shapes,
        {READ_STEP: (*compared, 'times'),
         FORECAST_STEP: ('read_offsets', 'motion', 'summary', 'times')},
        {READ_STEP: (*compared, 'motion', 'summary', 'times'), FORECAST_STEP: ('times',)},
        {READ_STEP: RESULTS, FORECAST_STEP: ('offsets', 'confidence')}, HELD, True)


def fold_for_graphs(network: ForecastDetector) -> ForecastDetector:
    """
    Return a copy of a network with folded convolutions.

    BatchNorm, ImageNet's standard deviation and the order of the channels are folded. The copy
    takes BGR in [0, 255] minus the mean.
    """
    folded = fold_batch_norm(network)
    assert isinstance(folded, ForecastDetector)
    weight = folded.extractor.stem.get_submodule('0.0').get_parameter('weight')
    with torch.no_grad():
        weight.copy_((weight / folded.std).flip(1))
    return folded


class StepModule(nn.Module):
    """
    One step of a network, with inputs and outputs in the order of the layout.

    :param network: result of `fold_for_graphs`
    :param step: one of `STEPS`
    """

    mean: Tensor

    def __init__(self, network: ForecastDetector, step: str) -> None:
        super().__init__()
        self.network = network
        self.step = step
        self.layout = state_layout(network)
        # In BGR order, as the channels are not swapped. The mean cannot be folded, because the
        # first convolution pads with zeros, which must stand for ImageNet's mean.
        mean = self.network.mean.flip(1).flatten().repeat(network.config.input_size[1])
        self.register_buffer('mean', mean, persistent=False)
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the step on the tensors of `inputs`: image, time and parts of the state."""
        names = self.layout.inputs[self.step]
        parts = dict(zip(names, tensors[-len(names):] if names else ()))
        if self.network.motion is not None:
            return self._move(tensors, parts)
        strides = self.network.config.levels

        def encoder(name: str) -> tuple[LSTMState, ...]:
            if f'{name}_{strides[0]}_hidden' not in parts:
                return ()
            return tuple(LSTMState(parts[f'{name}_{stride}_hidden'],
                                   parts[f'{name}_{stride}_cell']) for stride in strides)

        state = NetworkState(tuple(parts[f'forecast_{stride}'] for stride in strides
                                   if f'forecast_{stride}' in parts),
                             encoder('encoder1'), encoder('encoder2'),
                             (parts[EXPECTED],) if EXPECTED in parts else (),
                             recurrent=encoder('recurrent'))
        output = (self.network.read_features(self._features(tensors[0]), state)
                  if self.step == READ_STEP else self.network.forecast_step(state))
        after = output.state
        values = dict(zip(self.layout.shapes, (
            *after.forecast, *(part for name in _ENCODERS for pair in getattr(after, name)
                               for part in pair), *after.expected)))
        return (*output.head, confidence(output.decision),
                *(values[name] for name in self.layout.outputs[self.step]))

    def _move(self, tensors: tuple[Tensor, ...], parts: dict[str, Tensor]
              ) -> tuple[Tensor, ...]:
        motion = self.network.motion
        assert motion is not None
        nothing = parts['times']
        state = MotionState(
            Keys(tuple(part for name, part in parts.items() if name.startswith('keys')),
                 parts.get(VIEWS, ())),
            LSTMState(*(parts.get(f'memory_{name}', nothing) for name in LSTMState._fields)),
            *(parts.get(name, nothing) for name in (*HELD, *MotionState._fields[4:])))
        if self.step == FORECAST_STEP:
            offsets, decision, after = motion.forecast(state, tensors[0])
            return offsets, confidence(decision), after.times
        output = self.network.read_features(self._features(tensors[0]),
                                            NetworkState((), (), (), motion=state), tensors[1])
        read = output.state.motion
        assert isinstance(read, MotionState)
        return (*output.head, confidence(output.decision), *state_parts(read.keys), *read.memory,
                read.motion, read.summary, read.times)

    def _features(self, image: Tensor) -> tuple[Tensor, ...]:
        # An operation over whole rows is faster than one over three channels.
        rows = image.flatten(2).to(self.mean.dtype) - self.mean
        pixels = rows.reshape(-1, *self.network.config.input_size, 3)
        return self.network.extract(pixels.permute(0, 3, 1, 2))


def make_graphs(network: ForecastDetector) -> StepGraphs:
    """
    Make the graphs of a network.

    :param network: float32, on the CPU; it is not changed
    :raises GraphError: if the package onnx is not installed, which PyTorch needs to write graphs
    """
    if find_spec('onnx') is None:
        raise GraphError('turning a checkpoint into a graph needs the package onnx: '
                         'pip install onnx; or run export on another machine')
    folded = fold_for_graphs(network)
    return StepGraphs({step: step_onnx(folded, step) for step in STEPS}, state_layout(network),
                      network.anchors.detach().float().cpu().numpy(), network.config.classes)


def step_onnx(folded: ForecastDetector, step: str) -> bytes:
    """
    Export one step as ONNX.

    :param folded: result of `fold_for_graphs`
    :param step: one of `STEPS`
    :returns: a model with weights
    """
    module = StepModule(folded, step)
    inputs, outputs = step_names(module.layout, step)
    # Two frames, because with one frame tracing may fix the batch size at 1.
    tensors = [torch.zeros(2, *folded.config.input_size, 3, dtype=torch.uint8)] \
        if step == READ_STEP else []
    tensors += [torch.ones(2, 1)] if module.layout.timed else []
    tensors += [torch.zeros(2, *module.layout.shapes[name]) for name in module.layout.inputs[step]]
    return trace_onnx(module, tuple(tensors), input_names=inputs, output_names=outputs,
                      dynamic_axes={name: {0: 'batch'} for name in (*inputs, *outputs)})


def trace_onnx(module: nn.Module, example: tuple[torch.Tensor, ...], **names: Any) -> bytes:
    """
    Export a module as ONNX by tracing it once.

    PyTorch calls this exporter legacy, but it is much faster than the newer one and needs one
    package less.

    :param module: module in evaluation mode
    :param names: arguments of `torch.onnx.export` for names and dynamic axes
    """
    data: Any = io.BytesIO()  # PyTorch accepts it, but its type hints do not.
    quiet = logging.getLogger('torch.onnx')
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(module, example, data, dynamo=False, opset_version=OPSET, **names)
    finally:
        quiet.setLevel(level)
    return data.getvalue()


#: Parts of the graph that stay in float, by their nodes' names. Rounding in the gates would add up
#: over many frames, and the scheduler's score is compared with a threshold; both are a small part
#: of a step. Quantising the first convolution and the first two blocks of MobileNetV2 would cost
#: the most accuracy (docs/results/performance.md), although they are not small.
FLOAT_PARTS = ('/lstm/gates/', '/scheduler/', '/stem.0/', '/stem.1/', '/stem.2/')

#: Quantised operators. ReLU6 (Clip) is quantised with its convolution, because the range, and so
#: the quantisation step, would be wider without the clipping.
QUANTISED = ['Conv', 'Clip']


class _Recorder(OnnxRuntimeBackend):
    """Records the inputs of the graphs."""

    def __init__(self, model: StepGraphs) -> None:
        super().__init__(model)
        self.feeds: dict[str, list[dict[str, np.ndarray]]] = {step: [] for step in STEPS}

    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        self.feeds[step].append(feeds)
        return super()._run(step, feeds, batch)


def quantise(model: StepGraphs, clips: Sequence[Sequence[np.ndarray]]) -> StepGraphs:
    """
    Quantise the convolutions, except `FLOAT_PARTS`, to int8 with static calibration.

    ONNX Runtime's quantiser writes graphs with QuantizeLinear and DequantizeLinear (QDQ), which
    ONNX Runtime, OpenVINO and TensorRT can read:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

    Weights are signed, with a scale for each channel. Activations are unsigned, with a range for
    each tensor, measured while both steps run over the clips in float. All else stays float32.

    :param model: the graphs in float
    :param clips: as for `run_clips`; they must have both read and forecast frames
    :returns: the model with quantised graphs
    """
    import onnx
    import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    recorder = _Recorder(model)
    for _ in run_clips(recorder, clips):
        pass

    class Feeds(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Calibration data of one step."""

        def __init__(self, step: str) -> None:
            self._left = iter(recorder.feeds[step])

        def get_next(self) -> Any:
            """Return the next inputs, or None at the end."""
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
                op_types_to_quantize=QUANTISED, per_channel=True,
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8)
            result[step] = made.read_bytes()
    return replace(model, graphs=result)
