# SPDX-License-Identifier: Apache-2.0
"""The type that a training computes in, and what the log says of the machine."""

import torch

from ..detector.processor import instruction_set, multiplies_bf16

#: Values of the recipe's key `amp`.
AUTO, NONE, BF16, FP16 = AMP = ('auto', 'none', 'bf16', 'fp16')


def choose_amp(amp: str, device: torch.device) -> str:
    """
    Give what `amp` means on a device: one of `AMP`, but not `auto`.

    `auto` is bf16 on a GPU that has it, else fp16; on a processor bf16 if it has instructions for
    it, else none.  A processor without them takes many times as long in bf16 as in float32.
    """
    if amp != AUTO:
        return amp
    if device.type == 'cuda':
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else FP16
    return BF16 if multiplies_bf16() else NONE


def describe_machine(amp: str, device: torch.device, threads: int) -> str:
    """Say on what a training runs, for the log."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{device.type} with {instruction_set()}, {threads} threads'
    chosen = choose_amp(amp, device)
    why = '' if amp == chosen else f' (amp: {amp})'
    return f'{name}; computes in {"float32" if chosen == NONE else chosen}{why}'
