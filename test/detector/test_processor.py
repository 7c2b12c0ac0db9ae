# SPDX-License-Identifier: Apache-2.0
"""What /proc/cpuinfo tells of a processor."""

import platform

from forecast_detector_ros.detector.processor import instruction_set, multiplies_bf16
import pytest


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
def test_without_them_the_architecture_is_named(tmp_path, text):
    path = tmp_path / 'cpuinfo'
    if text:
        path.write_text(text)
    assert instruction_set(path) == platform.machine()
    assert not multiplies_bf16(path)
