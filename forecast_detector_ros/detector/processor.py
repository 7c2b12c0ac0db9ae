# SPDX-License-Identifier: Apache-2.0
"""What this machine's processor can compute with, as Linux tells it."""

from pathlib import Path
import platform

CPU_INFO = Path('/proc/cpuinfo')
"""Linux's description of the processor (proc(5))."""

# Linux's names (arch/x86/include/asm/cpufeatures.h; Documentation/arch/arm64/elf_hwcaps.rst) and
# ours, in the order in which processors got them.
_NAMES = {'avx2': 'AVX2', 'avx512f': 'AVX512', 'avx512_bf16': 'AVX512-BF16',
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
    Name the vector instructions of the processor, from old to new.

    Where `path` does not tell, this is the name of the architecture, such as ``x86_64``.
    """
    flags = _flags(path)
    names = [name for flag, name in _NAMES.items() if flag in flags]
    return ', '.join(names) or platform.machine()


def multiplies_bf16(path: Path = CPU_INFO) -> bool:
    """Tell whether the processor has AVX512-BF16 or AMX; without, bf16 is slower than float32."""
    return bool(_flags(path) & {'avx512_bf16', 'amx_bf16'})
