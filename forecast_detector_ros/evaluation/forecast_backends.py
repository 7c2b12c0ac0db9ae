# SPDX-License-Identifier: Apache-2.0
"""Back-ends for measurements: features that streams share, held features, and moved ones."""

from collections.abc import Sequence
import copy
from operator import is_not
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional

from ..detector.backends import RawOutput
from ..detector.backends.torch_backend import TorchBackend
from ..model.network import ForecastDetector, NetworkState


class _RememberingExtractor(nn.Module):
    """Extract features; the result of the last single picture is cached."""

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
    """Predict from features; the result for the last maps is cached."""

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
    Compute the feature and the head's output of each picture once for all streams.

    :param network: its extractor and head are used, on the device that they are on at each call
    """

    def __init__(self, network: ForecastDetector) -> None:
        self._extractor = _RememberingExtractor(network.extractor)
        self._head = _RememberingHead(network.head)
        self._network = self.sharing(network)

    def sharing(self, network: ForecastDetector) -> ForecastDetector:
        """
        Return a copy of a network that uses the extractor and head of this object.

        :param network: has the same extractor and head; it is not changed
        """
        twin = copy.copy(network)
        # A shallow copy of a module shares the dictionary of its parts.
        twin.__dict__['_modules'] = {**network._modules, 'extractor': self._extractor,
                                     'head': self._head}
        return twin

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[Tensor, ...]:
        """Return the feature of ``(1, H, W, 3)`` uint8 BGR pixels, one map per level."""
        tensor = torch.from_numpy(images).to(self._network.mean.device)
        return self._network.extract(self._network.normalise_bgr(tensor))


class SharedFeatureBackend(TorchBackend):
    """
    A `TorchBackend` with features from a common source.

    :param network, device, precision: as for `TorchBackend`
    :param source: made for a network with the same extractor
    :param hold: whether frames that are not read use the last read feature in place of the
        forecast; for networks that forecast features
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
            # The next forecast step uses the forecast in the state, and so does the scheduler at
            # the next read. Here the forecast is that nothing changes.
            raw = raw._replace(state=raw.state._replace(forecast=self._source(images)))
        return raw

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without images."""
        raw = super().forecast_step(state, elapsed)
        if self._hold:
            raw = raw._replace(state=raw.state._replace(forecast=state.forecast))
        return raw


class Displacement:
    """
    Optical flow between the pictures of one sequence, in cells of the levels.

    Computed with DIS (Kroeger et al., ECCV 2016), OpenCV's preset `MEDIUM`, between grey pictures
    of the network's input size.

    :param extrapolate: False: true motion, from the frame that was read last to the present one.
        True: the motion between the last read frame and the frame before it, as if it went on.
    """

    def __init__(self, extrapolate: bool) -> None:
        self._extrapolate = extrapolate
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.start()

    def start(self) -> None:
        """Forget the sequence before."""
        self._now = -1  #: Number of the present frame
        self._pictures: dict[int, np.ndarray] = {}
        self._flows: dict[tuple[int, int], np.ndarray] = {}
        self._reads: tuple[int, ...] = (0,)

    def see(self, image: np.ndarray) -> None:
        """Add the next picture, ``(H, W, 3)`` uint8 BGR of the network's input size."""
        self._now += 1
        self._pictures[self._now] = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)

    def since(self, reads: Sequence[int]) -> None:
        """
        Set the frame that each stream of the next step has read last.

        Data of earlier frames is deleted, so the frames must not decrease from call to call.
        """
        self._reads = tuple(reads)
        oldest = min(self._reads, default=self._now) - 1
        self._pictures = {number: picture for number, picture in self._pictures.items()
                          if number >= oldest}
        pairs = {self._pair(read) for read in self._reads}
        self._flows = {pair: flow for pair, flow in self._flows.items() if pair in pairs}

    def __call__(self, size: tuple[int, int]) -> Tensor:
        """
        Return the displacement of each cell to its place in the frame that was read last.

        :param size: height and width of the map
        :returns: ``(B, 2, h, w)`` float32, for each stream: cells to the right and down
        """
        return torch.stack([self._cells(read, size) for read in self._reads])

    def _cells(self, read: int, size: tuple[int, int]) -> Tensor:
        if not self._extrapolate:
            flow = self._flow(read)
        elif read:
            flow = self._flow(read) * (self._now - read)
        else:
            flow = np.zeros((*self._pictures[0].shape, 2), np.float32)
        height, width = flow.shape[:2]
        cells = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA)
        cells = cells * np.array([size[1] / width, size[0] / height], np.float32)
        return torch.from_numpy(np.ascontiguousarray(cells.transpose(2, 0, 1)))

    def _pair(self, read: int) -> tuple[int, int]:
        """Return the frame at which the flow starts, and the frame at which it ends."""
        return (read, read - 1) if self._extrapolate else (self._now, read)

    def _flow(self, read: int) -> np.ndarray:
        pair = self._pair(read)
        if pair not in self._flows:
            first, second = (self._pictures[number] for number in pair)
            empty = np.zeros((*first.shape, 2), np.float32)
            self._flows[pair] = self._dis.calc(first, second, empty)
        return self._flows[pair]


def displace(feature: Tensor, flow: Tensor) -> Tensor:
    """
    Sample a map at displaced places, bicubically; border cells are repeated outside.

    :param feature: ``(B, C, h, w)``, values in [0, 6]
    :param flow: ``(B, 2, h, w)`` float32, in cells: the result at (x, y) is sampled at (x, y) +
        flow
    """
    height, width = feature.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    # grid_sample's -1 and 1 are the outer edges of the first and the last cell.
    grid = torch.stack(((x + flow[:, 0] + 0.5) * 2 / width - 1,
                        (y + flow[:, 1] + 0.5) * 2 / height - 1), -1)
    moved = functional.grid_sample(feature.float(), grid.to(feature.device), mode='bicubic',
                                   padding_mode='border', align_corners=False)
    # Bicubic values may be outside the range of features.
    return moved.clamp(0, 6).to(feature.dtype)


class DisplacedFeatureBackend(SharedFeatureBackend):
    """
    Hold the last read feature, and displace it for frames that are not read.

    :param network, device, precision, source: as for `SharedFeatureBackend`
    :param displacement: the caller sets its picture and the streams' last reads before each step
    """

    def __init__(self, network: ForecastDetector, device: str, precision: str,
                 source: FeatureSource, displacement: Displacement) -> None:
        super().__init__(network, device, precision, source, hold=True)
        self._displacement = displacement

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Forecast with the optical flow of the image."""
        moved = tuple(displace(level, self._displacement((level.shape[2], level.shape[3])))
                      for level in state.forecast)
        raw = super().forecast_step(state._replace(forecast=moved))
        return raw._replace(state=raw.state._replace(forecast=state.forecast))
