# SPDX-License-Identifier: Apache-2.0
"""Back-ends for measuring: features that many streams share, and held ones."""

import copy
from operator import is_not
from typing import Any

import numpy as np
import torch
from torch import nn, Tensor

from ..detector.backends import RawOutput
from ..detector.backends.torch_backend import TorchBackend
from ..model.network import ForecastDetector, NetworkState


class _RememberingExtractor(nn.Module):
    """Extract features; those of the same single picture as before are there already."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self._image: Tensor | None = None
        self._feature: tuple[Tensor, ...] = ()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if len(image) > 1:
            return self.extractor(image)
        if self._image is None or not torch.equal(image, self._image):
            self._feature, self._image = self.extractor(image), image
        return self._feature


class _RememberingHead(nn.Module):
    """Predict from features; for the same maps as before the answer is there already."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self._feature: tuple[Tensor, ...] = ()
        self._output: Any = None

    def forward(self, feature: tuple[Tensor, ...]) -> Any:
        if not self._feature or any(map(is_not, feature, self._feature)):
            self._feature, self._output = tuple(feature), self.head(feature)
        return self._output


class FeatureSource:
    """
    Compute the feature of each picture, and the head's answer, once for all streams that read it.

    Parameters
    ----------
    network:
        Its extractor is used, on the device where it is then.

    """

    def __init__(self, network: ForecastDetector) -> None:
        self._extractor = _RememberingExtractor(network.extractor)
        self._head = _RememberingHead(network.head)
        self._network = self.sharing(network)

    def sharing(self, network: ForecastDetector) -> ForecastDetector:
        """
        Give a network with the same weights that takes features and the head from here.

        Parameters
        ----------
        network:
            With the same extractor and head; it stays as it is.

        """
        twin = copy.copy(network)
        # A copy of a module has its parts in the same dictionary.
        twin.__dict__['_modules'] = {**network._modules, 'extractor': self._extractor,
                                     'head': self._head}
        return twin

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[Tensor, ...]:
        """Give the feature of ``(1, H, W, 3)`` uint8 BGR pixels, one map per level."""
        tensor = torch.from_numpy(images).to(self._network.mean.device)
        return self._network.extract(self._network.normalise_bgr(tensor))


class SharedFeatureBackend(TorchBackend):
    """
    Do what `TorchBackend` does, with features from a common source.

    Parameters
    ----------
    network, device, precision:
        As for `TorchBackend`.
    source:
        Of a network with the same extractor.
    hold:
        Whether frames that are not read take the last read feature in the forecast's place; for
        networks that forecast features.

    """

    def __init__(self, network: ForecastDetector, device: str, precision: str,
                 source: FeatureSource, hold: bool = False) -> None:
        super().__init__(source.sharing(network), device, precision)
        self._source = source
        self._hold = hold

    @torch.inference_mode()
    def read_step(self, images: np.ndarray, state: NetworkState,
                  elapsed: np.ndarray | None = None) -> RawOutput:
        """Read ``(B, H, W, 3)`` uint8 BGR pictures; one at a time if features are held."""
        raw = super().read_step(images, state, elapsed)
        if self._hold:
            # The forecast in the state feeds the next step without an image, and tells the
            # scheduler of the next read what was expected: here, that nothing changes.
            raw = raw._replace(state=raw.state._replace(forecast=self._source(images)))
        return raw

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without images."""
        raw = super().forecast_step(state, elapsed)
        if self._hold:
            raw = raw._replace(state=raw.state._replace(forecast=state.forecast))
        return raw
