# SPDX-License-Identifier: Apache-2.0
"""
Graphs that `export` wrote beside a checkpoint, and what ties them to its weights.

For ``NAME.safetensors``: ``NAME.read_step.onnx``, ``NAME.forecast_step.onnx`` and
``NAME.export.yaml``; quantised ones are ``NAME.int8.read_step.onnx`` and so on.
"""

from collections.abc import Mapping
import hashlib
import logging
from pathlib import Path
from typing import Any

import yaml

from .step_graph import step_onnx, STEPS
from ..checkpoint import RuntimeConfigError
from ...files import write_atomically
from ...model.network import ForecastDetector
from ...plain_yaml import PlainYamlError, read_plain_yaml

FORMAT = 'forecast_detector_ros/export/1'
"""Value of the key `format`."""

FLOAT, INT8 = 'fp32', 'int8'

_log = logging.getLogger(__name__)


class ExportError(RuntimeConfigError):
    """Exported graphs that are missing, damaged or of other weights; one line."""


def _name(checkpoint: Path, kind: str) -> str:
    return checkpoint.stem if kind == FLOAT else f'{checkpoint.stem}.{kind}'


def graph_path(checkpoint: Path, step: str, kind: str = FLOAT) -> Path:
    """Give the path of a step's graph; `kind` is ``fp32`` or ``int8``."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.{step}.onnx')


def record_path(checkpoint: Path, kind: str = FLOAT) -> Path:
    """Give the path of the record that says what the graphs are."""
    return checkpoint.with_name(f'{_name(checkpoint, kind)}.export.yaml')


def weights_digest(checkpoint: Path) -> str:
    """Give the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def write_graphs(checkpoint: Path, graphs: Mapping[str, bytes], kind: str,
                 about: Mapping[str, Any]) -> Path:
    """
    Write graphs and their record beside a checkpoint, the record last.

    Parameters
    ----------
    checkpoint:
        Exists; the graphs are tied to its bytes.
    graphs:
        The ONNX bytes of each of `STEPS`.
    kind:
        ``fp32`` or ``int8``.
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
    record = record_path(checkpoint, kind)
    # Without a record there is no export: graphs that are half replaced are not taken.
    record.unlink(missing_ok=True)
    for step in STEPS:
        write_atomically(graph_path(checkpoint, step, kind), graphs[step])
    values = {'format': FORMAT, 'precision': kind, 'weights_sha256': weights_digest(checkpoint),
              'graphs': {step: hashlib.sha256(graphs[step]).hexdigest() for step in STEPS},
              **about}
    write_atomically(record, yaml.safe_dump(values, sort_keys=False, width=96).encode())
    return record


def read_graphs(checkpoint: Path, kind: str) -> dict[str, bytes]:
    """
    Read the graphs beside a checkpoint.

    Raises
    ------
    ExportError
        If there are none, or they are damaged or belong to other weights.

    """
    record = record_path(checkpoint, kind)
    again = f'run export --checkpoint {checkpoint}' + (' --int8' if kind == INT8 else '')
    try:
        values = read_plain_yaml(record)
    except FileNotFoundError:
        raise ExportError(f'{record}: no such file; precision {kind} needs graphs that export '
                          f'wrote: {again}') from None
    except PlainYamlError:
        values = None
    if not isinstance(values, dict) or values.get('format') != FORMAT:
        raise ExportError(f'{record}: not a record of exported graphs; {again}')
    if values.get('weights_sha256') != weights_digest(checkpoint):
        raise ExportError(f'{record}: made from other weights than {checkpoint.name}; {again}')
    digests = values.get('graphs')
    graphs = {}
    for step in STEPS:
        path = graph_path(checkpoint, step, kind)
        try:
            graphs[step] = path.read_bytes()
        except OSError as error:
            raise ExportError(f'{path}: {error.strerror}; {again}') from None
        if not isinstance(digests, dict) or (
                hashlib.sha256(graphs[step]).hexdigest() != digests.get(step)):
            raise ExportError(f'{path}: differs from what {record.name} says; {again}')
    return graphs


def graphs_for(network: ForecastDetector, checkpoint: Path | None, kind: str
               ) -> dict[str, bytes]:
    """
    Give the graphs of a network: those beside its checkpoint, or new ones.

    Parameters
    ----------
    network:
        float32, on the CPU.
    checkpoint:
        Where it comes from; None: from no file.
    kind:
        ``fp32`` or ``int8``; only the first can be made here.

    Raises
    ------
    ExportError
        If there is no int8 export that fits.
    GraphError
        If graphs have to be made and cannot be.

    """
    if kind == INT8:
        if checkpoint is None:
            raise ExportError('precision int8 needs a checkpoint with graphs that export wrote')
        return read_graphs(checkpoint, kind)
    if checkpoint is not None and record_path(checkpoint, kind).exists():
        try:
            return read_graphs(checkpoint, kind)
        except ExportError as error:
            _log.warning('%s (graphs are made anew for now)', error)
    return {step: step_onnx(network, step) for step in STEPS}
