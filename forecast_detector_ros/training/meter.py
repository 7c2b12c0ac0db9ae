# SPDX-License-Identifier: Apache-2.0
"""What a training run tells about itself: one line an interval, and a dead scheduler."""

from collections import defaultdict
import logging
import resource
from time import monotonic

import torch

from .loss_config import StepLosses

log = logging.getLogger(__name__)

#: Decisions in a row with one and the same y_t from which on a warning is due.
DEAD_DECISIONS = 200


#: Iterations whose time says nothing yet, as memory is taken and workers start; and those that are
#: timed after them to plan the length of a stage.
WARM_UP, MEASURED = 3, 10


class Meter:
    """
    Means between two log lines, and the balance of y_t.

    :param device: whose memory is told; that of the process on a CPU
    :param done: iterations that were done before this run
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
        """Take the losses of one iteration in, of `images` pictures."""
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
        Time the first iterations; once they are known, say how long stage and training will take.

        To be called after each iteration, of `images` pictures.  A later stage that trains less of
        the network, or that keeps features, is faster than it is planned here.
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
            advice = ('every forecast does, so the scheduler learns never to read: raise '
                      'thinning, loss.reliable_iou or the share of real video')
        else:
            advice = ('no forecast does, so the scheduler learns to read always: train the '
                      'encoders longer, lower loss.reliable_iou, or compare with '
                      'loss.reliable_against: read')
        log.warning('stage %s: y_t has had one value in %d decisions: %s', self._stage,
                    max(self._run), advice)

    def scalars(self, rates: dict[str, float]) -> dict[str, float]:
        """Give the means since the last line by name, for a log that machines read."""
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
        """Give the line for the log, and begin a new interval."""
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
    """Give the most memory that was in use, 1e9 bytes: of the card, or of this process."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Linux counts in KiB (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
