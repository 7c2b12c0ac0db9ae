# SPDX-License-Identifier: Apache-2.0
"""
All back-ends, the installed ones, and the default.

Some back-ends run graphs. These are searched in this order: files of `export` beside the
checkpoint, the package's graphs if the network fits, the user's cache. Else new graphs are made,
which needs PyTorch.
"""
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
import hashlib
from importlib.util import find_spec
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from . import Backend
from .exported import (
    ExportError,
    fits,
    FLOAT,
    FORMAT,
    INT8,
    read_graphs,
    record_path,
    WEIGHTLESS,
    write_graphs,
)
from .graph_backend import StepGraphs
from ..checkpoint import (
    Checkpoint,
    CheckpointError,
    RuntimeConfigError,
    SHIPPED,
    shipped_checkpoint,
)
from ..host import AUTO, cuda_absence, device_type, DeviceChoice, DeviceError, provider_absence
from ...errors import one_line
from ...files import trim_folder, user_cache

if TYPE_CHECKING:
    from ...model.network import ForecastDetector

MAKERS = ('torch', 'torchvision', 'onnx')  #: Modules that are needed to make graphs

CACHE = 'graphs'  #: Subfolder of the user's cache

MOST_CACHED = 2**28  #: Bytes of all cached graphs; those of one network have about 10 MB

_log = logging.getLogger(__name__)


def can_have_graphs(checkpoint: Checkpoint | None) -> bool:
    """Return whether float graphs of a checkpoint exist or can be made here."""
    return all(map(find_spec, MAKERS)) or (checkpoint is not None and (
        record_path(checkpoint.path).exists()
        or any(fits(place, checkpoint, kind) for place, kind in _ready(checkpoint))))


def graphs_for(source: 'Checkpoint | ForecastDetector', kind: str = FLOAT) -> StepGraphs:
    """
    Return the graphs of a checkpoint or a network.

    :param source: a checkpoint; or a float32 network on the CPU
    :param kind: ``fp32`` or ``int8``; only ``fp32`` graphs can be made here
    :raises ExportError: if there is no int8 export of the checkpoint, or graphs must be made and
        PyTorch is missing
    :raises GraphError: if graphs must be made and onnx is missing
    :raises CheckpointError: if the weights cannot be used
    """
    if not isinstance(source, Checkpoint):
        if kind == INT8:
            raise ExportError('precision int8 needs a checkpoint with graphs that export wrote')
        from .step_graph import make_graphs
        return make_graphs(source)
    if kind == INT8:
        return read_graphs(source.path, source, kind)
    if record_path(source.path).exists():
        try:
            return read_graphs(source.path, source, kind)
        except ExportError as error:
            _log.warning('%s (graphs are made anew for now)', error)
    for place, ready in _ready(source):
        if fits(place, source, ready):
            try:
                return read_graphs(place, source, ready)
            except ExportError as error:
                _log.warning('%s (graphs are made anew)', error)
    return _make(source)


def _ready(checkpoint: Checkpoint) -> Iterator[tuple[Path, str]]:
    """Yield the further places of graphs, and their kinds."""
    yield checkpoint.path, WEIGHTLESS
    for name in SHIPPED:
        with suppress(CheckpointError):
            yield shipped_checkpoint(name), WEIGHTLESS
    if (cached := _cached(checkpoint)) is not None:
        yield cached, FLOAT


def _cached(checkpoint: Checkpoint) -> Path | None:
    """
    Return the place of a checkpoint's graphs in the user's cache; None without a cache.

    Its name depends on the weights, the network, and the code that makes the graphs.
    """
    if (folder := user_cache(CACHE)) is None:
        return None
    key = hashlib.sha256(
        f'{FORMAT} {checkpoint.digest} {checkpoint.card.network.to_dict()}'.encode())
    here = Path(__file__).parent
    for path in (here / 'step_graph.py', *sorted((here.parents[1] / 'model').glob('*.py'))):
        key.update(path.read_bytes())
    return folder / f'{key.hexdigest()[:32]}.safetensors'


def _make(checkpoint: Checkpoint) -> StepGraphs:
    missing = [name for name in MAKERS[:2] if find_spec(name) is None]
    if missing:
        raise ExportError(
            f'{checkpoint.path}: there are no graphs of this checkpoint, and making them needs '
            f'{missing[0]}, which is not installed: run export where it is, and copy the folder')
    from .step_graph import make_graphs
    model = make_graphs(checkpoint.network())
    place = _cached(checkpoint)
    if place is not None:
        try:
            write_graphs(place, checkpoint, model, FLOAT, {})
            trim_folder(place.parent, MOST_CACHED)
        except OSError as error:
            _log.warning('%s: cannot be written: %s; graphs are made anew at every start',
                         place.parent, error.strerror)
    return model


#: Fastest first, by docs/results/performance.md. ``auto`` is the first of them, or on CUDA
#: `CUDA_DEFAULT`, that is installed and has the precision.
CPU_ORDER = ('openvino', 'onnxruntime', 'torch')

CUDA_DEFAULT = 'torch'

#: Provider of ONNX Runtime that a back-end needs on a GPU.
_PROVIDERS = {'onnxruntime': 'CUDA', 'tensorrt': 'Tensorrt'}


class BackendError(RuntimeConfigError):
    """A back-end is unknown, not installed, or cannot run as requested; one line."""


@dataclass(frozen=True)
class BackendKind:
    """Requirements and precisions of a back-end."""

    about: str
    modules: tuple[str, ...]  #: Modules that it imports beyond those of every detector
    install: str  #: Package that pip installs for it; empty: none
    precisions: Mapping[str, tuple[str, ...]]  #: Precisions for each type of device


_TORCH = {'cpu': ('fp32', 'bf16', 'fp16'), 'cuda': ('fp32', 'tf32', 'bf16', 'fp16')}
_TORCH_MODULES = ('torch', 'torchvision')

#: All back-ends, by name.
BACKENDS = {
    'torch': BackendKind('PyTorch; on CUDA with captured graphs', _TORCH_MODULES,
                         'torch torchvision', _TORCH),
    'torch_compile': BackendKind('torch.compile; needs a C++ compiler', _TORCH_MODULES,
                                 'torch torchvision', _TORCH),
    'onnxruntime': BackendKind(
        'ONNX Runtime', ('onnxruntime',), 'onnxruntime',
        {'cpu': ('fp32', 'int8'), 'cuda': ('fp32', 'int8')}),
    'tensorrt': BackendKind(
        "ONNX Runtime's TensorRT provider", ('onnxruntime',), 'onnxruntime-gpu',
        {'cuda': ('fp32', 'fp16', 'int8')}),
    'openvino': BackendKind(
        'OpenVINO', ('openvino',), 'openvino',
        {'cpu': ('fp32', 'bf16', 'fp16', 'int8')}),
}


TORCH_BACKENDS = ('torch', 'torch_compile')  #: Back-ends that run in PyTorch


def missing_modules(name: str) -> tuple[str, ...]:
    """Return the modules of a back-end that are not installed."""
    return tuple(module for module in BACKENDS[name].modules if find_spec(module) is None)


def choose_device(name: str, backend: str = AUTO, precision: str = 'fp32') -> DeviceChoice:
    """
    Choose the device.

    :param name: ``cpu``, ``cuda`` or ``cuda:N``, which is returned; ``auto`` or empty: CUDA if the
        back-end can use it, else the CPU
    :param backend: one of `BACKENDS`, or ``auto``
    :param precision: a precision of the back-end
    :raises BackendError: if the back-end runs only on CUDA, and CUDA is not usable
    """
    if name not in ('', AUTO):
        return DeviceChoice(name, 'asked for')
    chosen = CUDA_DEFAULT if backend in ('', AUTO) else backend
    precisions = BACKENDS[chosen].precisions if chosen in BACKENDS else {}
    if precision not in precisions.get('cuda', ()):
        return DeviceChoice('cpu', f'back-end {chosen} has no precision {precision} on CUDA'
                            if 'cuda' in precisions else f'back-end {chosen} has no CUDA')
    absent = (provider_absence(_PROVIDERS[chosen]) if chosen in _PROVIDERS
              else cuda_absence())
    if not absent:
        return DeviceChoice('cuda', 'there is a CUDA device that runs')
    if 'cpu' not in precisions:
        raise BackendError(f'backend is {chosen!r}, which runs on CUDA alone: {absent}')
    return DeviceChoice('cpu', absent)


def choose_backend(name: str, device: str, precision: str, checkpoint: Checkpoint | None = None
                   ) -> str:
    """
    Choose the back-end.

    :param name: one of `BACKENDS`, which is returned; ``auto`` or empty: the fastest installed one
    :param device: ``cpu``, ``cuda`` or ``cuda:N``
    :param precision: a precision of the back-end on this device
    :param checkpoint: checkpoint whose graphs may exist already
    :returns: one of `BACKENDS`
    :raises BackendError: if the back-end is unknown, not installed, or does not run on the device
    :raises DeviceError: if there is no such device, or it does not have the precision
    """
    kind = device_type(device)
    automatic = name in ('', AUTO)
    if not automatic:
        _check(name, kind, device, precision)
        return name
    fit = [other for other in (CPU_ORDER if kind == 'cpu' else (CUDA_DEFAULT,))
           if precision in BACKENDS[other].precisions.get(kind, ())]
    if not fit:
        known = sorted({value for item in BACKENDS.values()
                        for value in item.precisions.get(kind, ())})
        raise DeviceError(f'precision is {precision!r}, must be one of {known} on {kind}'
                          if precision not in known else
                          f'precision is {precision!r}, which no back-end takes by itself on '
                          f'{kind}; name one that has it: {_having(precision, kind)}')
    for other in fit:
        if not missing_modules(other) and (other == 'torch' or precision == INT8
                                           or can_have_graphs(checkpoint)):
            return other
    raise BackendError(f'precision {precision!r} needs one of the back-ends {", ".join(fit)}: '
                       f'pip install {BACKENDS[fit[0]].install}')


def _check(name: str, kind: str, device: str, precision: str) -> None:
    if name not in BACKENDS:
        raise BackendError(f'backend is {name!r}, must be {AUTO} or one of {", ".join(BACKENDS)}')
    backend = BACKENDS[name]
    missing = missing_modules(name)
    if missing:
        raise BackendError(f'backend is {name!r}, but {missing[0]} is not installed: '
                           f'pip install {backend.install}')
    if kind not in backend.precisions:
        raise BackendError(f'backend is {name!r}, which has no device {device!r}, only '
                           f'{", ".join(backend.precisions)}')
    if precision not in backend.precisions[kind]:
        raise DeviceError(f'precision is {precision!r}, must be one of '
                          f'{list(backend.precisions[kind])} for backend {name} on {kind}')


def _having(precision: str, kind: str) -> str:
    return ', '.join(name for name, backend in BACKENDS.items()
                     if precision in backend.precisions.get(kind, ()))


def has_int8(checkpoint: Checkpoint) -> bool:
    """Return whether there are int8 graphs beside a checkpoint."""
    return fits(checkpoint.path, checkpoint, INT8)


def make_backend(source: 'Checkpoint | ForecastDetector', name: str = AUTO, device: str = 'cpu',
                 precision: str = 'fp32', threads: int = 1) -> Backend:
    """
    Create a back-end for a network.

    :param source: a checkpoint; or a float32 network on the CPU, which is not changed
    :param name, precision: see `choose_backend`
    :param device: see `choose_device`
    :param threads: threads of one inference on the CPU, at least 1; not used by PyTorch
    :raises RuntimeConfigError: see `choose_backend` and `graphs_for`
    """
    device = choose_device(device, name, precision).device
    checkpoint = source if isinstance(source, Checkpoint) else None
    name = choose_backend(name, device, precision, checkpoint)
    if name in TORCH_BACKENDS:
        network = source.network() if isinstance(source, Checkpoint) else source
        return _torch_backend(network, name, device, precision)
    graphs = graphs_for(source, INT8 if precision == INT8 else FLOAT)
    try:
        if name == 'openvino':
            from .openvino_backend import compiled_cache, OpenVinoBackend
            # A network without a file is used once, so caching does not help.
            cache = None if checkpoint is None else compiled_cache(graphs)
            return OpenVinoBackend(graphs, device, precision, threads, cache)
        from .onnxruntime_backend import OnnxRuntimeBackend
        return OnnxRuntimeBackend(graphs, device, precision, threads,
                                  tensorrt=name == 'tensorrt')
    except ImportError as error:
        raise BackendError(f'backend is {name!r}, but {BACKENDS[name].modules[0]} cannot be '
                           f'imported: {one_line(error)}') from None


def _torch_backend(network: 'ForecastDetector', name: str, device: str, precision: str) -> Backend:
    from ...model.extractor import fold_batch_norm
    from ...model.network import ForecastDetector

    folded = fold_batch_norm(network)
    assert isinstance(folded, ForecastDetector)
    if device_type(device) == 'cuda':
        from .cuda_graphs import CudaGraphBackend, CudaOptions
        return CudaGraphBackend(folded, device, precision,
                                CudaOptions(compiled=name == 'torch_compile'))
    if name == 'torch_compile':
        from .torch_backend import TorchCompileBackend
        return TorchCompileBackend(folded, device, precision)
    from .torch_backend import TorchBackend
    return TorchBackend(folded, device, precision)
