# SPDX-License-Identifier: Apache-2.0
"""Optimiser, learning rates and the moving average of the weights."""

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import nn

from .config import GroupConfig, StageConfig
from ..model.extractor import freeze_batch_norm
from ..model.network import ForecastDetector

MOMENTUM = 0.9  #: Of SGD, as in SSD (Liu et al., ECCV 2016, section 3.1)


def group_parameters(network: ForecastDetector, stage: StageConfig
                     ) -> dict[str, list[nn.Parameter]]:
    """
    Sort the trained parameters into the recipe's groups.

    Set every parameter's `requires_grad` to whether it is trained.
    """
    result: dict[str, list[nn.Parameter]] = {name: [] for name in stage.groups}
    for name, parameter in network.named_parameters():
        group = _group_of(name)
        trained = group in stage.groups and not _frozen_block(name, stage.frozen_blocks)
        parameter.requires_grad_(trained)
        if trained:
            result[group].append(parameter)
    return {name: parameters for name, parameters in result.items() if parameters}


def _group_of(name: str) -> str:
    part, _, rest = name.partition('.')
    if part == 'motion':
        return rest.partition('.')[0]
    if part == 'extractor':
        return 'projection' if rest.startswith('projections') else 'backbone'
    return 'encoder' if part in ('encoder1', 'encoder2', 'recurrent') else part


def _frozen_block(name: str, blocks: int) -> bool:
    parts = name.split('.')
    return parts[:2] == ['extractor', 'stem'] and parts[2].isdigit() and int(parts[2]) < blocks


def make_optimizer(groups: dict[str, list[nn.Parameter]], stage: StageConfig
                   ) -> torch.optim.Optimizer:
    """Build SGD or AdamW with one parameter group per part of the network."""
    parameters = [{'params': group, 'lr': stage.groups[name].lr, 'name': name}
                  for name, group in groups.items()]
    if stage.optimizer == 'adamw':
        on_gpu = all(parameter.is_cuda for group in groups.values() for parameter in group)
        return torch.optim.AdamW(parameters, weight_decay=stage.weight_decay,
                                 fused=on_gpu or None)
    return torch.optim.SGD(parameters, lr=0.0, momentum=MOMENTUM,
                           weight_decay=stage.weight_decay)


def set_modes(network: ForecastDetector, stage: StageConfig) -> None:
    """Put parts with a learning rate into training mode, except BatchNorms that are frozen."""
    motion = network.motion
    parts = {'backbone': (network.extractor.stem, network.extractor.trunk),
             'projection': (network.extractor.projections,), 'head': (network.head,),
             'encoder': (network.encoder1, network.encoder2, network.recurrent,
                         None if motion is None else motion.encoder),
             'scheduler': (network.scheduler if motion is None else motion.scheduler,)}
    network.eval()
    for group in stage.groups:
        for part in parts[group]:
            # Some variants lack parts.
            if part is None:
                continue
            part.train()
            if stage.freeze_bn == 'all' or stage.freeze_bn == group:
                freeze_batch_norm(part)


def pictures_after(stages: Sequence[StageConfig], name: str) -> int:
    """Return the number of pictures that the stages after stage `name` train on."""
    names = [stage.name for stage in stages]
    behind = stages[names.index(name) + 1:] if name in names else ()
    return sum(stage.epochs * stage.clips_per_epoch * (stage.clip_length + int(stage.extra_frame))
               for stage in behind)


def learning_rate(group: GroupConfig, stage: StageConfig, iteration: int) -> float:
    """
    Return the learning rate of a group.

    :param group: has the base rate and the milestones
    :param stage: has warm-up and length, and says whether a cosine replaces the milestones
    :param iteration: index of the iteration in the stage, from 0
    """
    per_epoch = stage.clips_per_epoch // stage.batch
    if stage.cosine:
        factor = 0.5 * (1.0 + cos(pi * iteration / (per_epoch * stage.epochs)))
    else:
        epoch = iteration // per_epoch
        factor = group.decay ** sum(epoch >= milestone for milestone in group.milestones)
    if iteration < stage.warmup:
        factor *= (iteration + 1) / stage.warmup
    return group.lr * factor


class MovingAverage:
    """
    Exponential moving average of a network's state.

    The decay is ramped up as min(decay, (1 + n) / (10 + n)), so that the first steps are soon
    forgotten (as torch.optim.swa_utils' and TensorFlow's averages do).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the network's present weights to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = [], []
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                own.append(self.state[key])
                new.append(value.detach())
            else:
                self.state[key].copy_(value)
        # One call for all: on a GPU each of hundreds of small tensors would need a kernel launch.
        torch._foreach_lerp_(own, new, 1.0 - decay)
