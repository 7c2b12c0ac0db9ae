# SPDX-License-Identifier: Apache-2.0
"""Check devices, threads, memory and instructions of the processor."""
import logging
import platform
import subprocess
import sys

from forecast_detector_ros.detector import host
from forecast_detector_ros.detector.backends.registry import (
    BackendError,
    BACKENDS,
    choose_device,
    make_backend,
)
from forecast_detector_ros.detector.backends.torch_backend import DeviceError, resolve_device
from forecast_detector_ros.detector.checkpoint import RuntimeConfigError
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.detector.host import (
    choose_precision,
    cuda_absence,
    device_type,
    instruction_set,
    keep_large_blocks,
    multiplies_bf16,
    multiplies_int8,
    provider_absence,
    set_threads,
)
import pytest
import torch

GLIBC = platform.libc_ver()[0] == 'glibc'

# A megabyte stays allocated above the freed memory, so that the heap cannot shrink by itself.
MEMORY = """
from pathlib import Path
import numpy as np
from forecast_detector_ros.detector.host import give_back_free_blocks, keep_large_blocks

def resident():
    return int(Path('/proc/self/statm').read_text().split()[1])

keep_large_blocks()
before = resident()
message, above = np.ones(64 * 2 ** 20, np.uint8), np.ones(2 ** 20, np.uint8)
full = resident()
del message
kept = resident()
told = give_back_free_blocks()
print(told, *(size - before for size in (full, kept, resident())))
"""


def test_allocator_is_tuned_where_there_is_glibc():
    assert keep_large_blocks() == GLIBC


@pytest.mark.skipif(not GLIBC, reason='the C library is not glibc')
def test_memory_of_a_large_message_is_kept_until_it_is_given_back():
    done = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True,
                          check=True)
    told, *sizes = done.stdout.split()
    full, kept, left = map(int, sizes)
    assert told == 'True' and kept > 0.9 * full and left < 0.3 * full


def test_pools_have_the_sizes_asked_for():
    script = (
        'import cv2, torch\n'
        'from forecast_detector_ros.detector.host import set_threads\n'
        'set_threads(2, 3)\n'
        'assert torch.get_num_threads() == 2, torch.get_num_threads()\n'
        'assert torch.get_num_interop_threads() == 3\n'
        'assert cv2.getNumThreads() == 2\n'
        # The second pool keeps its size, without an error.
        'set_threads(1, 1)\n'
        'assert (torch.get_num_threads(), torch.get_num_interop_threads()) == (1, 3)\n')
    subprocess.run([sys.executable, '-c', script], check=True, timeout=600)


@pytest.mark.parametrize('numbers, line', [
    ((0, 1), 'threads is 0, must be at least 1'),
    ((1, 0), 'interop_threads is 0, must be at least 1')])
def test_below_one(numbers, line):
    with pytest.raises(RuntimeConfigError, match=f'^{line}$'):
        set_threads(*numbers)


@pytest.mark.parametrize('line, names, able', [
    ('flags\t\t: fpu sse2 avx avx2 fma', 'AVX2', False),
    ('flags\t\t: avx2 avx512f avx512bw', 'AVX2, AVX512', False),
    ('flags\t\t: avx2 avx512f avx512_bf16', 'AVX2, AVX512, AVX512-BF16', True),
    ('flags\t\t: avx2 avx512f avx512_bf16 amx_bf16 amx_tile',
     'AVX2, AVX512, AVX512-BF16, AMX-BF16', True),
    ('Features\t: fp asimd sve bf16', 'NEON, SVE, Arm BF16', False)])
def test_flags(tmp_path, line, names, able):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor\t: 0\nmodel name\t: avx512_bf16 in the name\n{line}\n')
    assert instruction_set(path) == names
    assert multiplies_bf16(path) is able


@pytest.mark.parametrize('text', ['', 'processor\t: 0\n', 'flags\t: fpu\n'])
def test_without_flags_the_architecture_is_named(tmp_path, text):
    path = tmp_path / 'cpuinfo'
    if text:
        path.write_text(text)
    assert instruction_set(path) == platform.machine()
    assert not multiplies_bf16(path)


@pytest.mark.parametrize('line, able', [
    ('flags\t\t: avx2 avx512f avx512_bf16', False), ('flags\t\t: avx2 avx_vnni', True),
    ('flags\t\t: avx2 avx512f avx512_vnni', True), ('Features\t: asimd asimddp', False)])
def test_flags_of_int8(tmp_path, line, able):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor\t: 0\n{line}\n')
    assert multiplies_int8(path) is able


@pytest.mark.parametrize('bf16', [True, False])
@pytest.mark.parametrize('int8', [True, False])
def test_automatic_precision(bf16, int8, monkeypatch):
    monkeypatch.setattr(host, 'multiplies_bf16', lambda: bf16)
    monkeypatch.setattr(host, 'multiplies_int8', lambda: int8)
    for name in ('auto', ''):
        assert choose_precision(name, 'openvino', 'cpu') == ('bf16' if bf16 else 'fp32')
        assert choose_precision(name, 'openvino', 'cpu', True) == (
            'bf16' if bf16 else 'int8' if int8 else 'fp32')
        assert choose_precision(name, 'onnxruntime', 'cpu', True) == 'fp32'
        assert choose_precision(name, 'onnxruntime', 'cpu') == 'fp32'
        assert choose_precision(name, 'torch', 'cuda') == 'fp32'
        assert choose_precision(name) == 'fp32'
    assert choose_precision('int8', 'openvino', 'cpu') == 'int8'


without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')


@pytest.mark.parametrize('name', ['cpu', 'cuda:1'])
def test_requested_device_is_used(name):
    choice = choose_device(name, 'openvino')
    assert (choice.device, choice.reason) == (name, 'asked for')


@pytest.mark.parametrize('name', ['cpu:0', 'cuda:x', 'cuda:', 'cuda:-1', 'CPU', 'gpu', 'auto'])
@pytest.mark.parametrize('installed', [True, False])
def test_other_names_are_not_devices(name, installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(host, 'find_spec', lambda module: None)
    with pytest.raises(DeviceError, match=f"^device is '{name}', must be auto, cpu,"):
        device_type(name)


@without_cuda
@pytest.mark.parametrize('name', ['', 'auto'])
def test_without_cuda_the_cpu_is_used_and_the_reason_given(name):
    choice = choose_device(name)
    assert choice.device == 'cpu'
    assert 'NVIDIA driver' in choice.reason or 'PyTorch' in choice.reason
    assert choice.reason == cuda_absence() and '\n' not in choice.reason
    assert resolve_device('auto') == torch.device('cpu')


@pytest.mark.parametrize(('backend', 'precision', 'words'), [
    ('openvino', 'fp32', 'openvino has no CUDA'), ('torch', 'int8', 'no precision int8'),
    ('auto', 'int8', 'torch has no precision int8')])
def test_back_end_or_precision_without_cuda_runs_on_the_cpu(backend, precision, words):
    choice = choose_device('auto', backend, precision)
    assert choice.device == 'cpu' and words in choice.reason


@without_cuda
def test_a_back_end_only_for_cuda_reports_a_missing_device(network):
    with pytest.raises(BackendError, match="backend is 'tensorrt', which runs on CUDA alone: .+"):
        make_backend(network, 'tensorrt', 'auto')
    assert provider_absence('Tensorrt')


@without_cuda
def test_log_has_device_and_reason(checkpoint, caplog):
    with caplog.at_level(logging.INFO):
        detector = Detector.load(checkpoint, backend='torch')
    assert detector.device == 'cpu' and detector.device_reason == cuda_absence()
    assert f'torch on cpu ({cuda_absence()})' in caplog.text


def test_every_back_end_can_be_asked():
    for name in (name for name, kind in BACKENDS.items() if 'cpu' in kind.precisions):
        assert choose_device('auto', name).device in ('cpu', 'cuda')


def test_only_cuda_has_tf32(network):
    with pytest.raises(DeviceError, match='tf32'):
        make_backend(network, 'torch', 'cpu', 'tf32')
