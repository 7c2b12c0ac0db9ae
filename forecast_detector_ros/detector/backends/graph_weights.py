# SPDX-License-Identifier: Apache-2.0
"""
Graphs without weights, and how the weights of a checkpoint come into them without PyTorch.

So a package holds its weights once, and graphs go with any weights of the same shape.
"""

from collections.abc import Iterator, Mapping
import math

import numpy as np

from ...model.config import IMAGENET_STD

EPSILON = 1e-5
"""Of `torch.nn.BatchNorm2d`, its default; all of the network's have it."""

FIRST = 'extractor.stem.0.0.weight'
"""Of the first convolution, which takes pixels."""

PREFIX = 'network.'
"""Of a weight's name in a graph, before its name in a checkpoint."""

Shapes = dict[str, tuple[int, ...]]

# Numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), and of
# float32 in its enumeration of types.
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_FLOAT = 1


class WeightsError(ValueError):
    """Weights that do not fit a graph; one line."""


def folded_weights(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Fold weights as `step_graph.fold_for_graphs` folds a network.

    Parameters
    ----------
    weights:
        Those of a network's state, float32, by their names in PyTorch.

    Returns
    -------
    dict
        The same, with every BatchNorm that follows a convolution in that convolution's weight
        and bias.

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
        # Pixels come as BGR in [0, 255], less the mean.
        spread = np.array(IMAGENET_STD, np.float32) * np.float32(255.0)
        folded[FIRST] = (folded[FIRST] / spread[:, None, None])[:, ::-1]
    return folded


def _before(norm: str) -> str:
    """Name the convolution that a BatchNorm follows, if it follows one."""
    parent, _, name = norm.rpartition('.')
    before = str(int(name) - 1) if name.isdecimal() else 'conv'
    return f'{parent}.{before}'


def without_weights(graph: bytes) -> tuple[bytes, Shapes]:
    """
    Take the weights out of a graph; this needs the package onnx.

    Returns
    -------
    tuple
        The graph, and the shapes of its weights by their names in a checkpoint.

    """
    import onnx
    model = onnx.load_from_string(graph)
    shapes = {tensor.name.removeprefix(PREFIX): tuple(tensor.dims)
              for tensor in model.graph.initializer}
    model.graph.ClearField('initializer')
    return model.SerializeToString(deterministic=True), shapes


def with_weights(graph: bytes, weights: Mapping[str, np.ndarray], shapes: Shapes) -> bytes:
    """
    Put weights into a graph.

    A message of protobuf that stands behind another one of its kind is merged into it by every
    reader (https://protobuf.dev/programming-guides/encoding/#last-one-wins): what the graph lacks
    is appended, and the package onnx is not needed.

    Parameters
    ----------
    graph, shapes:
        What `without_weights` gave.
    weights:
        Folded, float32; those that the graph does not have are left out.

    Raises
    ------
    WeightsError
        If a weight is missing or has another shape.

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
    """Give head and content of a field with a length."""
    return _varint(number << 3 | 2) + _varint(len(data)), data


def _varint(value: int) -> bytes:
    """Encode a number, 7 bits a byte, lowest first (protobuf.dev, "Base 128 Varints")."""
    digits = [value >> 7 * place & 0x7f
              for place in range(max(1, math.ceil(value.bit_length() / 7)))]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])
