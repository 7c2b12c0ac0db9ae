# SPDX-License-Identifier: Apache-2.0
"""Compare anchors and decoding with torchvision and with formulas; check the head."""

from itertools import product
from math import exp, sqrt

from forecast_detector_ros.model.ssdlite import (
    anchors_per_cell,
    box_coder,
    make_anchors,
    SSDLiteHead,
)
import numpy as np
import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList

SSDLITE_MAPS = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))


def reference_anchors(input_size, map_sizes, low, high):
    """Return SSD's default boxes (section 2.2) as centres and sides in pixels."""
    height, width = input_size
    count = len(map_sizes)
    scales = [low + (high - low) * k / (count - 1) for k in range(count)] + [1.0]
    boxes = []
    for k, (rows, columns) in enumerate(map_sizes):
        sides = [(scales[k], scales[k])] + [(sqrt(scales[k] * scales[k + 1]),) * 2]
        for ratio in (2, 3):
            long, short = scales[k] * sqrt(ratio), scales[k] / sqrt(ratio)
            sides += [(long, short), (short, long)]
        for row, column, (w, h) in product(range(rows), range(columns), sides):
            boxes.append(((column + 0.5) / columns * width, (row + 0.5) / rows * height,
                          w * width, h * height))
    return np.array(boxes)


def to_centres(boxes):
    boxes = boxes.double().numpy()
    return np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)


@pytest.mark.parametrize('input_size, maps, scales', [
    ((320, 320), SSDLITE_MAPS, (0.2, 0.95)), ((64, 96), ((4, 6), (2, 3), (1, 2)), (0.1, 0.9))])
def test_anchors_by_formula(input_size, maps, scales):
    anchors = make_anchors(input_size, maps, scales)
    assert anchors.dtype == torch.float32
    expected = reference_anchors(input_size, maps, *scales)
    np.testing.assert_allclose(to_centres(anchors), expected, atol=1e-4)


def test_anchors_are_those_of_torchvisions_ssdlite():
    generator = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None,
                                              num_classes=2).anchor_generator
    image = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    theirs, = generator(image, [torch.zeros(1, 1, *size) for size in SSDLITE_MAPS])
    ours = to_centres(make_anchors((320, 320), SSDLITE_MAPS))
    # Torchvision limits the anchors' sides to the picture; this package clips detections later.
    ours[:, 2:] = ours[:, 2:].clip(max=320)
    np.testing.assert_allclose(ours, to_centres(theirs), atol=1e-4)


def test_a_single_map_has_the_smallest_scale():
    anchors = to_centres(make_anchors((100, 100), ((1, 1),), (0.2, 0.95)))
    assert anchors[0] == pytest.approx([50, 50, 20, 20], abs=1e-4)


def test_decoding_by_formula():
    anchors = make_anchors((64, 96), ((2, 3),))
    offsets = torch.randn(len(anchors), 4)
    decoded = to_centres(box_coder().decode_single(offsets, anchors))
    for (cx, cy, w, h), (dx, dy, dw, dh), box in zip(to_centres(anchors), offsets.tolist(),
                                                     decoded):
        expected = (cx + dx / 10 * w, cy + dy / 10 * h, w * exp(dw / 5), h * exp(dh / 5))
        assert box == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize('upsample', [None, 6])
@pytest.mark.parametrize('sizes', [((10, 10),), ((6, 9), (3, 5))])
def test_map_sizes_are_those_of_the_head(upsample, sizes):
    channels = (8, 12)[-len(sizes):]
    head = SSDLiteHead(channels, 3, (10, 8), upsample).eval()
    seen = []
    for predictor in head.regression:
        predictor.register_forward_hook(
            lambda module, inputs, output: seen.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        out = head([torch.rand(2, c, *size) for c, size in zip(channels, sizes)])
    assert tuple(seen) == head.map_sizes(sizes)
    if upsample is not None:
        assert seen[0] == (2 * sizes[-1][0], 2 * sizes[-1][1])
    anchors = anchors_per_cell() * sum(h * w for h, w in seen)
    assert out.logits.shape == (2, anchors, 4) and out.offsets.shape == (2, anchors, 4)


def test_order_of_the_output(enliven):
    """Predictions have the order of the anchors: map, row, column, anchor, class."""
    head = enliven(SSDLiteHead((8, 12), 3, (10,))).eval()
    sizes = ((3, 4), (2, 2))
    fused = [6 * torch.rand(1, c, *size) for c, size in zip((8, 12), sizes)]
    with torch.no_grad():
        out = head(fused)
        raw = [head.classification[k](x)[0] for k, x in enumerate(fused)]
        boxes = [head.regression[k](x)[0] for k, x in enumerate(fused)]
    index = 0
    for scores, offsets, (rows, columns) in zip(raw, boxes, sizes):
        for row, column, anchor in product(range(rows), range(columns), range(6)):
            assert torch.equal(out.logits[0, index],
                               scores[4 * anchor:4 * anchor + 4, row, column])
            assert torch.equal(out.offsets[0, index],
                               offsets[4 * anchor:4 * anchor + 4, row, column])
            index += 1
    assert index == 6 * (12 + 4)


def test_upsampled_map_comes_from_the_deepest():
    head = SSDLiteHead((8,), 3, (), 6).eval()
    x = torch.rand(1, 8, 2, 2)
    with torch.no_grad():
        small = head.upsample[0](x)
        large = head.upsample(x)
    corner = 0.75 * 0.75 * small[..., 0, 0] + 0.1875 * (small[..., 0, 1] + small[..., 1, 0]) \
        + 0.0625 * small[..., 1, 1]
    torch.testing.assert_close(large[..., 1, 1], corner)
    torch.testing.assert_close(large[..., 0, 0], small[..., 0, 0])


def test_single_cells_are_extended_in_full_precision():
    head = SSDLiteHead((8,), 2, (8, 8, 8)).eval()
    seen = []
    for layer in head.extra:
        layer[1][0].register_forward_hook(lambda _, inputs, output: seen.append(
            (tuple(inputs[0].shape[2:]), output.dtype)))
    with torch.autocast('cpu', torch.bfloat16):
        head((torch.rand(2, 8, 3, 4),))
    assert seen == [((3, 4), torch.bfloat16), ((2, 2), torch.bfloat16), ((1, 1), torch.float32)]
