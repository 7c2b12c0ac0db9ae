# SPDX-License-Identifier: Apache-2.0
"""Back-ends for measuring: features that many streams share, and held ones."""

import numpy as np
import torch

from ..detector.backends import RawOutput
from ..detector.backends.torch_backend import raw_output, TorchBackend
from ..model.network import ForecastDetector, NetworkState, StepOutput


class FeatureSource:
    """
    Extract the feature of each picture once for all streams that read it.

    Parameters
    ----------
    network:
        Its extractor is used, on the device where it is then.

    """

    def __init__(self, network: ForecastDetector) -> None:
        self._network = network
        self._images: np.ndarray | None = None
        self._feature: tuple[torch.Tensor, ...] = ()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Give the feature of ``(1, H, W, 3)`` uint8 BGR pixels, one map per level."""
        if self._images is None or not np.array_equal(images, self._images):
            tensor = torch.from_numpy(images).to(self._network.mean.device)
            self._feature = self._network.extract(self._network.normalise_bgr(tensor))
            self._images = images
        return self._feature


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
        Whether frames that are not read take the last read feature in the forecast's place.

    """

    def __init__(self, network: ForecastDetector, device: str, precision: str,
                 source: FeatureSource, hold: bool = False) -> None:
        super().__init__(network, device, precision)
        self._source = source
        self._hold = hold

    @torch.inference_mode()
    def read_step(self, images: np.ndarray, state: NetworkState) -> RawOutput:
        """Read one ``(1, H, W, 3)`` uint8 BGR picture."""
        feature = self._source(images)
        maps, after = self.network.encode(feature, state)
        output = StepOutput(self.network.head(maps.fused), self.network.schedule(maps), after)
        if self._hold:
            # The forecast in the state feeds the next step without an image, and tells the
            # scheduler of the next read what was expected: here, that nothing changes.
            output = output._replace(state=after._replace(forecast=feature))
        return raw_output(output)

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState) -> RawOutput:
        """Advance without images."""
        raw = super().forecast_step(state)
        if self._hold:
            raw = raw._replace(state=raw.state._replace(forecast=state.forecast))
        return raw
