# SPDX-License-Identifier: Apache-2.0
"""
Devices, threads, memory and instructions of the machine.

ONNX Runtime and OpenVINO are imported here, without their telemetry.
"""
from __future__ import annotations

from contextlib import suppress
import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import re
import sys
from types import ModuleType
import warnings

import cv2

from .checkpoint import RuntimeConfigError
from ..errors import cut

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3  #: Number of the option in glibc's malloc.h

_TRIM_BYTES = 512 * 2**20

#: Tried in this order: glibc before 2.35 refuses more than 32 MiB.
_MMAP_BYTES = (256 * 2**20, 32 * 2**20)


def keep_large_blocks() -> bool:
    """
    Raise glibc malloc's mmap and trim thresholds; return whether that succeeded.

    A raw image of 1080p has 6 MB. With the default thresholds every message gets new pages from
    the kernel, and page faults are the largest cost of receiving. The process keeps the memory.
    Has no effect with other C libraries.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, 'gnu_get_libc_version'):
        return False
    kept = any(library.mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in _MMAP_BYTES)
    return kept and library.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES) == 1


def give_back_free_blocks() -> bool:
    """
    Return free memory to the kernel (malloc_trim(3)); return whether there was any.

    After `keep_large_blocks` the process keeps the memory of large messages and graphs. A node
    without subscriptions does not need it. Has no effect with C libraries other than glibc.
    """
    library = ctypes.CDLL(None)
    return hasattr(library, 'malloc_trim') and library.malloc_trim(0) == 1


def set_threads(operator: int = 1, interop: int = 1, with_torch: bool = False) -> None:
    """
    Set the sizes of the thread pools of PyTorch and OpenCV for the whole process.

    One thread of each is best next to an executor and other nodes. A second thread without its own
    core delays the first one at the end of every operator.

    :param operator: threads of one operator (PyTorch's intra-op pool, OpenCV's), at least 1
    :param interop: operators that PyTorch may run in parallel, at least 1. PyTorch accepts it only
        once in a process, before the first parallel operator; later values have no effect.
    :param with_torch: whether to import PyTorch. Otherwise its pools are set only if it is
        imported already.
    :raises RuntimeConfigError: if a number is below 1
    """
    for name, number in (('threads', operator), ('interop_threads', interop)):
        if number < 1:
            raise RuntimeConfigError(f'{name} is {number}, must be at least 1')
    cv2.setNumThreads(operator)
    if not with_torch and sys.modules.get('torch') is None:
        return
    import torch

    torch.set_num_threads(operator)
    if torch.get_num_interop_threads() != interop:
        with suppress(RuntimeError):
            torch.set_num_interop_threads(interop)


CPU_INFO = Path('/proc/cpuinfo')  #: Linux's description of the processor (proc(5))

# Names of Linux (arch/x86/include/asm/cpufeatures.h; Documentation/arch/arm64/elf_hwcaps.rst) and
# common names, oldest instructions first.
_NAMES = {'avx2': 'AVX2', 'avx512f': 'AVX512', 'avx_vnni': 'AVX-VNNI',
          'avx512_vnni': 'AVX512-VNNI', 'avx512_bf16': 'AVX512-BF16',
          'amx_bf16': 'AMX-BF16', 'asimd': 'NEON', 'sve': 'SVE', 'bf16': 'Arm BF16'}


def _flags(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(':')
        if key.strip() in ('flags', 'Features'):
            return set(value.split())
    return set()


def instruction_set(path: Path = CPU_INFO) -> str:
    """
    Return the names of the processor's vector instructions, oldest first.

    If `path` has none, return the name of the architecture, such as ``x86_64``.
    """
    flags = _flags(path)
    names = [name for flag, name in _NAMES.items() if flag in flags]
    return ', '.join(names) or platform.machine()


def multiplies_bf16(path: Path = CPU_INFO) -> bool:
    """Return whether the processor has AVX512-BF16 or AMX; else bf16 is slower than fp32."""
    return bool(_flags(path) & {'avx512_bf16', 'amx_bf16'})


def multiplies_int8(path: Path = CPU_INFO) -> bool:
    """Return whether the processor has VNNI; else int8 is hardly faster and may saturate."""
    return bool(_flags(path) & {'avx512_vnni', 'avx_vnni'})


AUTO = 'auto'  #: Device: CUDA if it is usable, else the CPU; precision: see `choose_precision`

#: NVIDIA's driver library on Linux; loading it is faster than importing PyTorch.
DRIVER = 'libcuda.so.1'


def choose_precision(name: str, backend: str = '', device: str = 'cpu', int8: bool = False
                     ) -> str:
    """
    Choose the precision.

    :param name: a precision, which is returned. ``auto`` or empty: with OpenVINO on a CPU, bf16 or
        else int8 if the processor has instructions for it; in all other cases fp32.
    :param int8: whether there are graphs in int8
    """
    if name not in ('', AUTO):
        return name
    if backend == 'openvino' and device == 'cpu':
        # bf16 is preferred: it is closer to fp32, and int8 has ranges that images may exceed.
        if multiplies_bf16():
            return 'bf16'
        if int8 and multiplies_int8():
            return 'int8'
    return 'fp32'


class DeviceError(RuntimeConfigError):
    """A device or precision is not available; the message is one line."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device, and the reason for it."""

    device: str  #: ``cpu``, ``cuda`` or ``cuda:N``
    reason: str  #: Part of a sentence, for a log


def device_type(name: str) -> str:
    """
    Return the type of a device, ``cpu`` or ``cuda``.

    If PyTorch is installed, it checks a CUDA device.

    :raises DeviceError: if there is no such device
    """
    if not re.fullmatch(r'cpu|cuda(:[0-9]+)?', name):
        raise DeviceError(f'device is {name!r}, must be auto, cpu, cuda or cuda:N')
    if name == 'cpu':
        return name
    if find_spec('torch') is not None:
        from .backends.torch_backend import resolve_device
        resolve_device(name)
    return 'cuda'


def driver_absence() -> str:
    """Return a message if NVIDIA's driver is missing, else an empty text."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return f'there is no NVIDIA driver ({DRIVER})'
    return ''


def cuda_absence() -> str:
    """
    Return why PyTorch cannot use CUDA, or an empty text if it can.

    A small computation is run, because driver, device and PyTorch may be incompatible.
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
            more = f': {cut(told[-1].message)}' if told else ''
            return f'PyTorch finds no CUDA device{more}'
        try:
            torch.ones(1, device='cuda').add(1).item()
        except RuntimeError as error:
            return f'the CUDA device does not run: {cut(error)}'
    return ''


def provider_absence(provider: str) -> str:
    """Return why ONNX Runtime cannot use a provider such as ``CUDA``, or an empty text."""
    if absent := driver_absence():
        return absent
    if find_spec('onnxruntime') is None:
        return 'onnxruntime is not installed'
    onnxruntime = import_onnxruntime()
    name = f'{provider}ExecutionProvider'
    return '' if name in onnxruntime.get_available_providers() else (
        f'this onnxruntime has no {name}')


def import_onnxruntime() -> ModuleType:
    """
    Import ONNX Runtime; raises ImportError when it is not installed.

    An environment variable is set so that it writes no telemetry to the home folder. A value of
    the user is kept.
    """
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    import onnxruntime
    return onnxruntime


_TELEMETRY = 'openvino_telemetry'


def import_openvino() -> ModuleType:
    """
    Import OpenVINO; raises ImportError when it is not installed.

    Its Python package reports each import over the network and writes to the home folder
    (https://github.com/openvinotoolkit/telemetry). Without the telemetry package it uses a stub
    that does neither, so that package is hidden during the import.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino
