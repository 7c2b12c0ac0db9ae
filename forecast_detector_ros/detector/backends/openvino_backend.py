# SPDX-License-Identifier: Apache-2.0
"""Back-end: OpenVINO on the CPU, and what it compiled, kept between starts."""

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

#: Of all that is kept; what OpenVINO compiles of one network in one precision has 10 MB.
MOST_BYTES = 2**28

_SUFFIX = '.sha256'


class CompiledCache:
    """
    A folder for one network's compiled graphs, which the library itself reads and writes.

    OpenVINO notices a file that is too short, but not one whose weights have changed.

    :param root: of all networks; it exists
    :raises OSError: if nothing can be written
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
        """Note the digests of files that are new, and remove the oldest beyond `MOST_BYTES`."""
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
    """Give the cache of these graphs in the user's folder; None where nothing can be written."""
    root = user_cache('openvino')
    try:
        return None if root is None else CompiledCache(root, graphs)
    except OSError as error:
        _log.warning('%s: nothing is cached: %s', root, error.strerror)
        return None


# Always set: by default OpenVINO computes in bf16 or fp16 if the processor can.
# https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
#: OpenVINO's inference precision for each of ours.
HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16', 'int8': 'f32'}

_CAPABILITIES = {'bf16': 'BF16', 'fp16': 'FP16'}

#: OpenVINO's settings, but for threads and precision.
OPTIONS = {'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1',
           # Every process would pin its threads to the same first cores.
           'ENABLE_CPU_PINNING': 'NO'}

#: Pictures that one graph reads, by precision. A backbone's first maps leave the processor's
#: caches when there are several of them, and 16 bits a number make that half as bad:
#: docs/design/speed.md, "Several streams".
READ_TOGETHER = {'fp32': 1, 'bf16': 4, 'fp16': 4, 'int8': 4}

FORECAST_TOGETHER = 8  #: Streams that one graph forecasts: its maps are small


class CompiledStep:
    """
    A step for one size of batch, ready to run.

    Parts of the state go in and out as ``(B, h, w, C)``, which is how OpenVINO's convolutions
    have them in memory: as ``(B, C, h, w)`` each would be reordered on its way.
    """

    def __init__(self, openvino: Any, core: Any, graph: bytes,
                 names: tuple[list[str], list[str]], batch: int, options: dict[str, str]) -> None:
        """Compile; `names` are those of the inputs and outputs, in the graph's order."""
        self._inputs, self._outputs = names
        self._tensor = openvino.Tensor
        model = core.read_model(graph)
        # A graph of fixed shape is faster than one with an open batch.
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
        """Run on arrays that are in one piece, and write the results into such arrays."""
        request, tensor = self.request, self._tensor
        # By number a tensor is set in half the time that it takes by name.
        for index, name in enumerate(self._inputs):
            request.set_input_tensor(index, tensor(feeds[name], shared_memory=True))
        for index, name in enumerate(self._outputs):
            request.set_output_tensor(index, tensor(found[name], shared_memory=True))
        request.infer()


def _with_exact_start(openvino: Any, core: Any, model: Any) -> Any:
    """
    Let the first convolution and block 1 compute in float32 where the others do in bf16.

    Filters of block 1 subtract large numbers: its depthwise convolution makes most of the error of
    the whole network (docs/results/performance.md). Python can set this attribute, that of
    OpenVINO's own `disable_fp16_compression`, only in a model's text.
    """
    try:
        with TemporaryDirectory() as folder:
            text, weights = Path(folder) / 'model.xml', Path(folder) / 'model.bin'
            openvino.serialize(model, text, weights)
            marked = _EXACT_LAYER.sub(rf'\g<0>{_EXACT}', text.read_text())
            return core.read_model(marked.encode(), weights.read_bytes())
    except (OSError, RuntimeError) as error:  # OpenVINO raises the second where a disk is full.
        _log.warning('no temporary file: %s; the first blocks compute in bf16, too', error)
        return model


_EXACT_LAYER = re.compile(r'<layer [^>]*name="/extractor/stem\.[01]/[^>]*>')
_EXACT = '<rt_info><attribute name="precise" version="0"/></rt_info>'


def _is_map(port: Any) -> bool:
    return len(port.partial_shape) == MAP + 1


class OpenVinoBackend(GraphBackend):
    """
    Run the graphs with OpenVINO.

    Every size of batch has a graph of its own, made when it first comes; more pictures than
    `READ_TOGETHER` and more streams than `FORECAST_TOGETHER` go in pieces.

    :param model: the graphs; quantised ones for int8
    :param device, precision: ``cpu``; one of `HINTS`
    :param threads: threads of one inference, at least 1
    :param cache: where OpenVINO keeps what it compiled; None: it keeps nothing
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
        # A request holds the arrays of one inference.
        self._lock = Lock()
        for step in STEPS:
            self._get(step, 1)

    def _get(self, step: str, batch: int) -> CompiledStep:
        """Give a step for a size of batch, compiled when it is first needed."""
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
        # The results are written into arrays that are the caller's: nothing is copied.
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
    """Give the streams of a piece: views, which are in one piece as the first axis is cut."""
    return {name: array[piece] for name, array in arrays.items()}
