# SPDX-License-Identifier: Apache-2.0
"""Equations 1 to 3 against cases computed by hand."""

from math import exp, log

from forecast_detector_ros.model.ssdlite import box_coder, HeadOutput
from forecast_detector_ros.training.losses import (
    assign,
    decision_loss,
    detection_loss,
    forecast_loss,
)
import pytest
import torch

ANCHORS = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.], [0., 20., 10., 30.],
                        [50., 50., 60., 60.]])
NO_BOXES = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def test_assign_takes_overlapping_anchors_and_the_best_one_in_any_case():
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
    # Two classes and background.  The positive has even odds, so ln 3.  Of three negatives with
    # different losses the three worst, that is all, count: ratio 3.
    logits = torch.zeros(1, 4, 3)
    logits[0, 1] = torch.tensor([2., 0., 0.])
    offsets = torch.zeros(1, 4, 4)
    offsets[0, 0] = torch.tensor([0.5, 2.0, 0.0, 0.0])
    l_loc, l_cls = detection_loss(HeadOutput(logits, offsets), targets, ANCHORS)
    easy = -log(exp(2) / (exp(2) + 2))
    assert float(l_cls) == pytest.approx(3 * log(3) + easy)
    # Smooth L1: 0.5 * 0.5^2 + (2 - 0.5).
    assert float(l_loc) == pytest.approx(0.125 + 1.5)


def test_hard_negatives_are_the_worst_ones():
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


def test_offsets_that_the_coder_gives_have_no_loss():
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
    # Mean squares of 2.5 and 4.5; the second level's rival has no error to speak of.
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
