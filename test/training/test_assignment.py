# SPDX-License-Identifier: Apache-2.0
"""Anchors are matched by the network's predictions, as in a slow reference."""
from forecast_detector_ros.model.ssdlite import HeadOutput, make_anchors
from forecast_detector_ros.training.assignment import (
    ALPHA,
    assign_aligned,
    BETA,
    decode_boxes,
    NEAR,
    pad,
    PaddedBoxes,
    pairwise_iou,
)
import pytest
import torch
from torchvision.ops import box_iou

SIZE, MAPS = (64, 96), ((4, 6), (2, 3))
ANCHORS = make_anchors(SIZE, MAPS, (0.2, 0.6), 'geometric', (2,))
STRIDES = torch.cat([torch.full((24 * 4,), 16.0), torch.full((6 * 4,), 32.0)])


def wanted(boxes, labels, scores=None, ignore=()):
    """Return the boxes of one image in the form of a batch."""
    count = len(boxes)
    return PaddedBoxes(
        torch.tensor(boxes, dtype=torch.float32).view(1, count, 4), torch.tensor([labels]),
        torch.ones(1, count) if scores is None else torch.tensor([scores]),
        torch.tensor(ignore, dtype=torch.float32).view(1, -1, 4))


def some_head(count=1, seed=0):
    """Return random output for three classes."""
    generator = torch.Generator().manual_seed(seed)
    return HeadOutput(torch.randn(count, len(ANCHORS), 4, generator=generator),
                      0.5 * torch.randn(count, len(ANCHORS), 4, generator=generator))


def reference(head, boxes, labels, top):
    """Match the anchors of one image, box by box."""
    scores, found = head.logits[0].softmax(1), decode_boxes(head.offsets, ANCHORS)[0]
    aligned = torch.zeros(len(boxes), len(ANCHORS))
    overlap = box_iou(boxes, found)
    for k, (box, label) in enumerate(zip(boxes, labels)):
        for a, anchor in enumerate(ANCHORS):
            place, centre = (anchor[:2] + anchor[2:]) / 2, (box[:2] + box[2:]) / 2
            half = torch.maximum((box[2:] - box[:2]) / 2, NEAR * STRIDES[a].expand(2))
            if ((place - centre).abs() <= half).all():
                aligned[k, a] = scores[a, label + 1] ** ALPHA * overlap[k, a] ** BETA
    owner = {}
    for k in range(len(boxes)):
        for a in aligned[k].argsort(descending=True)[:top].tolist():
            if aligned[k, a] > 0 and (a not in owner or overlap[k, a] > overlap[owner[a], a]):
                owner[a] = k
    quality = torch.zeros(len(ANCHORS))
    for k in range(len(boxes)):
        own = [a for a in owner if owner[a] == k]
        if own:
            best = max(float(aligned[k, a]) for a in own)
            reach = max(float(overlap[k, a]) for a in own)
            for a in own:
                quality[a] = float(aligned[k, a]) / best * reach
    return owner, quality


@pytest.mark.parametrize('seed', range(4))
def test_agrees_with_a_loop_over_boxes_and_anchors(seed):
    """Owners, classes and quality are as defined."""
    boxes = torch.tensor([[10., 8., 40., 50.], [30., 20., 80., 60.], [60., 5., 66., 12.]])
    labels = [2, 0, 1]
    head = some_head(seed=seed)
    found = assign_aligned(head, ANCHORS, STRIDES, wanted(boxes.tolist(), labels), top=5)
    owner, quality = reference(head, boxes, labels, 5)
    positive = found.classes[0] > 0
    # Anchors whose prediction overlaps little have an alignment of nearly zero.
    clear = quality > 1e-4
    assert positive[clear].all()
    assert found.quality[0][clear] == pytest.approx(quality[clear], abs=1e-3)
    for a in clear.nonzero().flatten().tolist():
        assert found.owner[0, a] == owner[a]
        assert found.classes[0, a] == labels[owner[a]] + 1
        assert torch.equal(found.boxes[0, a], boxes[owner[a]])


def test_every_box_has_an_anchor():
    """Even a small box that contains no centre of a cell has an anchor."""
    found = assign_aligned(some_head(), ANCHORS, STRIDES, wanted([[63., 31., 65., 33.]], [1]))
    assert (found.classes[0] == 2).any()


def test_images_do_not_disturb_each_other():
    """Images are matched alike in a batch and alone, even if their numbers of boxes differ."""
    head = some_head(3)
    counts = torch.tensor([2, 0, 1])
    boxes = torch.tensor([[10., 8., 40., 50.], [30., 20., 80., 60.], [5., 5., 60., 50.]])
    labels, scores = torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.5, 0.25])
    together = assign_aligned(head, ANCHORS, STRIDES, PaddedBoxes(
        pad(boxes, counts), pad(labels, counts, -1), pad(scores, counts), torch.zeros(3, 0, 4)))
    start = 0
    for n, count in enumerate(counts.tolist()):
        part = slice(start, start + count)
        start += count
        alone = assign_aligned(
            HeadOutput(head.logits[n:n + 1], head.offsets[n:n + 1]), ANCHORS, STRIDES,
            PaddedBoxes(boxes[None, part], labels[None, part], scores[None, part],
                        torch.zeros(1, 0, 4)))
        for field in ('classes', 'quality', 'weights'):
            assert torch.equal(getattr(together, field)[n], getattr(alone, field)[0])


def test_scores_weigh_their_anchors():
    """The weight of a positive is that of its box; the weight of a negative is 1."""
    found = assign_aligned(some_head(), ANCHORS, STRIDES,
                           wanted([[10., 8., 40., 50.]], [0], [0.25]))
    positive = found.classes[0] > 0
    assert (found.weights[0][positive] == 0.25).all()
    assert (found.weights[0][~positive] == 1.0).all()


def test_region_hides_anchors_of_its_size():
    """An anchor in an ignored region is ignored, unless the region is far larger."""
    head = HeadOutput(torch.zeros(1, len(ANCHORS), 4), torch.zeros(1, len(ANCHORS), 4))
    size = ANCHORS[:, 2:] - ANCHORS[:, :2]
    chosen = 40
    region = ANCHORS[chosen].tolist()
    found = assign_aligned(head, ANCHORS, STRIDES, wanted([], [], ignore=[region]))
    assert found.classes[0, chosen] == -1
    x, y = (ANCHORS[chosen, :2] + ANCHORS[chosen, 2:]) / 2
    large = [float(x - 2 * size[chosen, 0]), float(y - 2 * size[chosen, 1]),
             float(x + 2 * size[chosen, 0]), float(y + 2 * size[chosen, 1])]
    found = assign_aligned(head, ANCHORS, STRIDES, wanted([], [], ignore=[large]))
    assert found.classes[0, chosen] == 0


def test_padding_spreads_rows():
    """Rows go to their images in order."""
    rows = pad(torch.tensor([5, 6, 7]), torch.tensor([1, 0, 2]), -1)
    assert rows.tolist() == [[5, -1], [-1, -1], [6, 7]]


def test_pairwise_iou_is_torchvisions():
    """The batched function agrees with torchvision's `box_iou`."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 9, 2, 2, generator=generator).sort(2).values
    boxes = corners.flatten(2)
    for n in range(2):
        torch.testing.assert_close(pairwise_iou(boxes, boxes)[n], box_iou(boxes[n], boxes[n]),
                                   rtol=1e-4, atol=1e-4)
