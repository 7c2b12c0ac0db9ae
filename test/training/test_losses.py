# SPDX-License-Identifier: Apache-2.0
"""Losses, by hand and as defined, and the target y_t."""

from itertools import permutations
from math import exp, log

from forecast_detector_ros.model.ssdlite import (
    box_coder,
    Boxes,
    HeadOutput,
    make_anchors,
    SSDLiteHead,
)
from forecast_detector_ros.training.assignment import decode_boxes, QualityTargets
from forecast_detector_ros.training.losses import (
    _perfect_matching,
    assign,
    BOX_LOSSES,
    decision_loss,
    detection_loss,
    FOCUS,
    forecast_loss,
    is_consistent,
    is_reliable,
    NEGATIVE_WEIGHT,
    quality_loss,
)
from hypothesis import given, strategies
import pytest
import torch
from torchvision.ops import generalized_box_iou

ANCHORS = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.], [0., 20., 10., 30.],
                        [50., 50., 60., 60.]])
NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def test_assign_takes_overlapping_anchors_and_always_the_best_one():
    boxes = [torch.tensor([[0., 0., 10., 8.], [24., 6., 34., 16.]])]
    labels = [torch.tensor([4, 2])]
    targets = assign(ANCHORS, boxes, labels, [torch.tensor([0.9, 0.4])])
    # The first box has IoU 0.8 with anchor 0; the second overlaps anchor 1 by 24 / 176 only.
    assert targets.classes.tolist() == [[5, 3, 0, 0]]
    assert targets.boxes[0, 1].tolist() == [24., 6., 34., 16.]
    assert targets.weights[0].tolist() == pytest.approx([0.9, 0.4, 1.0, 1.0])


def test_assign_ignores_negatives_inside_ignore_regions():
    region = torch.tensor([[0., 14., 40., 40.], [50., 50., 60., 54.]])
    targets = assign(ANCHORS, [NO_BOXES[0]], [NO_BOXES[1]], ignore=[region])
    # Anchor 2 lies in the first region; anchor 3 has 40 % of its area in the second.
    assert targets.classes.tolist() == [[0, 0, -1, 0]]


def test_assign_without_boxes_is_all_background():
    targets = assign(ANCHORS, [NO_BOXES[0]], [NO_BOXES[1]])
    assert not targets.classes.any()


def test_detection_loss_of_one_positive_by_hand():
    box = torch.tensor([[0., 0., 10., 10.]])
    targets = assign(ANCHORS, [box], [torch.tensor([0])])
    # There are two classes and background. All scores of the positive are equal, so its loss is
    # ln 3. With a ratio of 3, all three negatives count.
    logits = torch.zeros(1, 4, 3)
    logits[0, 1] = torch.tensor([2., 0., 0.])
    offsets = torch.zeros(1, 4, 4)
    offsets[0, 0] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    l_loc, l_cls = detection_loss(HeadOutput(logits, offsets), targets, ANCHORS)
    easy = -log(exp(2) / (exp(2) + 2))
    assert float(l_cls) == pytest.approx(3 * log(3) + easy)
    # Smooth L1: 0.5 * 0.5^2 + (2 - 0.5).
    assert float(l_loc) == pytest.approx(0.125 + 1.5)


def test_hard_negatives_have_the_largest_losses():
    box = torch.tensor([[0., 0., 10., 10.]])
    targets = assign(ANCHORS, [box], [torch.tensor([0])])
    logits = torch.zeros(1, 4, 2)
    logits[0, :, 0] = torch.tensor([0., 3., -1., 1.])
    _, l_cls = detection_loss(HeadOutput(logits, torch.zeros(1, 4, 4)), targets, ANCHORS,
                              negative_ratio=1.0)
    worst = log(1 + exp(1.0))
    assert float(l_cls) == pytest.approx(log(2) + worst)


def test_matches_are_counted_over_the_whole_batch():
    box = torch.tensor([[0., 0., 10., 10.]])
    two = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
    targets = assign(ANCHORS, [box, two], [torch.tensor([0]), torch.tensor([0, 0])])
    offsets = torch.zeros(2, 4, 4)
    offsets[:, :, 0] = 2.0
    l_loc, _ = detection_loss(HeadOutput(torch.zeros(2, 4, 2), offsets), targets, ANCHORS)
    assert float(l_loc) == pytest.approx(1.5)


def test_score_weights_scale_the_positives():
    box = torch.tensor([[0., 0., 10., 10.]])
    output = HeadOutput(torch.zeros(1, 4, 2), torch.full((1, 4, 4), 2.0))
    full = assign(ANCHORS, [box], [torch.tensor([0])], [torch.tensor([1.0])])
    half = assign(ANCHORS, [box], [torch.tensor([0])], [torch.tensor([0.5])])
    l_full, c_full = detection_loss(output, full, ANCHORS)
    l_half, c_half = detection_loss(output, half, ANCHORS)
    assert float(l_half) == pytest.approx(float(l_full) / 2)
    assert float(c_full - c_half) == pytest.approx(log(2) / 2)


def test_an_image_without_boxes_teaches_only_with_min_negatives():
    targets = assign(ANCHORS, [NO_BOXES[0]], [NO_BOXES[1]])
    output = HeadOutput(torch.zeros(1, 4, 2), torch.zeros(1, 4, 4))
    assert float(detection_loss(output, targets, ANCHORS)[1]) == 0.0
    two = detection_loss(output, targets, ANCHORS, min_negatives=2)[1]
    assert float(two) == pytest.approx(2 * log(2))


def test_offsets_of_the_coder_have_no_loss():
    box = torch.tensor([[1., 2., 12., 9.]])
    targets = assign(ANCHORS, [box], [torch.tensor([0])])
    offsets = torch.zeros(1, 4, 4)
    offsets[0, 0] = box_coder().encode_single(box, ANCHORS[:1])[0]
    l_loc, _ = detection_loss(HeadOutput(torch.zeros(1, 4, 2), offsets), targets, ANCHORS)
    assert float(l_loc) == pytest.approx(0.0, abs=1e-6)


def test_forecast_loss_is_the_mean_square_over_positions_and_channels():
    forecast = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0]], [[3.0]]]])]
    target = [torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[0.0]], [[0.0]]]])]
    # (1 + 4) / 2 and 9 / 2, and the mean of both levels.
    assert float(forecast_loss(forecast, target)) == pytest.approx((2.5 + 4.5) / 2)


@pytest.mark.parametrize('detach', [True, False])
def test_forecast_loss_stops_the_gradient_of_its_target(detach):
    target = torch.ones(1, 1, 2, 2, requires_grad=True)
    forecast = torch.zeros(1, 1, 2, 2, requires_grad=True)
    forecast_loss([forecast], [target], detach).backward()
    assert forecast.grad is not None
    assert (target.grad is None) == detach


def test_scaled_forecast_loss_by_hand():
    forecast = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0]], [[3.0]]]])]
    target = [torch.zeros(1, 1, 1, 2), torch.zeros(1, 2, 1, 1)]
    # The mean squares are 2.5 and 4.5; on the second level the error of persistence is 0.
    loss = forecast_loss(forecast, target, scale=torch.tensor([5.0, 0.0]))
    assert float(loss) == pytest.approx((0.5 + 4.5 / 1e-3) / 2)


def test_decision_loss_is_binary_cross_entropy():
    p = torch.tensor([0.8, 0.3])
    logits = torch.stack((torch.log(1 - p), torch.log(p)), 1)
    loss = decision_loss(logits, torch.tensor([True, False]))
    assert float(loss) == pytest.approx((-log(0.8) - log(0.7)) / 2)


def test_decision_loss_class_weights():
    logits = torch.zeros(2, 2)
    logits[1, 1] = 1.0
    weighted = decision_loss(logits, torch.tensor([0, 1]), (3.0, 1.0))
    expected = (3 * log(2) + log(1 + exp(-1.0))) / 4
    assert float(weighted) == pytest.approx(expected)


GRID = make_anchors((64, 64), ((2, 2),), (0.3, 0.6), 'geometric', (2,))
COUNT = len(GRID)


def targets(classes, quality, boxes=None, weights=None):
    """Return the targets of one image."""
    return QualityTargets(
        torch.tensor([classes]), GRID[None].clone() if boxes is None else boxes,
        torch.tensor([quality]), torch.ones(1, COUNT) if weights is None else weights,
        torch.zeros(1, COUNT, dtype=torch.int64))


def some_head(seed=0):
    """Return random output for two classes."""
    generator = torch.Generator().manual_seed(seed)
    return HeadOutput(torch.randn(1, COUNT, 3, generator=generator),
                      0.3 * torch.randn(1, COUNT, 4, generator=generator))


def test_quality_loss_is_as_defined():
    """Positives have soft targets, negatives weighted background, ignored anchors no loss."""
    classes = [1, 2, -1] + [0] * (COUNT - 3)
    quality = [0.8, 0.3, 0.0] + [0.0] * (COUNT - 3)
    weights = torch.ones(1, COUNT)
    weights[0, 1] = 0.5
    head = some_head()
    l_loc, l_cls = quality_loss(head, targets(classes, quality, weights=weights), GRID)
    scores = head.logits[0].softmax(1)
    norm = max(1.0, 0.8 + 0.5 * 0.3)
    expected = sum(-float(scores[a, 0].log()) * float(1 - scores[a, 0]) ** FOCUS
                   for a in range(3, COUNT)) * NEGATIVE_WEIGHT
    for a, weight in ((0, 1.0), (1, 0.5)):
        q = quality[a]
        expected -= weight * (q * float(scores[a, classes[a]].log())
                              + (1 - q) * float(scores[a, 0].log()))
    assert float(l_cls) == pytest.approx(expected / norm, rel=1e-5)
    found = decode_boxes(head.offsets, GRID)[0]
    overlap = generalized_box_iou(found[:2], GRID[:2]).diagonal()
    expected = (0.8 * (1 - overlap[0]) + 0.5 * 0.3 * (1 - overlap[1])) / norm
    assert float(l_loc) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize('box', BOX_LOSSES)
def test_perfect_boxes_cost_nothing(box):
    """Only boxes that equal their targets have no loss."""
    classes, quality = [1] * COUNT, [1.0] * COUNT
    still = HeadOutput(some_head().logits, torch.zeros(1, COUNT, 4))
    assert float(quality_loss(still, targets(classes, quality), GRID, box)[0]) == \
        pytest.approx(0.0, abs=1e-4)
    assert float(quality_loss(some_head(), targets(classes, quality), GRID, box)[0]) > 0.01


def test_the_best_score_is_the_quality():
    """The loss of a positive is least if its score equals its quality."""
    classes, quality = [1] + [-1] * (COUNT - 1), [0.7] + [0.0] * (COUNT - 1)

    def loss(score):
        logits = torch.full((1, COUNT, 3), -30.0)
        logits[0, 0, 0], logits[0, 0, 1] = (1 - score).log(), score.log()
        head = HeadOutput(logits, torch.zeros(1, COUNT, 4))
        return float(quality_loss(head, targets(classes, quality), GRID)[1])
    losses = {score: loss(torch.tensor(score)) for score in (0.5, 0.6, 0.7, 0.8, 0.9)}
    assert min(losses, key=losses.__getitem__) == 0.7


def test_without_objects_the_background_is_trained():
    """A picture without boxes gives gradients to the background, and no division by zero."""
    head = some_head()
    logits = head.logits.requires_grad_()
    l_loc, l_cls = quality_loss(HeadOutput(logits, head.offsets),
                                targets([0] * COUNT, [0.0] * COUNT), GRID)
    assert float(l_loc) == 0.0
    l_cls.backward()
    assert (logits.grad[..., 0] < 0).all()


def test_prior_lets_a_fresh_head_say_background():
    """The scores of all classes together start at 1 %."""
    torch.manual_seed(0)
    head = SSDLiteHead((8,), 5, ())
    for predictor in head.classification:
        torch.nn.init.zeros_(predictor[1].weight)
    head.set_prior(0.01)
    scores = head([torch.rand(1, 8, 3, 3)]).logits.softmax(2)
    assert torch.allclose(1 - scores[..., 0], torch.tensor(0.01), rtol=1e-3)


def detections(*rows):
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Boxes(boxes, torch.tensor([row[4] for row in rows], dtype=torch.int64),
                 torch.ones(len(rows)))


def truth(*rows):
    found = detections(*rows)
    return found.boxes, found.labels


A, B = (0, 0, 10, 10), (50, 0, 60, 10)


def test_every_box_found():
    assert is_reliable(detections((*A, 1), (*B, 2)), *truth((*B, 2), (*A, 1)))


def test_additional_detections_are_allowed():
    assert is_reliable(detections((*A, 1), (*B, 2)), *truth((*A, 1)))


def test_a_missing_box():
    assert not is_reliable(detections((*A, 1)), *truth((*A, 1), (*B, 1)))


def test_the_wrong_class():
    assert not is_reliable(detections((*A, 1)), *truth((*A, 2)))


def test_one_detection_cannot_serve_two_boxes():
    assert not is_reliable(detections((*A, 1), (*B, 1)), *truth((*A, 1), (*A, 1)))


def test_iou_is_compared_with_the_limit():
    # Intersection 70, union 100.
    found = detections((0, 0, 7, 10, 0))
    assert is_reliable(found, *truth((*A, 0)), iou=0.69)
    assert not is_reliable(found, *truth((*A, 0)), iou=0.71)


def test_a_frame_without_boxes_is_reliable_without_detections():
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert is_reliable(detections(), *nothing)
    assert not is_reliable(detections((*A, 0)), *nothing)


def test_detections_in_ignored_regions_are_allowed_without_boxes():
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    # The regions contain 60 and 40 of the 100 pixels of A.
    most, least = torch.tensor([[0., 0., 6., 10.]]), torch.tensor([[0., 0., 4., 10.]])
    assert is_reliable(detections((*A, 0)), *nothing, ignore=most)
    assert not is_reliable(detections((*A, 0)), *nothing, ignore=least)
    assert not is_reliable(detections((*A, 0), (*B, 0)), *nothing, ignore=most)
    assert is_reliable(detections(), *nothing, ignore=most)


def test_a_region_hides_no_box():
    assert not is_reliable(
        detections(), *truth((*A, 0)), ignore=torch.tensor([[0., 0., 20., 20.]]))


def scored(*rows):
    found = detections(*[row[:5] for row in rows])
    return found._replace(scores=torch.tensor([row[5] for row in rows]))


def test_detections_are_consistent_if_both_sides_have_all_confident_ones():
    both = scored((*A, 1, 0.9), (*B, 2, 0.5))
    assert is_consistent(both, both, 0.4)
    # A detection is missing, added or of another class.
    assert not is_consistent(scored((*A, 1, 0.9)), both, 0.4)
    assert not is_consistent(both, scored((*A, 1, 0.9)), 0.4)
    assert not is_consistent(scored((*A, 1, 0.9), (*B, 1, 0.5)), both, 0.4)


def test_scores_just_above_and_just_below_the_limit_are_consistent():
    above, below = scored((*A, 1, 0.41)), scored((*A, 1, 0.39))
    assert is_consistent(above, below, 0.4)
    assert is_consistent(below, above, 0.4)
    # A detection counts only if its score is above the limit on at least one side.
    assert is_consistent(below, scored(), 0.4)
    assert not is_consistent(above, scored(), 0.4)


def test_a_confident_box_that_has_moved_is_not_consistent():
    moved = scored((3, 0, 13, 10, 1, 0.9))
    assert not is_consistent(scored((*A, 1, 0.9)), moved, 0.4, iou=0.7)
    assert is_consistent(scored((*A, 1, 0.9)), moved, 0.4, iou=0.5)


@given(strategies.integers(1, 4).flatmap(lambda rows: strategies.integers(rows, 5).flatmap(
    lambda columns: strategies.lists(
        strategies.lists(strategies.booleans(), min_size=columns, max_size=columns),
        min_size=rows, max_size=rows))))
def test_matching_agrees_with_trying_everything(table):
    allowed = torch.tensor(table)
    rows, columns = allowed.shape
    expected = any(all(table[row][column] for row, column in enumerate(choice))
                   for choice in permutations(range(columns), rows))
    assert _perfect_matching(allowed) == expected
