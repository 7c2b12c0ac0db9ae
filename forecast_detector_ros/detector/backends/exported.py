# SPDX-License-Identifier: Apache-2.0
"""
Graphs that `export` wrote beside a checkpoint, and what ties them to its weights.

For ``NAME.safetensors``: ``NAME.read_step.onnx``, ``NAME.forecast_step.onnx``,
``NAME.anchors.npy`` and ``NAME.export.json``; quantised ones are ``NAME.int8.read_step.onnx`` and
so on. Graphs without weights are ``NAME.weightless.read_step.onnx``: they fit every checkpoint
whose network has the same shape.
"""

from collections.abc import Mapping
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from .graph_weights import folded_weights, Shapes, WeightsError, with_weights, without_weights
from .step_layout import StateLayout, StepGraphs, STEPS
from ..checkpoint import Checkpoint, RuntimeConfigError
from ...files import write_atomically
from ...model.config import NetworkConfig

FORMAT = 'forecast_detector_ros/export/2'
"""Value of the key `format`."""

FLOAT, INT8, WEIGHTLESS = 'fp32', 'int8', 'weightless'
"""Kinds of graphs."""

MOST_BYTES = 2**20
"""Of a record."""

ANCHORS = 'anchors'


class ExportError(RuntimeConfigError):
    """Exported graphs that are missing, damaged or of other weights; one line."""


def _name(checkpoint: Path, kind: str) -> str:
    return checkpoint.stem if kind == FLOAT else f'{checkpoint.stem}.{kind}'


def graph_path(checkpoint: Path, step: str, kind: str = FLOAT) -> Path:
    """Give the path of a step's graph; `kind` is one of ``fp32``, ``int8``, ``weightless``."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.{step}.onnx')


def anchors_path(checkpoint: Path, kind: str = FLOAT) -> Path:
    """Give the path of the anchors."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.{ANCHORS}.npy')


def record_path(checkpoint: Path, kind: str = FLOAT) -> Path:
    """Give the path of the record that says what the graphs are."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.export.json')


def write_graphs(place: Path, checkpoint: Checkpoint, model: StepGraphs, kind: str,
                 about: Mapping[str, Any]) -> Path:
    """
    Write graphs, anchors and their record, the record last.

    Parameters
    ----------
    place:
        The ``.safetensors`` file that they shall lie beside; it need not exist.
    checkpoint:
        What the graphs were made from.
    model:
        The graphs with their weights.
    kind:
        ``fp32``, ``int8``, or ``weightless`` to leave the weights out.
    about:
        What else the record says; plain values.

    Returns
    -------
    Path
        The record.

    Raises
    ------
    OSError
        If a file cannot be written.

    """
    tied: dict[str, Any] = {'weights_sha256': checkpoint.digest}
    graphs = dict(model.graphs)
    if kind == WEIGHTLESS:
        shapes: dict[str, Shapes] = {}
        for step in STEPS:
            graphs[step], shapes[step] = without_weights(model.graphs[step])
        tied = {'network': checkpoint.card.network.to_dict(),
                'weights': {step: {name: 'x'.join(map(str, shape))
                                   for name, shape in shapes[step].items()} for step in STEPS}}
    anchors = io.BytesIO()
    np.save(anchors, model.anchors, allow_pickle=False)
    files = {ANCHORS: anchors.getvalue(), **graphs}
    record = record_path(place, kind)
    # Without a record there is no export: graphs that are half replaced are not taken.
    record.unlink(missing_ok=True)
    for name, data in files.items():
        write_atomically(_path(place, name, kind), data)
    values = {'format': FORMAT, 'precision': kind, **tied,
              'files': {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
              'classes': model.classes, 'state': model.layout.values(), **about}
    write_atomically(record, (json.dumps(values, indent=1) + '\n').encode())
    return record


def _path(place: Path, name: str, kind: str) -> Path:
    return anchors_path(place, kind) if name == ANCHORS else graph_path(place, name, kind)


def fits(place: Path, checkpoint: Checkpoint, kind: str) -> bool:
    """Tell whether there is a record that says that its graphs are of this checkpoint."""
    try:
        _check(_read_record(record_path(place, kind)), checkpoint, kind)
    except (ValueError, FileNotFoundError):
        return False
    return True


def read_graphs(place: Path, checkpoint: Checkpoint, kind: str) -> StepGraphs:
    """
    Read the graphs beside a path.

    Parameters
    ----------
    place:
        As for `write_graphs`.
    checkpoint:
        Whose graphs they must be.
    kind:
        As for `write_graphs`; weights come into graphs without them.

    Raises
    ------
    ExportError
        If there are none, or they are damaged or belong to another checkpoint.

    """
    record = record_path(place, kind)
    again = f'run export --checkpoint {checkpoint.path}' + {INT8: ' --int8',
                                                            WEIGHTLESS: ' --package'}.get(kind, '')
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
            raise ExportError(f'{path}: differs from what {record.name} says; {again}')
    try:
        graphs = {step: files[step] for step in STEPS}
        if kind == WEIGHTLESS:
            weights = folded_weights(checkpoint.arrays())
            graphs = {step: with_weights(files[step], weights, _shapes(values['weights'][step]))
                      for step in STEPS}
        return StepGraphs(graphs, StateLayout.from_values(values['state']),
                          np.load(io.BytesIO(files[ANCHORS]), allow_pickle=False),
                          int(values['classes']))
    except WeightsError as error:
        raise ExportError(f'{checkpoint.path}: weights do not fit the network in the card: '
                          f'{error}') from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ExportError(f'{record}: not a record of exported graphs; {again}') from None


def _read_record(path: Path) -> dict[str, Any]:
    """Read a record; raises FileNotFoundError, or ValueError if it is none."""
    try:
        with path.open('rb') as stream:
            values = json.loads(stream.read(MOST_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(values, dict) or values.get('format') != FORMAT or not isinstance(
            values.get('files'), dict):
        raise ValueError('not a record of exported graphs')
    return values


def _check(values: dict[str, Any], checkpoint: Checkpoint, kind: str) -> None:
    """Raise ValueError if a record is of another checkpoint."""
    if kind == WEIGHTLESS:
        # Keys that came later have their defaults.
        network = values.get('network')
        if not isinstance(network, dict) or (
                NetworkConfig.from_dict(network) != checkpoint.card.network):
            raise ValueError(f'made for another network than that of {checkpoint.path.name}')
    elif values.get('weights_sha256') != checkpoint.digest:
        raise ValueError(f'made from other weights than {checkpoint.path.name}')


def _shapes(values: dict[str, str]) -> Shapes:
    return {name: tuple(map(int, filter(None, sides.split('x'))))
            for name, sides in values.items()}
