# SPDX-License-Identifier: Apache-2.0
"""
SSDLite head: extra layers, predictors, anchors and post-processing.

The predictors are those of SSDLite (Sandler et al. 2018, section 6.2).  Anchor generator, box
coder and NMS are torchvision's.
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

#: With 1 and the inverses: the ratios of SSD (Liu et al., ECCV 2016, section 2.2).
ASPECT_RATIOS = (2, 3)


def anchors_per_cell(ratios: Sequence[int] = ASPECT_RATIOS) -> int:
    """Count a cell's anchors: two squares, and two for each ratio (Liu et al., section 2.2)."""
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
    # On a map of one row or column the strided depthwise convolution's weight gradient is wrong in
    # bf16, up to infinity, in taps on padding alone (PyTorch 2.14, CPU).
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
    Enrich each map with what the deeper ones know (Lin et al., CVPR 2017, section 3).

    A 1x1 convolution brings every map to the same number of channels; from the deepest on, each
    is enlarged and added to the next. A separable 3x3 convolution smooths the sums.

    :param channels: channels of the incoming maps, shallow level first
    :param outputs: channels of every outgoing map
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
        """Give one map per incoming one, of its size, values in [0, 6]."""
        sums = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        for level in range(len(sums) - 2, -1, -1):
            sums[level] = sums[level] + functional.interpolate(
                sums[level + 1], size=sums[level].shape[2:], mode='nearest')
        return [smooth(x) for smooth, x in zip(self.smooth, sums)]


class SSDLiteHead(nn.Module):
    """
    Predict scores and box offsets from the fused maps.

    :param channels: of the incoming maps, shallow level first
    :param classes: without background
    :param extra_channels: output channels of the extra layers after the deepest map; each halves
        its size
    :param upsample_channels: if given, one more map with this number of channels and twice the
        deepest map's size is made by a 1x1 convolution and bilinear upsampling. Its predictions
        come first.
    :param neck_channels: if given, the incoming maps go through `TopDown` first
    :param aspect_ratios: of the anchors, beside 1
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
                # Standard deviation of torchvision's ssdlite, after the TensorFlow original.
                nn.init.normal_(module.weight, std=0.03)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def set_prior(self, probability: float = 0.01) -> None:
        """
        Let a fresh head say *background* but for a probability.

        0.01 is that of focal loss (Lin et al., ICCV 2017, section 4.1): training starts calmly
        although nearly all anchors are background.
        """
        lead = log(self.classes * (1.0 - probability) / probability)
        for predictor in self.classification:
            bias = predictor.get_submodule('1').get_parameter('bias')
            with torch.no_grad():
                bias.view(-1, self.classes + 1)[:, 0] = lead

    def map_sizes(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Give the sizes of all predicted maps from those of the incoming ones."""
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
        :returns: anchors are ordered by map, then row, column, and anchor of the cell, as
            torchvision orders its default boxes
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
    Make the default boxes of all maps.

    :param input_size: (height, width) of the network's input, pixels
    :param map_sizes: (height, width) of each predicted map
    :param scales: smallest and largest scale, as a fraction of the input. 0.2 and 0.95 are
        MobileNetV2 SSDLite's
    :param spacing: how the maps' scales lie between them, one of `SPACINGS`
    :param ratios: aspect ratios beside 1
    :returns: ``(A, 4)`` float32, xyxy in pixels of the network's input; not clipped
    """
    count = len(map_sizes)
    steps: list[float] | None = None
    if spacing == GEOMETRIC:
        factor = (scales[1] / scales[0]) ** (1 / max(count - 1, 1))
        # One more than there are maps, for the larger square of the last one.
        steps = [scales[0] * factor ** k for k in range(count + 1)]
    generator = DefaultBoxGenerator([list(ratios) for _ in map_sizes], min_ratio=scales[0],
                                    max_ratio=scales[1], scales=steps, clip=False)
    # The generator reads nothing but shapes.
    images = ImageList(torch.empty(1, 0, *input_size), [input_size])
    return generator(images, [torch.empty(1, 0, *size) for size in map_sizes])[0]


def motion_units(anchors: Tensor, strides: Tensor) -> Tensor:
    """
    Give the factors ``(A, 4)`` from motions to changes of offsets.

    A motion is in cells of the anchor's map, and as a logarithm for the sides.
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    weights = anchors.new_tensor(BOX_CODER_WEIGHTS)
    return torch.cat((weights[:2] * strides[:, None] / sides,
                      weights[2:].expand(len(anchors), 2)), 1)


def box_coder() -> BoxCoder:
    """Build the coder between boxes and offsets that training and inference share."""
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

    Boxes thinner than `LEAST_SIDE` are left out.

    :param logits: ``(A, 1 + classes)``, background first
    :param offsets: ``(A, 4)``
    :param anchors: ``(A, 4)``, xyxy in pixels of the network's input
    :param input_size: (height, width) that boxes are clipped to
    :param score_threshold: lower limit of scores, exclusive, in [0, 1]
    :param nms_threshold: IoU from which on the weaker of two boxes of one class is dropped, in (0,
        1]
    :param max_detections: upper limit of the number of detections
    :param classes: bool ``(classes,)``: those that are wanted; None wants all
    :param candidates: boxes that enter NMS; torchvision's ssdlite takes 300 per class
    :returns: at most `max_detections`
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
