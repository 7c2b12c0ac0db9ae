# SPDX-License-Identifier: Apache-2.0
"""The log of a training, and its numbers and examples for TensorBoard."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
import logging
from pathlib import Path
import resource
from time import monotonic
from typing import Protocol

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, make_grid

from .losses import StepLosses
from ..clips.dataset import ClipBatch
from ..errors import InputError
from ..model.network import ForecastDetector
from ..model.ssdlite import Boxes, postprocess

log = logging.getLogger(__name__)

#: Number of successive decisions with the same y_t that leads to a warning.
DEAD_DECISIONS = 200

#: Iterations that are not timed, because memory is allocated and workers start; and those after
#: them that are timed to estimate the length of a stage.
WARM_UP, MEASURED = 3, 10


class Meter:
    """
    Means between two log lines, and the balance of y_t.

    :param device: its memory is logged; for a CPU, the memory of the process
    :param done: iterations before this run
    :param later: pictures of the stages after this one
    """

    def __init__(self, stage: str, total: int, device: torch.device, done: int = 0,
                 later: int = 0) -> None:
        self._stage, self._total, self._device = stage, total, device
        self._done, self._later = done, later
        self._calls = 0
        self._ends: list[float] = []
        self._run = [0, 0]
        self._warned = False
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps = self._images = 0
        self._ones = self._reads = self._decisions = 0
        self._start = monotonic()

    def add(self, losses: StepLosses, images: int) -> None:
        """Add the losses of one iteration of `images` pictures."""
        for key, value in losses.parts.items():
            self._sums[key] += value
        self._steps += 1
        self._images += images
        if losses.decisions:
            self._ones += losses.ones
            self._decisions += losses.decisions
            self._reads += losses.reads
            self._watch(losses.ones, losses.decisions)

    def plan(self, images: int) -> str | None:
        """
        Time the first iterations; then return a line on the time of the stage and of the training.

        Call it after each iteration of `images` pictures. The estimate is too long for a later
        stage that trains less of the network or keeps features.
        """
        if len(self._ends) > MEASURED:
            return None
        self._calls += 1
        if self._calls < WARM_UP:
            return None
        self._ends.append(monotonic())
        if len(self._ends) <= MEASURED:
            return None
        each = (self._ends[-1] - self._ends[0]) / MEASURED
        stage = (self._total - self._done - self._calls) * each / 3600
        whole = stage + self._later / images * each / 3600
        return (f'stage {self._stage}: {each:.3g} s an iteration, {images / each:.1f} images/s, '
                f'over {MEASURED} iterations: {stage:.2f} h to its end, about {whole:.2f} h to '
                'the end of all stages at this rate')

    def _watch(self, ones: int, count: int) -> None:
        self._run = [self._run[0] + count if ones == 0 else 0,
                     self._run[1] + count if ones == count else 0]
        if self._warned or max(self._run) < DEAD_DECISIONS:
            return
        self._warned = True
        if self._run[1] >= DEAD_DECISIONS:
            advice = ('every forecast is reliable, so the scheduler learns never to read: raise '
                      'thinning, loss.reliable_iou or the share of real video')
        else:
            advice = ('no forecast is reliable, so the scheduler learns to read always: train the '
                      'encoders longer, lower loss.reliable_iou, or compare with '
                      'loss.reliable_against: read')
        log.warning('stage %s: y_t has had one value in %d decisions: %s', self._stage,
                    max(self._run), advice)

    def scalars(self, rates: dict[str, float]) -> dict[str, float]:
        """Return the means since the last line by name, for TensorBoard."""
        elapsed = monotonic() - self._start
        result = {f'loss/{key}': value / self._steps for key, value in self._sums.items()}
        if self._decisions:
            result['scheduler/y_t'] = self._ones / self._decisions
            result['scheduler/read_ratio'] = self._reads / self._decisions
        result |= {f'lr/{name}': rate for name, rate in rates.items()}
        result['speed/images_per_second'] = self._images / elapsed
        result['speed/memory_gb'] = memory_gb(self._device)
        return result

    def line(self, iteration: int, rates: dict[str, float]) -> str:
        """Return the line for the log, and begin a new interval."""
        scalars = self.scalars(rates)
        left = (self._total - iteration) * (monotonic() - self._start) / self._steps
        parts = [f'{self._stage} {iteration}/{self._total}']
        parts += [f'{key.partition("/")[2]} {value:.4f}' for key, value in scalars.items()
                  if key.startswith('loss/')]
        if self._decisions:
            parts.append(f'y_t {scalars["scheduler/y_t"]:.2f}')
            parts.append(f'read {scalars["scheduler/read_ratio"]:.2f}')
        parts += [f'lr_{name} {rate:.1e}' for name, rate in rates.items()]
        parts.append(f'{scalars["speed/images_per_second"]:.1f} images/s')
        parts.append(f'{scalars["speed/memory_gb"]:.1f} GB')
        parts.append(f'ETA {int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d}')
        self._clear()
        return '  '.join(parts)


def memory_gb(device: torch.device) -> float:
    """Return the most memory so far, in 1e9 bytes: of the GPU, or of this process."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Linux counts in KiB (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


#: Measures a network in evaluation mode; returns numbers by name. The first one is the score, of
#: which larger is better.
Validate = Callable[[ForecastDetector], dict[str, float]]


class Observer(Protocol):
    """Receives the progress of a run, besides the log."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Receive that `done` of the stage's `total` iterations are done."""

    def scalars(self, stage: str, iteration: int, values: dict[str, float]) -> None:
        """Receive numbers by name: means of an interval, or results of a validation."""

    def examples(self, stage: str, iteration: int, batch: ClipBatch,
                 network: ForecastDetector) -> None:
        """Receive a batch and the network in evaluation mode, at the end of an epoch."""


@dataclass(frozen=True)
class RunOptions:
    """The output of a run; nothing here changes the weights."""

    snapshot: Path  #: The resumable state
    snapshot_every: float = 300.0  #: Seconds between snapshots
    log_every: int = 20  #: Iterations between log lines
    deadline: float = float('inf')  #: Value of `time.monotonic` at which to stop with a snapshot
    observers: tuple[Observer, ...] = ()  #: Called only in the first process
    #: Called with weights whose validation score is the best of the stage so far.
    on_best: Callable[[dict[str, Tensor]], None] | None = None


CLIPS, FRAMES = 4, 6  #: Most clips of an example, and most frames of each
SCORE, NMS = 0.3, 0.45  #: Thresholds of the detections in examples: the defaults of `Card`
#: Colours of boxes that are annotated and detected: green and vermilion of Okabe and Ito
#: (jfly.uni-koeln.de/color), which most colour-blind people can tell apart.
TRUTH, FOUND = '#009e73', '#d55e00'


class TensorBoardError(InputError):
    """TensorBoard is not installed; the message is one line."""


class TensorBoardLog:
    """
    Writes a log for ``tensorboard --logdir FOLDER``.

    :param folder: gets a subfolder for each stage
    :raises TensorBoardError: if TensorBoard is not installed
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TensorBoardError('TensorBoard is not installed: pip install tensorboard, or '
                                   'leave --tensorboard out') from None
        self._open = SummaryWriter
        self._folder, self._classes = folder, classes
        self._stage = ''

    def progress(self, stage: str, done: int, total: int) -> None:
        """Begin a stage; entries that a killed run wrote after its last snapshot are dropped."""
        if stage == self._stage:
            return
        self.close()
        self._stage = stage
        self._writer = self._open(str(self._folder / stage), purge_step=done)

    def scalars(self, stage: str, iteration: int, values: dict[str, float]) -> None:
        """Write numbers."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def examples(self, stage: str, iteration: int, batch: ClipBatch,
                 network: ForecastDetector) -> None:
        """Write a picture with a row of frames per clip, with annotated and detected boxes."""
        self._writer.add_image('examples', draw_examples(batch, network, self._classes),
                               iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write the buffered entries."""
        if self._stage:
            self._writer.close()


@torch.no_grad()
def draw_examples(batch: ClipBatch, network: ForecastDetector, classes: tuple[str, ...]
                  ) -> Tensor:
    """
    Draw annotated and detected boxes into the first frames of the first clips; each frame is read.

    :param network: in evaluation mode
    :returns: ``(3, H', W')`` uint8 RGB, one row per clip
    """
    images = batch.images[:CLIPS, :FRAMES]
    clips, frames = images.shape[:2]
    boxes, labels = batch.boxes, batch.labels
    state = network.initial_state(clips)
    columns = []
    for t in range(frames):
        pictures = images[:, t].to(network.mean.device)
        head, _, state = network.read_features(
            network.extract(network.normalise(pictures)), state)
        drawn = []
        for b in range(clips):
            found = postprocess(head.logits[b], head.offsets[b], network.anchors,
                                network.config.input_size, SCORE, NMS, 100)
            picture = _draw(images[b, t].cpu(), boxes[b][t], labels[b][t], classes, TRUTH)
            drawn.append(_draw(picture, found.boxes, found.labels, classes, FOUND, found))
        columns.append(torch.stack(drawn))
    return make_grid(torch.stack(columns, 1).flatten(0, 1), nrow=frames)


def _draw(picture: Tensor, boxes: Tensor, labels: Tensor, classes: tuple[str, ...], colour: str,
          found: Boxes | None = None) -> Tensor:
    if not len(boxes):
        return picture
    texts = [classes[int(label)] for label in labels]
    if found is not None:
        texts = [f'{text} {score:.2f}' for text, score in zip(texts, found.scores.tolist())]
    return draw_bounding_boxes(picture, boxes.cpu(), texts, colour)
