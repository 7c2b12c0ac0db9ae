# SPDX-License-Identifier: Apache-2.0
"""
SSDLite head: extra layers, predictors, anchors and post-processing.

The predictors are those of SSDLite (Sandler et al. 2018, section 6.2). Anchor generator, box
coder and NMS are those of torchvision.
"""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, clip_boxes_to_image, Conv2dNormActivation

from .config import BOX_CODER_WEIGHTS, GEOMETRIC, LEAST_SIDE, LINEAR

#: With 1 and the inverses, the ratios of SSD (Liu et al., ECCV 2016, section 2.2).
ASPECT_RATIOS = (2, 3)


def anchors_per_cell(ratios: Sequence[int] = ASPECT_RATIOS) -> int:
    """Return the anchors per cell: two squares, and two per ratio (Liu et al., section 2.2)."""
    return 2 + 2 * len(ratios)


class HeadOutput(NamedTuple):
    """Raw scores and box offsets of all anchors."""

    logits: Tensor  #: ``(B, A, 1 + classes)``, background first
    offsets: Tensor  #: ``(B, A, 4)``, (dx, dy, dw, dh) in the box coder's units


def _extra_layer(inputs: int, outputs: int) -> nn.Sequential:
    squeezed = max(outputs // 2, 8)
    return nn.Sequential(
        Conv2dNormActivation(inputs, squeezed, 1, activation_layer=nn.ReLU6),
        Conv2dNormActivation(squeezed, squeezed, 3, stride=2, groups=squeezed,
                             activation_layer=nn.ReLU6),
        Conv2dNormActivation(squeezed, outputs, 1, activation_layer=nn.ReLU6))


def _extend(layer: nn.Module, x: Tensor) -> Tensor:
    # PyTorch 2.14 on the CPU computes wrong weight gradients, even infinite ones, of the strided
    # depthwise convolution in bf16 if the map has one row or column.
    if x.device.type == 'cpu' and torch.is_autocast_enabled('cpu') and 1 in x.shape[2:]:
        with torch.autocast('cpu', enabled=False):
            return layer(x.float())
    return layer(x)


def _predictor(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2dNormActivation(inputs, inputs, 3, groups=inputs, activation_layer=nn.ReLU6),
        nn.Conv2d(inputs, outputs, 1))


class TopDown(nn.Module):
    """
    Top-down path: add the deeper maps to each map (Lin et al., CVPR 2017, section 3).

    1x1 convolutions give all maps the same number of channels. From the deepest map on, each map
    is upsampled and added to the next. Separable 3x3 convolutions smooth the sums.

    :param channels: channels of the input maps, shallow level first
    :param outputs: channels of each output map
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            Conv2dNormActivation(c, outputs, 1, activation_layer=None) for c in channels)
        self.smooth = nn.ModuleList(nn.Sequential(
            Conv2dNormActivation(outputs, outputs, 3, groups=outputs, activation_layer=nn.ReLU6),
            Conv2dNormActivation(outputs, outputs, 1, activation_layer=nn.ReLU6))
            for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a map of the same size for each input map, values in [0, 6]."""
        sums = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        for level in range(len(sums) - 2, -1, -1):
            sums[level] = sums[level] + functional.interpolate(
                sums[level + 1], size=sums[level].shape[2:], mode='nearest')
        return [smooth(x) for smooth, x in zip(self.smooth, sums)]


class SSDLiteHead(nn.Module):
    """
    Predict scores and box offsets from the fused maps.

    :param channels: channels of the input maps, shallow level first
    :param classes: number of classes without background
    :param extra_channels: output channels of the extra layers after the deepest map; each layer
        halves the size of the map
    :param upsample_channels: channels of a further map of twice the deepest map's size, made by a
        1x1 convolution and bilinear upsampling, whose predictions come first; None: no such map
    :param neck_channels: channels of a `TopDown` for the input maps; None: no top-down path
    :param aspect_ratios: aspect ratios of the anchors in addition to 1
    """

    def __init__(self, channels: Sequence[int], classes: int, extra_channels: Sequence[int],
                 upsample_channels: int | None = None, neck_channels: int | None = None,
                 aspect_ratios: Sequence[int] = ASPECT_RATIOS) -> None:
        super().__init__()
        self.classes = classes
        self.upsample: nn.Module | None = None
        self.neck: nn.Module | None = None
        maps = list(channels)
        if neck_channels is not None:
            self.neck = TopDown(channels, neck_channels)
            maps = [neck_channels] * len(channels)
        if upsample_channels is not None:
            self.upsample = nn.Sequential(
                Conv2dNormActivation(channels[-1], upsample_channels, 1,
                                     activation_layer=nn.ReLU6),
                nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False))
            maps.insert(0, upsample_channels)
        self.extra = nn.ModuleList()
        for outputs in extra_channels:
            self.extra.append(_extra_layer(maps[-1], outputs))
            maps.append(outputs)
        anchors = anchors_per_cell(aspect_ratios)
        self.classification = nn.ModuleList(
            _predictor(c, anchors * (classes + 1)) for c in maps)
        self.regression = nn.ModuleList(_predictor(c, anchors * 4) for c in maps)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Standard deviation of torchvision's ssdlite, which follows TensorFlow's.
                nn.init.normal_(module.weight, std=0.03)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def set_prior(self, probability: float = 0.01) -> None:
        """
        Set the background bias so that the scores of all classes sum to `probability`.

        0.01 is the value of focal loss (Lin et al., ICCV 2017, section 4.1). It keeps the start of
        training stable although nearly all anchors are background.
        """
        lead = log(self.classes * (1.0 - probability) / probability)
        for predictor in self.classification:
            bias = predictor.get_submodule('1').get_parameter('bias')
            with torch.no_grad():
                bias.view(-1, self.classes + 1)[:, 0] = lead

    def map_sizes(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) of all maps of predictions from those of the input maps."""
        result = list(sizes)
        if self.upsample is not None:
            height, width = sizes[-1]
            result.insert(0, (2 * height, 2 * width))
        for _ in self.extra:
            height, width = result[-1]
            result.append((-(-height // 2), -(-width // 2)))
        return tuple(result)

    def forward(self, fused: Sequence[Tensor]) -> HeadOutput:
        """
        Predict from the fused maps.

        :param fused: one ``(B, C, h, w)`` map per level, shallow level first
        :returns: the output, with anchors ordered by map, row, column and anchor of the cell, as
            in torchvision
        """
        maps = list(fused) if self.neck is None else self.neck(fused)
        if self.upsample is not None:
            maps.insert(0, self.upsample(maps[-1]))
        for layer in self.extra:
            maps.append(_extend(layer, maps[-1]))
        logits = [_flatten(predictor(x), self.classes + 1)
                  for predictor, x in zip(self.classification, maps)]
        offsets = [_flatten(predictor(x), 4) for predictor, x in zip(self.regression, maps)]
        return HeadOutput(torch.cat(logits, 1), torch.cat(offsets, 1))


def _flatten(x: Tensor, last: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, last)


def make_anchors(input_size: tuple[int, int], map_sizes: Sequence[tuple[int, int]],
                 scales: tuple[float, float] = (0.2, 0.95), spacing: str = LINEAR,
                 ratios: Sequence[int] = ASPECT_RATIOS) -> Tensor:
    """
    Return the anchors of all maps.

    :param input_size: (height, width) of the network's input, pixels
    :param map_sizes: (height, width) of each map of predictions
    :param scales: smallest and largest scale, as fractions of the input; MobileNetV2 SSDLite has
        0.2 and 0.95
    :param spacing: growth of the scales from map to map, one of `SPACINGS`
    :param ratios: aspect ratios in addition to 1
    :returns: ``(A, 4)`` float32, xyxy in pixels of the network's input; not clipped
    """
    count = len(map_sizes)
    steps: list[float] | None = None
    if spacing == GEOMETRIC:
        factor = (scales[1] / scales[0]) ** (1 / max(count - 1, 1))
        # One more scale than maps, for the larger square of the last map.
        steps = [scales[0] * factor ** k for k in range(count + 1)]
    generator = DefaultBoxGenerator([list(ratios) for _ in map_sizes], min_ratio=scales[0],
                                    max_ratio=scales[1], scales=steps, clip=False)
    # The generator reads only shapes.
    images = ImageList(torch.empty(1, 0, *input_size), [input_size])
    return generator(images, [torch.empty(1, 0, *size) for size in map_sizes])[0]


def motion_units(anchors: Tensor, strides: Tensor) -> Tensor:
    """
    Return the factors ``(A, 4)`` between motions and changes of offsets.

    A motion is in cells of the anchor's map for the centre, and a logarithm for the sides.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    weights = anchors.new_tensor(BOX_CODER_WEIGHTS)
    return torch.cat((weights[:2] * strides[:, None] / sides,
                      weights[2:].expand(len(anchors), 2)), 1)


def box_coder() -> BoxCoder:
    """Return the coder between boxes and offsets for training and inference."""
    return BoxCoder(BOX_CODER_WEIGHTS)


class Boxes(NamedTuple):
    """Detections in pixels of the network's input, best score first."""

    boxes: Tensor  #: ``(N, 4)`` float32, xyxy
    labels: Tensor  #: ``(N,)`` int64, index of the class without background
    scores: Tensor  #: ``(N,)`` float32, in (0, 1]


def postprocess(logits: Tensor, offsets: Tensor, anchors: Tensor, input_size: tuple[int, int],
                score_threshold: float, nms_threshold: float, max_detections: int,
                classes: Tensor | None = None, candidates: int = 400) -> Boxes:
    """
    Turn the head's output for one image into detections: threshold, top-k, decode, NMS.

    Boxes with a side below `LEAST_SIDE` are left out.

    :param logits: ``(A, 1 + classes)``, background first
    :param offsets: ``(A, 4)``
    :param anchors: ``(A, 4)``, xyxy in pixels of the network's input
    :param input_size: (height, width) to which boxes are clipped
    :param score_threshold: lower limit of scores, exclusive, in [0, 1]
    :param nms_threshold: IoU at or above which the weaker of two boxes of one class is dropped, in
        (0, 1]
    :param max_detections: upper limit of the number of detections
    :param classes: bool ``(classes,)``: wanted classes; None for all
    :param candidates: boxes that enter NMS; torchvision's ssdlite uses 300 per class
    :returns: at most `max_detections` boxes
    """
    scores = logits.softmax(1)[:, 1:]
    wanted = scores > score_threshold
    if classes is not None:
        wanted &= classes
    picked = wanted.nonzero()
    anchor, label = picked[:, 0], picked[:, 1]
    score = scores[anchor, label]
    if score.numel() > candidates:
        score, order = score.topk(candidates)
        anchor, label = anchor[order], label[order]
    boxes = box_coder().decode_single(offsets[anchor], anchors[anchor])
    boxes = clip_boxes_to_image(boxes, input_size)
    wide = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= LEAST_SIDE
    boxes, score, label = boxes[wide], score[wide], label[wide]
    keep = batched_nms(boxes, score, label, nms_threshold)[:max_detections]
    return Boxes(boxes[keep], label[keep], score[keep])
