# SPDX-License-Identifier: Apache-2.0
"""Which device is taken: the one that is asked for, or the GPU that is there."""

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
import warnings

from ..checkpoint import RuntimeConfigError
from ...quiet_libraries import import_onnxruntime

AUTO = 'auto'  #: CUDA where it is usable, else the CPU

#: NVIDIA's driver library on Linux; asking for it is quicker than importing PyTorch.
DRIVER = 'libcuda.so.1'


class DeviceError(RuntimeConfigError):
    """A device or precision that cannot be had here; one line."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device, and why it was taken."""

    device: str  #: ``cpu``, ``cuda`` or ``cuda:N``
    reason: str  #: Part of a sentence, for a log


def device_type(name: str) -> str:
    """
    Tell whether a device is a ``cpu`` or ``cuda``.

    PyTorch is asked for the second alone, and only where it is installed.

    :raises DeviceError: if there is no such device
    """
    if name == 'cpu':
        return name
    if find_spec('torch') is not None:
        from .torch_backend import resolve_device
        return resolve_device(name).type
    if name.partition(':')[0] != 'cuda':
        raise DeviceError(f'device is {name!r}, must be auto, cpu, cuda or cuda:N')
    return 'cuda'


def driver_absence() -> str:
    """Say that there is no driver for NVIDIA's GPUs; nothing, if there is."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return f'there is no NVIDIA driver ({DRIVER})'
    return ''


def cuda_absence() -> str:
    """
    Say why PyTorch cannot use CUDA here; nothing, if it can.

    A small computation is run: a driver, a device and a PyTorch that do not fit each other may
    all be there.
    """
    if absent := driver_absence():
        return absent
    if find_spec('torch') is None:
        return 'PyTorch is not installed'
    import torch

    if not torch.backends.cuda.is_built():
        return f'PyTorch {torch.__version__} is built without CUDA'
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        if not torch.cuda.is_available():
            more = f': {_line(told[-1].message)}' if told else ''
            return f'PyTorch finds no CUDA device{more}'
        try:
            torch.ones(1, device='cuda').add(1).item()
        except RuntimeError as error:
            return f'the CUDA device does not run: {_line(error)}'
    return ''


def provider_absence(provider: str) -> str:
    """Say why ONNX Runtime cannot use a provider such as ``CUDA`` here; nothing, if it can."""
    if absent := driver_absence():
        return absent
    if find_spec('onnxruntime') is None:
        return 'onnxruntime is not installed'
    onnxruntime = import_onnxruntime()
    name = f'{provider}ExecutionProvider'
    return '' if name in onnxruntime.get_available_providers() else (
        f'this onnxruntime has no {name}')


def _line(text: object) -> str:
    line = ' '.join(str(text).split())
    return line if len(line) <= 200 else f'{line[:197]}...'
