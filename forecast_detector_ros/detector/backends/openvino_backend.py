# SPDX-License-Identifier: Apache-2.0
"""Back-end: OpenVINO on the CPU, with a cache of compiled graphs."""

from collections.abc import Iterator
from contextlib import suppress
import hashlib
import logging
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np

from .graph_backend import (
    FORECAST_STEP,
    GraphBackend,
    IMAGE,
    MAP,
    NEXT,
    READ_STEP,
    StepGraphs,
    STEPS,
)
from ..host import DeviceError, import_openvino
from ...files import trim_folder, user_cache, write_atomically

_log = logging.getLogger(__name__)

#: Size of the cache; the compiled graphs of a network in one precision have 10 MB.
MOST_BYTES = 2**28

_SUFFIX = '.sha256'


class CompiledCache:
    """
    A folder for the compiled graphs of one network, which OpenVINO reads and writes.

    OpenVINO detects a truncated file but not a changed one. So files are checked by digest.

    :param root: existing folder of all networks
    :raises OSError: if the folder cannot be written
    """

    def __init__(self, root: Path, model: StepGraphs) -> None:
        digest = hashlib.sha256()
        for step in STEPS:
            digest.update(model.graphs[step])
        self._root = root
        self.folder = root / digest.hexdigest()[:32]
        self.folder.mkdir(exist_ok=True)
        for path in self._files():
            seal = _seal(path)
            with suppress(OSError):
                if not seal.is_file() or seal.read_text() != _digest(path):
                    path.unlink()

    def keep(self) -> None:
        """Store the digests of new files, and remove the oldest files beyond `MOST_BYTES`."""
        with suppress(OSError):
            for path in self._files():
                if not _seal(path).is_file():
                    write_atomically(_seal(path), _digest(path).encode())
            trim_folder(self._root, MOST_BYTES)

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.folder.iterdir()) if path.suffix != _SUFFIX]


def _seal(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiled_cache(graphs: StepGraphs) -> CompiledCache | None:
    """Return the cache of these graphs; None if the user's cache cannot be written."""
    root = user_cache('openvino')
    try:
        return None if root is None else CompiledCache(root, graphs)
    except OSError as error:
        _log.warning('%s: nothing is cached: %s', root, error.strerror)
        return None


# Always set, because by default OpenVINO computes in bf16 or fp16 if the processor can.
# https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
#: OpenVINO's inference precision for each precision.
HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16', 'int8': 'f32'}

_CAPABILITIES = {'bf16': 'BF16', 'fp16': 'FP16'}

#: OpenVINO's settings, except threads and precision.
OPTIONS = {'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1',
           # With pinning, the threads of all processes would use the same first cores.
           'ENABLE_CPU_PINNING': 'NO'}

#: Most pictures that one graph reads, by precision. The backbone's first maps of several pictures
#: do not fit into the processor's caches; maps of 16 bits have half the size:
#: docs/design/speed.md, "Several streams".
READ_TOGETHER = {'fp32': 1, 'bf16': 4, 'fp16': 4, 'int8': 4}

FORECAST_TOGETHER = 8  #: Most streams that one graph forecasts; their maps are small


class CompiledStep:
    """
    A compiled step for one batch size.

    Maps of the state are ``(B, h, w, C)``, the memory layout of OpenVINO's convolutions, so that
    OpenVINO does not reorder them.
    """

    def __init__(self, openvino: Any, core: Any, graph: bytes,
                 names: tuple[list[str], list[str]], batch: int, options: dict[str, str]) -> None:
        """Compile; `names` are the names of inputs and outputs in the graph's order."""
        self._inputs, self._outputs = names
        self._tensor = openvino.Tensor
        model = core.read_model(graph)
        # A graph with a fixed batch size is faster.
        model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        steps = openvino.preprocess.PrePostProcessor(model)
        ours, theirs = openvino.Layout('NHWC'), openvino.Layout('NCHW')
        parts = [steps.input(index) for index, name in enumerate(self._inputs)
                 if name != IMAGE and _is_map(model.input(index))]
        parts += [steps.output(index) for index, name in enumerate(self._outputs)
                  if name.startswith(NEXT) and _is_map(model.output(index))]
        for part in parts:
            part.tensor().set_layout(ours)
            part.model().set_layout(theirs)
        model = steps.build()
        if options['INFERENCE_PRECISION_HINT'] == HINTS['bf16']:
            model = _with_exact_start(openvino, core, model)
        self.request = core.compile_model(model, 'CPU', options).create_infer_request()

    def __call__(self, feeds: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
        """Run on contiguous arrays `feeds`, and write the results into contiguous `found`."""
        request, tensor = self.request, self._tensor
        # Setting a tensor by index takes half the time of setting it by name.
        for index, name in enumerate(self._inputs):
            request.set_input_tensor(index, tensor(feeds[name], shared_memory=True))
        for index, name in enumerate(self._outputs):
            request.set_output_tensor(index, tensor(found[name], shared_memory=True))
        request.infer()


def _with_exact_start(openvino: Any, core: Any, model: Any) -> Any:
    """
    Let the first convolution and block 1 compute in float32 while the others use bf16.

    The depthwise convolution of block 1 subtracts large numbers and causes most of the network's
    error (docs/results/performance.md). Python can set this attribute, which OpenVINO's
    ``disable_fp16_compression`` also sets, only in the text of a model.
    """
    try:
        with TemporaryDirectory() as folder:
            text, weights = Path(folder) / 'model.xml', Path(folder) / 'model.bin'
            openvino.serialize(model, text, weights)
            marked = _EXACT_LAYER.sub(rf'\g<0>{_EXACT}', text.read_text())
            return core.read_model(marked.encode(), weights.read_bytes())
    except (OSError, RuntimeError) as error:  # OpenVINO raises RuntimeError for a full disk.
        _log.warning('no temporary file: %s; the first blocks also compute in bf16', error)
        return model


_EXACT_LAYER = re.compile(r'<layer [^>]*name="/extractor/stem\.[01]/[^>]*>')
_EXACT = '<rt_info><attribute name="precise" version="0"/></rt_info>'


def _is_map(port: Any) -> bool:
    return len(port.partial_shape) == MAP + 1


class OpenVinoBackend(GraphBackend):
    """
    Run the graphs with OpenVINO.

    Each batch size has its own graph, compiled at its first use. Batches of more pictures than
    `READ_TOGETHER`, or more streams than `FORECAST_TOGETHER`, are split.

    :param model: the graphs; quantised graphs for int8
    :param device, precision: ``cpu``; one of `HINTS`
    :param threads: threads of one inference, at least 1
    :param cache: cache of the compiled graphs; None for no cache
    :raises DeviceError: if the processor has no instructions for bf16 or fp16
    """

    name = 'openvino'
    channels_last = True

    def __init__(self, model: StepGraphs, device: str = 'cpu', precision: str = 'fp32',
                 threads: int = 1, cache: CompiledCache | None = None) -> None:
        super().__init__(model, device, precision)
        self._openvino = import_openvino()
        self._core = self._openvino.Core()
        self._cache = cache
        if cache is not None:
            self._core.set_property({'CACHE_DIR': str(cache.folder)})
        wanted = _CAPABILITIES.get(precision)
        if wanted and wanted not in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
            raise DeviceError(f'precision is {precision!r}, but OpenVINO finds no instructions '
                              'for it in this processor; use fp32')
        self._options = {**OPTIONS, 'INFERENCE_NUM_THREADS': str(threads),
                         'INFERENCE_PRECISION_HINT': HINTS[precision]}
        self._largest = {READ_STEP: READ_TOGETHER[precision], FORECAST_STEP: FORECAST_TOGETHER}
        self._graphs = model.graphs
        self._compiled: dict[tuple[str, int], CompiledStep] = {}
        # A request has the arrays of one inference, so inferences must not overlap.
        self._lock = Lock()
        for step in STEPS:
            self._get(step, 1)

    def _get(self, step: str, batch: int) -> CompiledStep:
        """Return a step for a batch size, which is compiled at its first use."""
        key = (step, batch)
        if key not in self._compiled:
            self._compiled[key] = CompiledStep(
                self._openvino, self._core, self._graphs[step], self._names[step], batch,
                self._options)
            if self._cache is not None:
                self._cache.keep()
        return self._compiled[key]

    def _run(self, step: str, feeds: dict[str, np.ndarray], batch: int
             ) -> dict[str, np.ndarray]:
        # OpenVINO writes into the returned arrays, so that nothing is copied.
        found = {name: np.empty((batch, *self._shapes[name]), np.float32)
                 for name in self._names[step][1]}
        with self._lock:
            for piece in _pieces(batch, self._largest[step]):
                self._get(step, piece.stop - piece.start)(_cut(feeds, piece), _cut(found, piece))
        return found


def _pieces(batch: int, largest: int) -> Iterator[slice]:
    for start in range(0, batch, largest):
        yield slice(start, min(start + largest, batch))


def _cut(arrays: dict[str, np.ndarray], piece: slice) -> dict[str, np.ndarray]:
    return {name: array[piece] for name, array in arrays.items()}
