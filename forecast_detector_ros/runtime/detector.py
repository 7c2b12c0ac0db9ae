# SPDX-License-Identifier: Apache-2.0
"""The running detector: frames in, detections and decisions out, state passed by value."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from .backends import Backend, RawOutput
from .backends.torch_backend import TorchBackend
from .checkpoint import Card, load_checkpoint, RuntimeConfigError
from .detections import Detections
from .frame import Frame, Pixels
from .policy import Decision, FORECAST, READ, REASONS
from .preprocess import resize
from .settings import DetectorSettings, SettingsError
from ..model.ssdlite import postprocess


@dataclass(frozen=True)
class StreamState:
    """What one camera carries from frame to frame; a value that is never changed."""

    network: Any = None
    """The back-end's recurrent state; None forces a read."""

    confidence: float = nan
    """The scheduler's score for forecasting the next frame; NaN before the first frame."""

    consecutive_forecasts: int = 0
    frame_size: tuple[int, int] | None = None
    """(height, width) of the last frame that was read."""

    reason: str = 'first_frame'
    """Why the next frame must be read, when `network` is None."""

    @staticmethod
    def initial(reason: str = 'first_frame') -> 'StreamState':
        """
        Give the state of a stream that starts, or starts anew.

        Parameters
        ----------
        reason:
            One of `REASONS`, told in the next frame's decision.

        Raises
        ------
        ValueError
            If there is no such reason.

        """
        if reason not in REASONS:
            raise ValueError(f'reason is {reason!r}, must be one of {REASONS}')
        return StreamState(reason=reason)


@dataclass(frozen=True)
class StepResult:
    """What came out for one frame."""

    detections: Detections
    decision: Decision
    preprocess_ms: float
    """Loading and resizing, milliseconds; 0 on a forecast frame."""

    inference_ms: float
    """Network and post-processing, milliseconds."""


def decide(state: StreamState, frame_size: tuple[int, int] | None, settings: DetectorSettings
           ) -> Decision:
    """
    Decide whether a frame is read or forecast.

    Parameters
    ----------
    state:
        State of the stream before the frame.
    frame_size:
        (height, width) of the frame, or None when it is not known.
    settings:
        Policy and limits.

    """
    policy = settings.policy
    limit = settings.max_consecutive_forecasts
    if state.network is None:
        kind, reason = READ, state.reason
    elif frame_size is not None and frame_size != state.frame_size:
        kind, reason = READ, 'size_changed'
    elif not policy.forecast(state.confidence, state.consecutive_forecasts):
        kind, reason = READ, policy.reason
    elif state.consecutive_forecasts >= limit:
        kind, reason = READ, 'max_consecutive'
    else:
        kind, reason = FORECAST, policy.reason
    consecutive = state.consecutive_forecasts + 1 if kind == FORECAST else 0
    return Decision(kind, reason, state.confidence, policy.threshold, consecutive)


class Detector:
    """
    A network that is ready to run, shared by any number of streams.

    Parameters
    ----------
    backend:
        Runs the network.
    card:
        What the checkpoint says of itself.

    """

    def __init__(self, backend: Backend, card: Card) -> None:
        self._backend = backend
        self.card = card
        self.labels = card.classes
        self.input_size = card.input_size
        self.device = backend.device
        self.precision = backend.precision
        self.backend = backend.name

    @classmethod
    def load(cls, checkpoint: str | Path, device: str = 'cpu', precision: str = 'fp32',
             threads: int = 1) -> 'Detector':
        """
        Load a checkpoint.

        Parameters
        ----------
        checkpoint:
            The ``.safetensors`` file.
        device:
            ``cpu``, ``cuda`` or ``cuda:N``.
        precision:
            ``fp32`` or ``fp16``.
        threads:
            Threads that PyTorch may use for one operator on the CPU, at least 1.  It holds for
            the whole process.

        Raises
        ------
        CheckpointError, DeviceError
            Both are `RuntimeConfigError`, with a message of one line.

        """
        if threads < 1:
            raise RuntimeConfigError(f'threads is {threads}, must be at least 1')
        torch.set_num_threads(threads)
        network, card = load_checkpoint(checkpoint)
        return cls(TorchBackend(network, device, precision), card)

    def check_settings(self, settings: DetectorSettings) -> None:
        """
        Refuse settings that do not fit this detector.

        Raises
        ------
        SettingsError
            If a class is not among the labels.

        """
        for name in settings.classes:
            if name not in self.labels:
                raise SettingsError(f'classes names {name!r}, must be of {list(self.labels)}')

    def warm_up(self) -> None:
        """Run both steps once on a black picture, so that the first frame is not the slowest."""
        height, width = self.input_size
        black = Pixels(np.zeros((height, width, 3), np.uint8), 'bgr')
        state = StreamState.initial()
        settings = DetectorSettings(max_consecutive_forecasts=1)
        for _ in range(2):
            _, state = self.step(Frame((height, width), lambda: black), state, settings)
            self._backend.forecast_step(state.network)

    def step(self, frame: Frame, state: StreamState, settings: DetectorSettings
             ) -> tuple[StepResult, StreamState]:
        """
        Process one frame.

        Parameters
        ----------
        frame:
            Loaded only if it is read.
        state:
            State of the stream before the frame; it is not changed, so a frame that fails
            leaves the stream as it was.
        settings:
            Policy, thresholds and limits.

        Returns
        -------
        tuple
            The result, and the state for the next frame.

        Raises
        ------
        FrameError
            If the frame is read and cannot be loaded.

        """
        decision = decide(state, frame.size, settings)
        preprocess_ms = 0.0
        start = perf_counter()
        if decision.kind == READ:
            pixels = frame.load()
            image = resize(pixels, self.input_size)
            size = pixels.size
            preprocess_ms = (perf_counter() - start) * 1e3
            network = state.network
            if size != state.frame_size and network is not None:
                # A compressed frame tells its size only now.
                decision = replace(decision, reason='size_changed')
                network = None
            if network is None:
                network = self._backend.initial_state(1)
            start = perf_counter()
            raw = self._backend.read_step(image[None], network)
        else:
            assert state.frame_size is not None
            size = state.frame_size
            raw = self._backend.forecast_step(state.network)
        detections = self._detections(raw, size, settings)
        inference_ms = (perf_counter() - start) * 1e3
        after = StreamState(raw.state, float(raw.confidence[0]), decision.consecutive_forecasts,
                            size)
        return StepResult(detections, decision, preprocess_ms, inference_ms), after

    @torch.inference_mode()
    def _detections(self, raw: RawOutput, size: tuple[int, int], settings: DetectorSettings
                    ) -> Detections:
        found = postprocess(
            torch.from_numpy(raw.logits[0]), torch.from_numpy(raw.offsets[0]),
            torch.from_numpy(self._backend.anchors), self.input_size,
            settings.score_threshold, settings.nms_threshold, settings.max_detections,
            _class_mask(settings.classes, self.labels))
        limit = np.array((size[1], size[0]) * 2, np.float32)
        scale = limit / np.array((self.input_size[1], self.input_size[0]) * 2, np.float32)
        # The product may round to the next number above the picture's side.
        boxes = np.minimum(found.boxes.numpy() * scale, limit)
        return Detections(boxes, found.labels.numpy(), found.scores.numpy())


@lru_cache(maxsize=16)
def _class_mask(classes: tuple[str, ...], labels: tuple[str, ...]) -> torch.Tensor | None:
    if not classes:
        return None
    return torch.tensor([label in classes for label in labels])
