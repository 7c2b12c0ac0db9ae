# SPDX-License-Identifier: Apache-2.0
"""The detector: it turns frames and states into detections, decisions and new states."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
import logging
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Any, TYPE_CHECKING

import numpy as np

from .backends import Backend
from .backends.registry import (
    choose_backend,
    choose_device,
    has_int8,
    make_backend,
    TORCH_BACKENDS,
)
from .checkpoint import Card, Checkpoint, default_checkpoint, read_checkpoint
from .host import AUTO, choose_precision, set_threads
from .policy import AlternatePolicy, Decision, FORECAST, READ
from .processing import (
    CANDIDATES,
    Candidates,
    Detections,
    lowest_score,
    Postprocessor,
    resize,
    smoothed,
)
from .settings import DetectorSettings, SettingsError
from .stream import decide, MAX_GAP_S, StreamState
from ..errors import cut
from ..images.frame import Frame, FrameError, Pixels
from ..model.config import EXPECTED

if TYPE_CHECKING:
    from .open_stream import Stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """The result for one frame."""

    detections: Detections  #: The boxes that are shown
    decision: Decision  #: Whether the frame was read, and why
    preprocess_ms: float  #: Loading and resizing, milliseconds; 0 on a forecast frame
    inference_ms: float  #: Network and post-processing of all frames in the batch, milliseconds
    batch: int = 1  #: Frames in the batch, including this one


class Detector:
    """
    A network on a back-end, shared by any number of streams. `load` makes one.

    :param device_reason: reason for the back-end's device, as part of a sentence
    """

    def __init__(self, backend: Backend, card: Card, device_reason: str = 'asked for') -> None:
        self._backend = backend
        self.card = card  #: The card of the checkpoint; its keys are attributes
        self.labels = card.classes  #: Names of the classes, in the order of the labels
        self.input_size = card.input_size  #: (height, width) of the network's input, pixels
        self.device = backend.device  #: ``cpu``, ``cuda`` or ``cuda:N``
        self.device_reason = device_reason  #: Why this device was taken
        self.precision = backend.precision  #: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``
        self.backend = backend.name  #: Name of the back-end, such as ``openvino``
        self._postprocess = Postprocessor(backend.anchors, card.input_size, card.classes)
        self._keeps_scores = card.network.forecasts_motion

    @classmethod
    def load(cls, checkpoint: str | Path | Checkpoint | None = None, device: str = AUTO,
             precision: str = AUTO, threads: int | None = None,
             interop_threads: int | None = None, backend: str = AUTO) -> 'Detector':
        """
        Load a checkpoint.

        :param checkpoint: ``small``, ``default`` or ``large`` of the package; a ``.safetensors``
            file, or a folder with one such file; or a result of `read_checkpoint`. None:
            ``default``.
        :param device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` or empty: CUDA if the back-end
            can use it, else the CPU. The log gives the reason.
        :param precision: ``fp32``, ``tf32``, ``bf16``, ``fp16`` or ``int8``; not every back-end
            has all of them. ``auto`` or nothing: bf16 or int8 with OpenVINO on a processor that
            multiplies in it, else fp32.
        :param threads: threads of one inference on the CPU, at least 1. The number also holds
            for OpenCV and, if it is imported, PyTorch in the whole process. None for both numbers
            changes no thread pool, and back-ends with their own threads take one. None for one of
            them means 1.
        :param interop_threads: operators that PyTorch may run at the same time, at least 1. The
            first choice in a process stays.
        :param backend: ``openvino``, ``onnxruntime``, ``tensorrt``, ``torch`` or
            ``torch_compile``; ``auto`` or nothing: the fastest installed one
        :raises RuntimeConfigError: if checkpoint, device, precision or back-end cannot be used. It
            is an `InputError`.
        """
        source = checkpoint if isinstance(checkpoint, Checkpoint) else read_checkpoint(
            default_checkpoint() if checkpoint is None else checkpoint)
        # Every back-end with bf16 also has fp32.
        least = choose_precision(precision)
        choice = choose_device(device, backend, least)
        name = choose_backend(backend, choice.device, least, source)
        precision = choose_precision(precision, name, choice.device, has_int8(source))
        if (threads, interop_threads) != (None, None):
            set_threads(1 if threads is None else threads,
                        1 if interop_threads is None else interop_threads,
                        with_torch=name in TORCH_BACKENDS)
        detector = cls(make_backend(source, name, choice.device, precision, threads or 1),
                       source.card, choice.reason)
        log.info('%s on %s (%s), %s', detector.backend, detector.device, choice.reason,
                 precision)
        return detector

    def stream(self, **settings: Any) -> 'Stream':
        """Open a stream of pictures with its own state; the arguments are those of `Stream`."""
        from .open_stream import Stream
        return Stream(self, **settings)

    def check_settings(self, settings: DetectorSettings) -> None:
        """
        Check settings against the classes of this detector.

        :raises SettingsError: if a class is not among the labels
        """
        for name in settings.classes:
            if name not in self.labels:
                raise SettingsError(f'classes names {cut(name)!r}, must be of '
                                    f'{cut(list(self.labels), 1000)}')

    def warm_up(self, streams: int = 1) -> None:
        """
        Run both steps once on black pictures, so that the first frame is not slow.

        :param streams: run batches of 1 to `streams` streams, because a back-end may prepare each
            size of batch
        """
        height, width = self.input_size
        black = Pixels(np.zeros((height, width, 3), np.uint8), 'bgr')
        state = StreamState.initial()
        settings = DetectorSettings(max_consecutive_forecasts=1)
        for _ in range(2):
            _, state = self.step(Frame((height, width), lambda: black), state, settings)
            self._backend.forecast_step(state.network)
        for count in range(2, streams + 1):
            together = self._backend.stack([state.network] * count)
            self._backend.read_step(np.stack([black.array] * count), together)
            self._backend.forecast_step(together)

    def step(self, frame: Frame, state: StreamState, settings: DetectorSettings,
             elapsed: float = 1.0) -> tuple[StepResult, StreamState]:
        """
        Process one frame.

        :param frame: it is loaded only if it is read
        :param state: state of the stream before the frame; it is not changed
        :param elapsed: time since the stream's previous frame, above 0, always in the same unit
        :returns: the result, and the state for the next frame
        :raises FrameError: if the frame is read and cannot be loaded
        """
        (outcome,) = self.step_many([frame], [state], settings, [elapsed])
        if isinstance(outcome, FrameError):
            raise outcome
        return outcome

    def step_many(self, frames: Sequence[Frame], states: Sequence[StreamState],
                  settings: DetectorSettings, elapsed: Sequence[float] | None = None
                  ) -> list[tuple[StepResult, StreamState] | FrameError]:
        """
        Process one frame of each of several streams; equal decisions form one batch.

        The results equal those of `step` except for the rounding of float32 sums.

        :param frames: one frame of each stream; it is loaded only if it is read
        :param states: state of each stream before its frame
        :param elapsed: time of each stream, as in `step`; None for 1
        :returns: for each frame the result of `step`, or its error. An error does not affect the
            other frames, and the state of its stream stays valid.
        """
        outcomes: dict[int, tuple[StepResult, StreamState] | FrameError] = {}
        jobs: dict[str, list[_Job]] = {READ: [], FORECAST: []}
        times = [1.0] * len(frames) if elapsed is None else elapsed
        for index, (frame, state) in enumerate(zip(frames, states, strict=True)):
            decision = decide(state, frame.size, settings)
            if decision.kind == FORECAST:
                assert state.frame_size is not None
                jobs[FORECAST].append(
                    _Job(index, decision, state, state.network, state.frame_size,
                         elapsed=times[index]))
                continue
            try:
                job = self._prepare(index, frame, state, decision)
                jobs[READ].append(replace(job, elapsed=times[index]))
            except FrameError as error:
                # Its traceback would keep this function's frame, and so the picture, until the
                # next garbage collection.
                outcomes[index] = error.with_traceback(None)
        for kind, batch in jobs.items():
            if batch:
                outcomes.update(self._run(kind == READ, batch, settings))
        return [outcomes[index] for index in range(len(frames))]

    def _prepare(self, index: int, frame: Frame, state: StreamState, decision: Decision
                 ) -> '_Job':
        """Load and resize a read frame; raises FrameError."""
        start = perf_counter()
        pixels, size = frame.load_for(self.input_size)
        image = resize(pixels, self.input_size)
        network = state.network
        fresh = False
        if size != state.frame_size and network is not None:
            # The size of a compressed frame is known only now.
            decision = replace(decision, reason='size_changed')
            network = None
        if network is None:
            network = self._backend.initial_state(1)
            fresh = True
        return _Job(index, decision, state, network, size, image,
                    (perf_counter() - start) * 1e3, fresh)

    def _run(self, read: bool, batch: list['_Job'], settings: DetectorSettings
             ) -> Iterator[tuple[int, tuple[StepResult, StreamState]]]:
        """Run one step on a batch of frames; yield index and outcome of each."""
        start = perf_counter()
        count = len(batch)
        backend = self._backend
        network = (batch[0].network if count == 1
                   else backend.stack([job.network for job in batch]))
        elapsed = np.array([job.elapsed for job in batch], np.float32)
        if read:
            images = [job.image for job in batch if job.image is not None]
            raw = backend.read_step(images[0][None] if count == 1 else np.stack(images), network,
                                    elapsed)
        else:
            raw = backend.forecast_step(network, elapsed)
        after = [raw.state] if count == 1 else backend.split(raw.state, count)
        chosen = [self._choose(job, raw.logits[place], settings)
                  for place, job in enumerate(batch)]
        found = [self._find(job, chosen[place], raw.offsets[place], settings)
                 for place, job in enumerate(batch)]
        inference_ms = (perf_counter() - start) * 1e3
        for place, job in enumerate(batch):
            pace = job.state.pace.after(
                read, job.preprocess_ms + inference_ms / count, settings.budget_ms)
            yield job.index, (
                StepResult(found[place][0], job.decision, job.preprocess_ms, inference_ms, count),
                StreamState(after[place], self._confidence(job, raw.confidence[place]),
                            job.decision.consecutive_forecasts, job.size, pace=pace,
                            candidates=chosen[place] if self._keeps_scores else None,
                            remembered=found[place][1]))

    def _choose(self, job: '_Job', logits: np.ndarray, settings: DetectorSettings) -> Candidates:
        wanted = (lowest_score(settings.score_threshold, settings.vote_threshold,
                               settings.score_memory), tuple(settings.classes))
        last = job.state.candidates
        # The forecast keeps all scores, and choosing again would cost more than moving the boxes.
        if job.image is None and last is not None and (last.threshold, last.classes) == wanted:
            return last
        return self._postprocess.choose(logits, *wanted)

    def _find(self, job: '_Job', chosen: Candidates, offsets: np.ndarray,
              settings: DetectorSettings) -> tuple[Detections, Detections | None]:
        """Return the detections, and those to remember for smoothing scores."""
        place = self._postprocess.place
        if not settings.score_memory:
            return place(chosen, offsets, job.size, settings.score_threshold,
                         settings.nms_threshold, settings.max_detections,
                         settings.vote_threshold), None
        found = place(chosen, offsets, job.size, chosen.threshold, settings.nms_threshold,
                      CANDIDATES, settings.vote_threshold)
        before = job.state.remembered
        if before is not None and not job.fresh:
            # A forecast of motion has the scores of the last read, which were smoothed already.
            new = job.image is not None or not self._keeps_scores
            found = smoothed(found, before, settings.score_memory if new else 1.0)
        return found.best(settings.score_threshold, settings.max_detections), found

    def _confidence(self, job: '_Job', score: np.floating) -> float:
        # On the first frame of a stream, these schedulers have nothing to compare with, and they
        # were not trained on such frames.
        config = self.card.network
        blind = job.fresh and (config.forecasts_motion or config.scheduler_reference == EXPECTED)
        return nan if blind else float(score)


@dataclass(frozen=True)
class _Job:
    index: int
    decision: Decision
    state: StreamState
    network: Any
    size: tuple[int, int]  #: (height, width) of the whole picture
    image: np.ndarray | None = None  #: Of the network's input size; None on a forecast frame
    preprocess_ms: float = 0.0
    fresh: bool = False  #: Whether the stream had no state
    elapsed: float = 1.0  #: Time since the stream's previous frame


def step_stamped(detector: Detector, frame: Frame, stamp_ns: int, before: StreamState,
                 settings: DetectorSettings, max_gap_s: float = MAX_GAP_S,
                 cost_ms: Callable[[str], float] | None = None
                 ) -> tuple[StepResult, StreamState]:
    """
    Process one frame of a camera or bag.

    :param detector: shared by all cameras
    :param frame: it is loaded only if it is read
    :param stamp_ns: stamp of the image's header, nanoseconds
    :param before: state of the camera; it stays valid if the frame fails
    :param max_gap_s: longest time between two stamps, seconds. A longer gap or a step back resets
        the recurrent state, and the decision's reason is ``gap``.
    :param cost_ms: returns the cost of a `READ` or `FORECAST` in a time budget, milliseconds; None
        for the measured time
    :returns: the result of `Detector.step`; its detections have `ids`, equal for the same object
    :raises FrameError: if the frame is read and cannot be loaded
    """
    kept, elapsed = before.kept(stamp_ns, max_gap_s), before.elapsed_s(stamp_ns)
    result, after = detector.step(frame, kept, settings, elapsed)
    if cost_ms is not None:
        kind = result.decision.kind
        after = replace(after, pace=kept.pace.after(kind == READ, cost_ms(kind),
                                                    settings.budget_ms))
    return _numbered((result, after), kept, stamp_ns, elapsed)


def step_stamped_many(detector: Detector, frames: Sequence[Frame], stamps_ns: Sequence[int],
                      before: Sequence[StreamState], settings: DetectorSettings,
                      max_gap_s: float = MAX_GAP_S
                      ) -> list[tuple[StepResult, StreamState] | FrameError]:
    """
    Process one frame of each of several cameras; equal decisions form one batch.

    The arguments are those of `step_stamped`, one for each camera. The list has for each camera
    the result of `step_stamped`, or the error of its frame.
    """
    kept = [state.kept(stamp_ns, max_gap_s)
            for state, stamp_ns in zip(before, stamps_ns, strict=True)]
    elapsed = [state.elapsed_s(stamp_ns) for state, stamp_ns in zip(before, stamps_ns)]
    outcomes = detector.step_many(frames, kept, settings, elapsed)
    return [outcome if isinstance(outcome, FrameError)
            else _numbered(outcome, state, stamp_ns, time)
            for outcome, state, stamp_ns, time in zip(outcomes, kept, stamps_ns, elapsed)]


def _numbered(outcome: tuple[StepResult, StreamState], before: StreamState, stamp_ns: int,
              elapsed: float) -> tuple[StepResult, StreamState]:
    """Add numbers of objects to the result, and tracks and stamp to the state."""
    result, after = outcome
    # In a picture of another size the old boxes are wrong.
    tracks = (before.tracks.anew() if result.decision.reason == 'size_changed'
              else before.tracks)
    ids, tracks = tracks.follow(result.detections, result.decision.kind == READ, elapsed)
    return (replace(result, detections=replace(result.detections, ids=ids)),
            replace(after, stamp_ns=stamp_ns, tracks=tracks, period=before.period))


_LONGEST = 1000  #: Forecasts in a row; settings allow no more


def check_ahead(detector: Detector) -> None:
    """Raise SettingsError if the detector can only repeat its last boxes."""
    config = detector.card.network
    if not config.forecasts:
        raise SettingsError(
            f'publish_ahead is true, but {cut(detector.card.name)} forecasts nothing: its '
            f'variant is {config.variant}; set publish_ahead to false, or take a checkpoint that '
            'forecasts')


def look_ahead(detector: Detector, state: StreamState, settings: DetectorSettings,
               elapsed: float) -> StepResult:
    """
    Forecast the detections of a camera at a later time.

    :param detector, settings: as for `Detector.step`; policy and limits are not used
    :param state: state of the stream after its last frame; it is not changed
    :param elapsed: time since that frame, above 0, in the unit of the stream's times
    :returns: its detections have the numbers of the stream's objects, and -1 for new objects
    :raises ValueError: if the stream has no frame yet
    """
    if state.network is None:
        raise ValueError('nothing can be forecast before the first frame')
    forced = replace(settings, policy=AlternatePolicy(_LONGEST),
                     max_consecutive_forecasts=_LONGEST)
    result, _ = detector.step(Frame(state.frame_size, _no_picture),
                              replace(state, consecutive_forecasts=0), forced, elapsed)
    ids = state.tracks.recognise(result.detections, elapsed)
    return replace(result, detections=replace(result.detections, ids=ids))


def _no_picture() -> Pixels:
    raise FrameError('the picture does not exist yet')
