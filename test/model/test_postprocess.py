# SPDX-License-Identifier: Apache-2.0
"""Compare post-processing with torchvision's SSD and with a slow loop; check its properties."""

from forecast_detector_ros.model.ssdlite import box_coder, make_anchors, postprocess
from hypothesis import given, settings
from hypothesis import strategies as st
import torch
from torch import nn
from torchvision.models.detection.ssd import SSD

SIZE = (64, 96)
ANCHORS = make_anchors(SIZE, ((2, 3), (1, 2)))
CLASSES = 4

seeds = st.integers(0, 2 ** 31 - 1)
scores = st.floats(0.0, 0.6)
overlaps = st.floats(0.05, 1.0)
examples = settings(max_examples=40)


def draw(seed, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    count = len(ANCHORS)
    return (spread * torch.randn(count, CLASSES + 1, generator=generator),
            torch.randn(count, 4, generator=generator))


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    area_a, area_b = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return shared / (area_a + area_b - shared)


def slow(logits, offsets, score_threshold, nms_threshold, max_detections, candidates):
    """Compute the post-processing box by box, in plain Python."""
    probabilities = logits.softmax(1).tolist()
    boxes = box_coder().decode_single(offsets, ANCHORS)
    boxes[:, 0::2].clamp_(0, SIZE[1])
    boxes[:, 1::2].clamp_(0, SIZE[0])
    entries = sorted(
        ((p, label, boxes[anchor].tolist())
         for anchor, row in enumerate(probabilities) for label, p in enumerate(row[1:])
         if p > score_threshold), key=lambda entry: -entry[0])[:candidates]
    kept = []
    for entry in entries:
        if all(entry[1] != other[1] or iou(entry[2], other[2]) <= nms_threshold
               for other in kept):
            kept.append(entry)
    return kept[:max_detections]


@examples
@given(seeds, st.sampled_from([0.05, 0.2, 0.4]), st.sampled_from([0.3, 0.45, 0.7]),
       st.sampled_from([3, 100]), st.sampled_from([10, 400]))
def test_results_match_a_slow_loop(seed, score_threshold, nms_threshold, limit, candidates):
    logits, offsets = draw(seed)
    out = postprocess(logits, offsets, ANCHORS, SIZE, score_threshold, nms_threshold, limit,
                      candidates=candidates)
    expected = slow(logits, offsets, score_threshold, nms_threshold, limit, candidates)
    assert out.labels.tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(out.scores, torch.tensor([p for p, _, _ in expected]))
    torch.testing.assert_close(
        out.boxes, torch.tensor([box for _, _, box in expected]).reshape(-1, 4))


@examples
@given(seeds, st.sampled_from([0.05, 0.2, 0.4]), st.sampled_from([0.3, 0.45, 0.7]))
def test_results_match_the_ssd_of_torchvision(seed, score_threshold, nms_threshold):
    logits, offsets = draw(seed)
    # With so few boxes, torchvision's limit of candidates per class has no effect.
    ssd = SSD(nn.Identity(), nn.Identity(), SIZE, CLASSES + 1, head=nn.Identity(),
              score_thresh=score_threshold, nms_thresh=nms_threshold, detections_per_img=50,
              topk_candidates=len(ANCHORS))
    expected, = ssd.postprocess_detections(
        {'cls_logits': logits[None], 'bbox_regression': offsets[None]}, [ANCHORS], [SIZE])
    out = postprocess(logits, offsets, ANCHORS, SIZE, score_threshold, nms_threshold, 50)
    torch.testing.assert_close(out.boxes, expected['boxes'])
    torch.testing.assert_close(out.scores, expected['scores'])
    assert (out.labels + 1).tolist() == expected['labels'].tolist()


@examples
@given(seeds, scores, overlaps, st.integers(1, 20))
def test_output_is_sorted_limited_and_inside(seed, score_threshold, nms_threshold, limit):
    logits, offsets = draw(seed)
    out = postprocess(logits, 4 * offsets, ANCHORS, SIZE, score_threshold, nms_threshold, limit)
    assert len(out.boxes) == len(out.labels) == len(out.scores) <= limit
    assert out.boxes.dtype == out.scores.dtype == torch.float32
    assert out.labels.dtype == torch.int64
    assert (out.scores[:-1] >= out.scores[1:]).all() and (out.scores > score_threshold).all()
    x1, y1, x2, y2 = out.boxes.unbind(1)
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= SIZE[1])).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= SIZE[0])).all()
    assert ((out.labels >= 0) & (out.labels < CLASSES)).all()


@examples
@given(seeds, st.randoms(use_true_random=False))
def test_order_of_the_anchors_does_not_matter(seed, random):
    logits, offsets = draw(seed)
    order = list(range(len(ANCHORS)))
    random.shuffle(order)
    a = postprocess(logits, offsets, ANCHORS, SIZE, 0.1, 0.45, 50)
    b = postprocess(logits[order], offsets[order], ANCHORS[order], SIZE, 0.1, 0.45, 50)
    # Not equal bit for bit, because softmax may round differently in another row.
    torch.testing.assert_close(a.boxes, b.boxes)
    torch.testing.assert_close(a.scores, b.scores)
    assert a.labels.tolist() == b.labels.tolist()


@examples
@given(seeds, st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES))
def test_wanted_classes_are_those_of_the_full_result(seed, mask):
    logits, offsets = draw(seed)
    wanted = torch.tensor(mask)
    whole = postprocess(logits, offsets, ANCHORS, SIZE, 0.1, 0.45, 1000)
    part = postprocess(logits, offsets, ANCHORS, SIZE, 0.1, 0.45, 1000, classes=wanted)
    # NMS works class by class, so removing other classes has no effect.
    keep = wanted[whole.labels]
    torch.testing.assert_close(part.boxes, whole.boxes[keep])
    assert part.labels.tolist() == whole.labels[keep].tolist()


def test_threshold_is_exclusive_and_the_result_may_be_empty():
    logits = torch.zeros(len(ANCHORS), CLASSES + 1)
    offsets = torch.zeros(len(ANCHORS), 4)
    score = float(logits.softmax(1)[0, 0])
    nothing = postprocess(logits, offsets, ANCHORS, SIZE, score, 0.45, 50)
    assert nothing.boxes.shape == (0, 4) and len(nothing.scores) == len(nothing.labels) == 0
    assert len(postprocess(logits, offsets, ANCHORS, SIZE, score - 1e-4, 1.0, 50).scores) == 50
