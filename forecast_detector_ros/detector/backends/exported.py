# SPDX-License-Identifier: Apache-2.0
"""
Graphs that `export` wrote beside a checkpoint, and the record that names their weights.

The files of ``NAME.safetensors`` are ``NAME.read_step.onnx``, ``NAME.forecast_step.onnx``,
``NAME.anchors.npy`` and ``NAME.export.json``. Quantised graphs are ``NAME.int8.read_step.onnx``
and so on. Graphs without weights are ``NAME.weightless.read_step.onnx`` and so on. They fit every
checkpoint with the same network, whose weights are inserted without PyTorch.
"""

from collections.abc import Iterator, Mapping
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from .graph_backend import StateLayout, StepGraphs, STEPS
from ..checkpoint import Checkpoint, CheckpointError, RuntimeConfigError
from ...files import write_atomically, write_json
from ...model.config import ConfigError, IMAGENET_STD, NetworkConfig
from ...plain_values import parse_plain_json

EPSILON = 1e-5  #: Default of `torch.nn.BatchNorm2d`, which the whole network uses

FIRST = 'extractor.stem.0.0.weight'  #: Weight of the first convolution, which reads the pixels

PREFIX = 'network.'  #: Prefix of a weight's name in a graph to its name in a checkpoint

Shapes = dict[str, tuple[int, ...]]

# Numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), and the
# number of float32 in its enumeration of types.
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_FLOAT = 1


class WeightsError(ValueError):
    """Weights do not fit a graph; one line."""


def folded_weights(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Fold weights as `step_graph.fold_for_graphs` folds a network.

    :param weights: float32 weights of a network by their names in PyTorch
    :returns: the weights with each BatchNorm after a convolution folded into the convolution
    """
    folded = dict(weights)
    for norm in [key.removesuffix('.running_var') for key in weights
                 if key.endswith('.running_var')]:
        convolution = _before(norm)
        weight = weights.get(f'{convolution}.weight')
        if weight is None or weight.ndim != 4:
            continue
        factor = weights[f'{norm}.weight'] / np.sqrt(weights[f'{norm}.running_var']
                                                     + np.float32(EPSILON))
        bias = weights.get(f'{convolution}.bias', np.float32(0.0))
        folded[f'{convolution}.weight'] = weight * factor[:, None, None, None]
        folded[f'{convolution}.bias'] = ((bias - weights[f'{norm}.running_mean']) * factor
                                         + weights[f'{norm}.bias'])
    if FIRST in folded:
        # The folded convolution takes BGR in [0, 255] minus the mean.
        spread = np.array(IMAGENET_STD, np.float32) * np.float32(255.0)
        folded[FIRST] = (folded[FIRST] / spread[:, None, None])[:, ::-1]
    return folded


def _before(norm: str) -> str:
    """Return the name of the convolution before a BatchNorm."""
    parent, _, name = norm.rpartition('.')
    before = str(int(name) - 1) if name.isdecimal() else 'conv'
    return f'{parent}.{before}'


def without_weights(graph: bytes) -> tuple[bytes, Shapes]:
    """
    Remove the weights from a graph; needs the package onnx.

    :returns: the graph, and the shapes of its weights by their names in a checkpoint
    """
    import onnx
    model = onnx.load_from_string(graph)
    shapes = {tensor.name.removeprefix(PREFIX): tuple(tensor.dims)
              for tensor in model.graph.initializer}
    model.graph.ClearField('initializer')
    return model.SerializeToString(deterministic=True), shapes


def with_weights(graph: bytes, weights: Mapping[str, np.ndarray], shapes: Shapes) -> bytes:
    """
    Insert weights into a graph; does not need the package onnx.

    The weights are appended, because readers of protobuf merge repeated messages
    (https://protobuf.dev/programming-guides/encoding/#last-one-wins).

    :param graph, shapes: results of `without_weights`
    :param weights: folded weights, float32; those that the graph does not have are left out
    :raises WeightsError: if a weight is missing or has another shape
    """
    tensors: list[bytes] = []
    for name, shape in shapes.items():
        weight = weights.get(name)
        if weight is None or weight.shape != shape:
            raise WeightsError(f'{name} is ' + ('missing' if weight is None
                               else f'{weight.shape}, must be {shape}'))
        tensors += _field(_GRAPH_INITIALIZER, b''.join(_tensor(PREFIX + name, weight)))
    return b''.join((graph, *_field(_MODEL_GRAPH, b''.join(tensors))))


def _tensor(name: str, array: np.ndarray) -> Iterator[bytes]:
    for side in array.shape:
        yield _varint(_TENSOR_DIMS << 3) + _varint(side)
    yield _varint(_TENSOR_TYPE << 3) + _varint(_FLOAT)
    yield from _field(_TENSOR_NAME, name.encode())
    yield from _field(_TENSOR_DATA, array.astype('<f4').tobytes())


def _field(number: int, data: bytes) -> tuple[bytes, bytes]:
    return _varint(number << 3 | 2) + _varint(len(data)), data


def _varint(value: int) -> bytes:
    """Encode a number with 7 bits per byte, lowest first (protobuf, "Base 128 Varints")."""
    digits = [value >> 7 * place & 0x7f
              for place in range(max(1, math.ceil(value.bit_length() / 7)))]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


FORMAT = 'forecast_detector_ros/export/2'  #: Value of the key `format`

FLOAT, INT8, WEIGHTLESS = 'fp32', 'int8', 'weightless'  #: Kinds of graphs

MOST_BYTES = 2**20  #: Size of a record

ANCHORS = 'anchors'


class ExportError(RuntimeConfigError):
    """Exported graphs are missing, damaged or of other weights; one line."""


def _name(checkpoint: Path, kind: str) -> str:
    return checkpoint.stem if kind == FLOAT else f'{checkpoint.stem}.{kind}'


def graph_path(checkpoint: Path, step: str, kind: str = FLOAT) -> Path:
    """Return the path of a step's graph; `kind` is ``fp32``, ``int8`` or ``weightless``."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.{step}.onnx')


def anchors_path(checkpoint: Path, kind: str = FLOAT) -> Path:
    """Return the path of the anchors."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.{ANCHORS}.npy')


def record_path(checkpoint: Path, kind: str = FLOAT) -> Path:
    """Return the path of the record that describes the graphs."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.export.json')


def write_graphs(place: Path, checkpoint: Checkpoint, model: StepGraphs, kind: str,
                 about: Mapping[str, Any]) -> Path:
    """
    Write graphs, anchors and their record, the record last.

    :param place: the ``.safetensors`` file beside which they are written; it need not exist
    :param checkpoint: the checkpoint of the graphs
    :param model: the graphs with their weights
    :param kind: ``fp32``, ``int8``, or ``weightless`` to leave out the weights
    :param about: further plain values of the record
    :raises OSError: if a file cannot be written
    """
    tied: dict[str, Any] = {'network': checkpoint.card.network.to_dict()}
    graphs = dict(model.graphs)
    if kind == WEIGHTLESS:
        shapes: dict[str, Shapes] = {}
        for step in STEPS:
            graphs[step], shapes[step] = without_weights(model.graphs[step])
        tied['weights'] = {step: {name: 'x'.join(map(str, shape))
                                  for name, shape in shapes[step].items()} for step in STEPS}
    else:
        tied['weights_sha256'] = checkpoint.digest
    anchors = io.BytesIO()
    np.save(anchors, model.anchors, allow_pickle=False)
    files = {ANCHORS: anchors.getvalue(), **graphs}
    record = record_path(place, kind)
    # Without a record the files are not used, so a partial replacement is safe.
    record.unlink(missing_ok=True)
    for name, data in files.items():
        write_atomically(_path(place, name, kind), data)
    values = {'format': FORMAT, 'precision': kind, **tied,
              'files': {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
              'classes': model.classes, 'state': model.layout.values(), **about}
    write_json(record, values, nan=True)
    return record


def _path(place: Path, name: str, kind: str) -> Path:
    return anchors_path(place, kind) if name == ANCHORS else graph_path(place, name, kind)


def fits(place: Path, checkpoint: Checkpoint, kind: str) -> bool:
    """Return whether there is a record of graphs of this checkpoint."""
    try:
        _check(_read_record(record_path(place, kind)), checkpoint, kind)
    except (ValueError, FileNotFoundError):
        return False
    return True


def read_graphs(place: Path, checkpoint: Checkpoint, kind: str) -> StepGraphs:
    """
    Read the graphs beside a path.

    :param place: as for `write_graphs`
    :param checkpoint: the checkpoint of the graphs
    :param kind: as for `write_graphs`; the weights are inserted into weightless graphs
    :raises ExportError: if the graphs are missing, damaged or of another checkpoint, or the
        weights do not fit
    """
    record = record_path(place, kind)
    again = f'run export --checkpoint {checkpoint.path}' + {
        INT8: ' --int8 --calibrate VIDEO', WEIGHTLESS: ' --package'}.get(kind, '')
    try:
        values = _read_record(record)
    except FileNotFoundError:
        raise ExportError(f'{record}: no such file; precision {kind} needs graphs that export '
                          f'wrote: {again}') from None
    except ValueError:
        raise ExportError(f'{record}: not a record of exported graphs; {again}') from None
    try:
        _check(values, checkpoint, kind)
    except ValueError as error:
        raise ExportError(f'{record}: {error}; {again}') from None
    files = {}
    for name in (ANCHORS, *STEPS):
        path = _path(place, name, kind)
        try:
            files[name] = path.read_bytes()
        except OSError as error:
            raise ExportError(f'{path}: {error.strerror}; {again}') from None
        if hashlib.sha256(files[name]).hexdigest() != values['files'].get(name):
            raise ExportError(f'{path}: differs from its digest in {record.name}; {again}')
    try:
        graphs = {step: files[step] for step in STEPS}
        if kind == WEIGHTLESS:
            weights = folded_weights(checkpoint.arrays())
            graphs = {step: with_weights(files[step], weights, _shapes(values['weights'][step]))
                      for step in STEPS}
        return StepGraphs(graphs, StateLayout.from_values(values['state']),
                          np.load(io.BytesIO(files[ANCHORS]), allow_pickle=False),
                          int(values['classes']))
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    except WeightsError as error:
        raise ExportError(f'{checkpoint.path}: weights do not fit the network in the card: '
                          f'{error}') from None
    except (AttributeError, EOFError, KeyError, OverflowError, TypeError, ValueError):
        raise ExportError(f'{record}: not a record of exported graphs; {again}') from None


def _read_record(path: Path) -> dict[str, Any]:
    """Read a record; raises FileNotFoundError, or ValueError for any other file."""
    try:
        with path.open('rb') as stream:
            values = parse_plain_json(stream.read(MOST_BYTES).decode())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(str(error)) from None
    if not isinstance(values, dict) or values.get('format') != FORMAT or not isinstance(
            values.get('files'), dict):
        raise ValueError('not a record of exported graphs')
    return values


def _check(values: dict[str, Any], checkpoint: Checkpoint, kind: str) -> None:
    """Raise ValueError if a record is of another checkpoint."""
    network = values.get('network')
    # Keys added in later versions get their defaults.
    try:
        same = (isinstance(network, dict)
                and NetworkConfig.from_dict(network) == checkpoint.card.network)
    except ConfigError as error:
        raise ValueError(f'describes no network: {error}') from None
    if not same:
        raise ValueError(f'made for another network than that of {checkpoint.path.name}')
    if kind != WEIGHTLESS and values.get('weights_sha256') != checkpoint.digest:
        raise ValueError(f'made from other weights than {checkpoint.path.name}')


def _shapes(values: dict[str, str]) -> Shapes:
    return {name: tuple(map(int, filter(None, sides.split('x'))))
            for name, sides in values.items()}
