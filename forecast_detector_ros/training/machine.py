# SPDX-License-Identifier: Apache-2.0
"""
The machine of a training: processes of torchrun, their device, and the type of numbers.

Each process takes a part of every batch. All losses are divided by what the whole batch holds
(`Processes.total`). So the sum of the processes' gradients is the gradient that one process would
have with the whole batch, and nothing depends on how the batch was divided.
"""

from collections.abc import Sequence
import os

import torch
from torch import distributed, nn, Tensor

from ..detector.host import DeviceError, instruction_set, multiplies_bf16

DEVICES = ('auto', 'cpu', 'cuda')  #: Where a network is trained; `auto` is CUDA where there is one


class Processes:
    """
    This process and the others.

    :param rank: index of this process, from 0
    :param device: where this one computes
    """

    def __init__(self, rank: int = 0, count: int = 1, device: str = 'cpu') -> None:
        self.rank, self.count = rank, count
        self.device = torch.device(device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and the log."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor of one shape over all processes, without gradient."""
        if self.count > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
        return value

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch, which must divide evenly."""
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; a missing one counts as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters
                          if parameter.grad is not None])
        distributed.all_reduce(flat)
        start = 0
        for parameter in parameters:
            size = parameter.numel()
            parameter.grad = flat[start:start + size].view(parameter.shape)
            start += size

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """
        Replace the running statistics of BatchNorms in training mode by their mean.

        Every process normalises with its own part of the batch; the mean keeps networks equal.
        """
        if self.count == 1:
            return
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.training:
                for value in (module.running_mean, module.running_var):
                    if value is not None:
                        distributed.all_reduce(value)
                        value /= self.count

    def agree(self, wish: bool) -> bool:
        """Return whether `wish` is true in any process; the same answer in all of them."""
        return bool(self.total(torch.tensor(float(wish), device=self.device)) > 0)


ALONE = Processes()  #: One process, on a CPU


def join_processes(device: str = 'auto') -> Processes:
    """
    Join the processes that torchrun started; without torchrun, return a single process.

    Gloo connects processes on CPUs; NCCL, which is not measured here, connects those on CUDA.

    :param device: one of `DEVICES`
    :raises DeviceError: if there is no such device, or none for every process on this machine
    """
    if device not in DEVICES:
        raise DeviceError(f'device is {device!r}, must be one of {DEVICES}')
    count = int(os.environ.get('WORLD_SIZE', '1'))
    rank, local = int(os.environ.get('RANK', '0')), int(os.environ.get('LOCAL_RANK', '0'))
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == 'cuda' and not cards:
        raise DeviceError('device is cuda, but PyTorch finds no CUDA device; use cpu or auto')
    on_card = device != 'cpu' and cards > 0
    if on_card and local >= cards:
        raise DeviceError(f'process {local} of this machine has no CUDA device, there are '
                          f'{cards}; start torchrun with --nproc-per-node {cards}')
    name = f'cuda:{local}' if on_card else 'cpu'
    if on_card:
        torch.cuda.set_device(local)
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group('nccl' if on_card else 'gloo')
    return Processes(rank, count, name)


def leave_processes() -> None:
    """Leave the group of processes, if there is one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


#: Values of the recipe's key `amp`.
AUTO, NONE, BF16, FP16 = AMP = ('auto', 'none', 'bf16', 'fp16')


def choose_amp(amp: str, device: torch.device) -> str:
    """
    Return the meaning of `amp` on a device: one of `AMP`, but not `auto`.

    `auto` is bf16 on a GPU that has it, else fp16. On a CPU it is bf16 if the CPU has instructions
    for it, else none; without them bf16 takes many times as long as float32.
    """
    if amp != AUTO:
        return amp
    if device.type == 'cuda':
        return BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else FP16
    return BF16 if multiplies_bf16() else NONE


def describe_machine(amp: str, device: torch.device, threads: int) -> str:
    """Return a line for the log: the device and the type of its computation."""
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = f'{device.type} with {instruction_set()}, {threads} threads'
    chosen = choose_amp(amp, device)
    why = '' if amp == chosen else f' (amp: {amp})'
    return f'{name}; computes in {"float32" if chosen == NONE else chosen}{why}'
