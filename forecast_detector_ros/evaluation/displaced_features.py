# SPDX-License-Identifier: Apache-2.0
"""
Rivals that move the last read feature along optical flow: how far motion could carry.

They look at pictures that a detector would not look at, at full resolution, and so say what a
forecast by motion could reach at best; they are no detectors.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .forecast_backends import FeatureSource, SharedFeatureBackend
from ..detector.backends import RawOutput
from ..model.network import ForecastDetector, NetworkState


class Displacement:
    """
    Optical flow between the pictures of one sequence, in cells of the levels.

    Computed with DIS (Kroeger et al., ECCV 2016), OpenCV's preset `MEDIUM`, between grey pictures
    of the network's input size.

    Parameters
    ----------
    extrapolate:
        False: true motion, from the frame that was read last to the present one.  True: the motion
        between the last read frame and the frame before it, as if it went on.

    """

    def __init__(self, extrapolate: bool) -> None:
        self._extrapolate = extrapolate
        self._pictures: list[np.ndarray] = []
        self._flows: dict[tuple[int, int], np.ndarray] = {}
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._reads: tuple[int, ...] = (0,)

    def start(self) -> None:
        """Forget the sequence before."""
        self._pictures, self._flows, self._reads = [], {}, (0,)

    def see(self, image: np.ndarray) -> None:
        """Take the next picture, ``(H, W, 3)`` uint8 BGR of the network's input size."""
        self._pictures.append(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))

    def since(self, reads: Sequence[int]) -> None:
        """Say which frame each of the streams that are run next has read last."""
        self._reads = tuple(reads)

    def __call__(self, size: tuple[int, int]) -> Tensor:
        """
        Say where to find each cell of the present frame on the map of the frame read last.

        Parameters
        ----------
        size:
            Height and width of the map.

        Returns
        -------
        Tensor
            ``(B, 2, h, w)`` float32, one for each stream: cells to the right and down.

        """
        return torch.stack([self._cells(read, size) for read in self._reads])

    def _cells(self, read: int, size: tuple[int, int]) -> Tensor:
        now = len(self._pictures) - 1
        if not self._extrapolate:
            flow = self._flow(now, read)
        elif read:
            flow = self._flow(read, read - 1) * (now - read)
        else:
            flow = np.zeros((*self._pictures[0].shape, 2), np.float32)
        height, width = flow.shape[:2]
        cells = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA)
        cells = cells * np.array([size[1] / width, size[0] / height], np.float32)
        return torch.from_numpy(np.ascontiguousarray(cells.transpose(2, 0, 1)))

    def _flow(self, target: int, origin: int) -> np.ndarray:
        key = (target, origin)
        if key not in self._flows:
            empty = np.zeros((*self._pictures[target].shape, 2), np.float32)
            self._flows[key] = self._dis.calc(self._pictures[target], self._pictures[origin],
                                              empty)
        return self._flows[key]


def displace(feature: Tensor, flow: Tensor) -> Tensor:
    """
    Sample a map at displaced places, bicubically; beyond its border the border goes on.

    Parameters
    ----------
    feature:
        ``(B, C, h, w)``, values in [0, 6].
    flow:
        ``(B, 2, h, w)`` float32, in cells: what stands at (x, y) is taken from (x, y) + flow.

    """
    height, width = feature.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    # grid_sample's -1 and 1 are the outer edges of the first and the last cell.
    grid = torch.stack(((x + flow[:, 0] + 0.5) * 2 / width - 1,
                        (y + flow[:, 1] + 0.5) * 2 / height - 1), -1)
    moved = functional.grid_sample(feature.float(), grid.to(feature.device), mode='bicubic',
                                   padding_mode='border', align_corners=False)
    # A cubic overshoots, features do not.
    return moved.clamp(0, 6).to(feature.dtype)


class DisplacedFeatureBackend(SharedFeatureBackend):
    """
    Hold the last read feature, and show it displaced on frames that are not read.

    Parameters
    ----------
    network, device, precision, source:
        As for `SharedFeatureBackend`.
    displacement:
        Told before each step which picture is there, and what the streams have read.

    """

    def __init__(self, network: ForecastDetector, device: str, precision: str,
                 source: FeatureSource, displacement: Displacement) -> None:
        super().__init__(network, device, precision, source, hold=True)
        self._displacement = displacement

    @torch.inference_mode()
    def forecast_step(self, state: NetworkState, elapsed: np.ndarray | None = None) -> RawOutput:
        """Advance without the image, but with its motion."""
        moved = tuple(displace(level, self._displacement((level.shape[2], level.shape[3])))
                      for level in state.forecast)
        raw = super().forecast_step(state._replace(forecast=moved))
        return raw._replace(state=raw.state._replace(forecast=state.forecast))
