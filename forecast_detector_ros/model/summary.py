# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates (MACs) of each part of a network."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .config import NetworkConfig
from .extractor import parameter_count
from .network import ForecastDetector


@dataclass(frozen=True)
class Part:
    """One part of a network."""

    name: str
    parameters: int
    read_macs: int  #: MACs of the part in a read step, for one image
    forecast_macs: int  #: MACs of the part in a forecast step, for one image


@dataclass(frozen=True)
class Summary:
    """A network's parts in the order of computation, and their totals."""

    parts: tuple[Part, ...]
    #: Counted over the whole network, independently of `parts`, as a check of them.
    total: Part

    @property
    def forecast_share(self) -> float:
        """Return the MACs of a forecast step as a fraction of a read step's."""
        return self.total.forecast_macs / self.total.read_macs


def summarise(config: NetworkConfig) -> Summary:
    """
    Count parameters and MACs of the network that a configuration describes.

    MACs are those of convolutions, fully connected layers and matrix products, by PyTorch's
    counter (two operations are one MAC). Normalisation, activations, averaging and upsampling are
    not counted.
    """
    # On the meta device tensors have no data, so nothing is computed.
    network = ForecastDetector(config).eval().to('meta')
    parts = _parts(network)
    image = torch.empty(1, *config.input_size, 3, dtype=torch.uint8, device='meta')
    counts: list[dict[str, int]] = []
    totals: list[int] = []
    with torch.inference_mode():
        state = network.initial_state()
        for step in (lambda: network.read_step(image, state),
                     lambda: network.forecast_step(state)):
            # Hooks, because the counter's own tree needs a module's forward, which the steps are
            # not, and gives both encoders the same name.
            count = dict.fromkeys(parts, 0)
            with FlopCounterMode(display=False) as counter:
                # Hooks on leaves, because a part may not be called as a whole.
                handles = [handle for name, modules in parts.items() for module in modules
                           for leaf in module.modules() if not len(list(leaf.children()))
                           for handle in _watch(leaf, name, counter, count)]
                step()
            for handle in handles:
                handle.remove()
            counts.append(count)
            totals.append(counter.get_total_flops() // 2)
    rows = tuple(
        Part(name, sum(parameter_count(module) for module in modules), *(c[name] for c in counts))
        for name, modules in parts.items())
    return Summary(rows, Part('total', parameter_count(network), *totals))


def _parts(network: ForecastDetector) -> dict[str, tuple[nn.Module, ...]]:
    extractor = network.extractor
    parts: dict[str, tuple[nn.Module, ...]] = {
        'extractor: backbone': (extractor.stem, extractor.trunk),
        'extractor: projections': tuple(extractor.projections)}
    for name, encoders in (('encoder1', network.encoder1), ('encoder2', network.encoder2),
                           ('recurrent', network.recurrent)):
        for stride, encoder in zip(network.config.levels, encoders):
            parts[f'{name}: stride {stride}'] = (encoder,)
    if network.motion is not None:
        parts['motion encoder'] = (network.motion.encoder,)
    scheduler = network.scheduler if network.motion is None else network.motion.scheduler
    if scheduler is not None:
        parts['scheduler'] = (scheduler,)
    parts['head'] = (network.head,)
    return parts


def _watch(module: nn.Module, name: str, counter: FlopCounterMode, count: dict[str, int]
           ) -> tuple[torch.utils.hooks.RemovableHandle, ...]:
    """Add to `count` the operations between begin and end of a module's forward."""
    def begin(*_: object) -> None:
        count[name] -= counter.get_total_flops() // 2

    def end(*_: object) -> None:
        count[name] += counter.get_total_flops() // 2

    return module.register_forward_pre_hook(begin), module.register_forward_hook(end)
