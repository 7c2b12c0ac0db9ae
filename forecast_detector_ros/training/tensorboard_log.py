# SPDX-License-Identifier: Apache-2.0
"""Scalars and example frames of a run for TensorBoard, one of its runs a stage."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, make_grid

from ..clips.dataset import ClipBatch
from ..errors import InputError
from ..model.network import ForecastDetector
from ..model.ssdlite import Boxes, postprocess

CLIPS, FRAMES = 4, 6  #: Most clips, and frames of each, that an example shows
SCORE, NMS = 0.3, 0.45  #: Detections of examples: as `Card` has them if nobody says otherwise
#: Colours of boxes that are annotated and detected: green and vermilion of Okabe and Ito
#: (jfly.uni-koeln.de/color), which most colour-blind people can tell apart.
TRUTH, FOUND = '#009e73', '#d55e00'


class TensorBoardError(InputError):
    """TensorBoard is not installed; one line."""


class TensorBoardLog:
    """
    Writes to a folder what `tensorboard --logdir FOLDER` shows.

    :param folder: gets a folder for each stage
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
        """Begin a stage; what a run that died had written after its last snapshot is dropped."""
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
        """Write a picture with a row for each of the first clips: boxes there are and found."""
        self._writer.add_image('examples', draw_examples(batch, network, self._classes),
                               iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._stage:
            self._writer.close()


@torch.no_grad()
def draw_examples(batch: ClipBatch, network: ForecastDetector, classes: tuple[str, ...]
                  ) -> Tensor:
    """
    Draw annotated and detected boxes into the first frames of the first clips, all of them read.

    :param batch: with its pictures
    :param network: in evaluation mode
    :returns: ``(3, H', W')`` uint8 RGB, a row a clip
    """
    images = batch.images[:CLIPS, :FRAMES]
    clips, frames = images.shape[:2]
    boxes, labels = batch.boxes, batch.labels
    state = network.initial_state(clips)
    columns = []
    for t in range(frames):
        pictures = images[:, t].to(network.mean.device)
        maps, state = network.encode(network.extract(network.normalise(pictures)), state)
        head = network.head(maps.fused)
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
