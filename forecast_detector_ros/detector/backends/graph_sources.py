# SPDX-License-Identifier: Apache-2.0
"""
Sources of the graphs of a checkpoint.

The order is: files of `export` beside it; the package's graphs, if the shape fits; the user's
cache; new graphs, which need PyTorch.
"""

from collections.abc import Iterator
from contextlib import suppress
import hashlib
from importlib.util import find_spec
import logging
from pathlib import Path
from typing import TYPE_CHECKING

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
from ..checkpoint import Checkpoint, CheckpointError, SHIPPED, shipped_checkpoint
from ...files import user_cache

if TYPE_CHECKING:
    from ...model.network import ForecastDetector

MAKERS = ('torch', 'torchvision', 'onnx')  #: What making graphs takes

CACHE = 'graphs'  #: Subfolder of the user's cache

_log = logging.getLogger(__name__)


def can_have_graphs(checkpoint: Checkpoint | None) -> bool:
    """Tell whether there are graphs in float of a checkpoint, or they can be made here."""
    return all(map(find_spec, MAKERS)) or (checkpoint is not None and (
        record_path(checkpoint.path).exists()
        or any(fits(place, checkpoint, kind) for place, kind in _ready(checkpoint))))


def graphs_for(source: 'Checkpoint | ForecastDetector', kind: str = FLOAT) -> StepGraphs:
    """
    Give the graphs of a checkpoint or a network.

    :param source: a checkpoint; or a network that is in no file, float32, on the CPU
    :param kind: ``fp32`` or ``int8``; only the first can be made here
    :raises ExportError: if there is no int8 export that fits, or graphs have to be made without
        PyTorch
    :raises GraphError: if graphs have to be made without onnx
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
    """Yield where graphs may lie besides those of `export`, and their kinds."""
    yield checkpoint.path, WEIGHTLESS
    for name in SHIPPED:
        with suppress(CheckpointError):
            yield shipped_checkpoint(name), WEIGHTLESS
    if (cached := _cached(checkpoint)) is not None:
        yield cached, FLOAT


def _cached(checkpoint: Checkpoint) -> Path | None:
    """
    Give the place in the user's cache that graphs of a checkpoint have.

    Its name depends on the weights and on the code that makes graphs of them.
    """
    if (folder := user_cache(CACHE)) is None:
        return None
    key = hashlib.sha256(f'{FORMAT} {checkpoint.digest}'.encode())
    here = Path(__file__).parent
    for path in (here / 'step_graph.py', *sorted((here.parents[1] / 'model').glob('*.py'))):
        key.update(path.read_bytes())
    return folder / f'{key.hexdigest()[:32]}.safetensors'


def _make(checkpoint: Checkpoint) -> StepGraphs:
    """Make graphs, and keep them for the next time."""
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
        except OSError as error:
            _log.warning('%s: cannot be written: %s; graphs are made anew at every start',
                         place.parent, error.strerror)
    return model
