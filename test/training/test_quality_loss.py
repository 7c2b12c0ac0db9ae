# SPDX-License-Identifier: Apache-2.0
"""Losses on the quality of boxes, against plain references."""
from forecast_detector_ros.model.ssdlite import HeadOutput, make_anchors, SSDLiteHead
from forecast_detector_ros.training.assignment import decode, QualityTargets
from forecast_detector_ros.training.quality_loss import (
    BOX_LOSSES,
    FOCUS,
    NEGATIVE_WEIGHT,
    quality_loss,
)
import pytest
import torch
from torchvision.ops import generalized_box_iou

ANCHORS = make_anchors((64, 64), ((2, 2),), (0.3, 0.6), 'geometric', (2,))
COUNT = len(ANCHORS)


def targets(classes, quality, boxes=None, weights=None):
    """Give the targets of one image."""
    return QualityTargets(
        torch.tensor([classes]), ANCHORS[None].clone() if boxes is None else boxes,
        torch.tensor([quality]), torch.ones(1, COUNT) if weights is None else weights,
        torch.zeros(1, COUNT, dtype=torch.int64))


def some_head(seed=0):
    """Give random output for two classes."""
    generator = torch.Generator().manual_seed(seed)
    return HeadOutput(torch.randn(1, COUNT, 3, generator=generator),
                      0.3 * torch.randn(1, COUNT, 4, generator=generator))


def test_is_what_the_definition_says():
    """Soft targets for positives, weighted background for negatives, nothing for ignored ones."""
    classes = [1, 2, -1] + [0] * (COUNT - 3)
    quality = [0.8, 0.3, 0.0] + [0.0] * (COUNT - 3)
    weights = torch.ones(1, COUNT)
    weights[0, 1] = 0.5
    head = some_head()
    l_loc, l_cls = quality_loss(head, targets(classes, quality, weights=weights), ANCHORS)
    scores = head.logits[0].softmax(1)
    norm = max(1.0, 0.8 + 0.5 * 0.3)
    expected = sum(-float(scores[a, 0].log()) * float(1 - scores[a, 0]) ** FOCUS
                   for a in range(3, COUNT)) * NEGATIVE_WEIGHT
    for a, weight in ((0, 1.0), (1, 0.5)):
        q = quality[a]
        expected -= weight * (q * float(scores[a, classes[a]].log())
                              + (1 - q) * float(scores[a, 0].log()))
    assert float(l_cls) == pytest.approx(expected / norm, rel=1e-5)
    found = decode(head.offsets, ANCHORS)[0]
    overlap = generalized_box_iou(found[:2], ANCHORS[:2]).diagonal()
    expected = (0.8 * (1 - overlap[0]) + 0.5 * 0.3 * (1 - overlap[1])) / norm
    assert float(l_loc) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize('box', BOX_LOSSES)
def test_perfect_boxes_cost_nothing(box):
    """Boxes that are where they should be have no loss, and others have."""
    classes, quality = [1] * COUNT, [1.0] * COUNT
    still = HeadOutput(some_head().logits, torch.zeros(1, COUNT, 4))
    assert float(quality_loss(still, targets(classes, quality), ANCHORS, box)[0]) == \
        pytest.approx(0.0, abs=1e-4)
    assert float(quality_loss(some_head(), targets(classes, quality), ANCHORS, box)[0]) > 0.01


def test_the_best_score_is_the_quality():
    """The loss of a positive is least where its score is its quality."""
    classes, quality = [1] + [-1] * (COUNT - 1), [0.7] + [0.0] * (COUNT - 1)

    def loss(score):
        logits = torch.full((1, COUNT, 3), -30.0)
        logits[0, 0, 0], logits[0, 0, 1] = (1 - score).log(), score.log()
        head = HeadOutput(logits, torch.zeros(1, COUNT, 4))
        return float(quality_loss(head, targets(classes, quality), ANCHORS)[1])
    losses = {score: loss(torch.tensor(score)) for score in (0.5, 0.6, 0.7, 0.8, 0.9)}
    assert min(losses, key=losses.__getitem__) == 0.7


def test_without_objects_the_background_is_trained():
    """A picture without boxes teaches something, and nothing is divided by zero."""
    head = some_head()
    logits = head.logits.requires_grad_()
    l_loc, l_cls = quality_loss(HeadOutput(logits, head.offsets),
                                targets([0] * COUNT, [0.0] * COUNT), ANCHORS)
    assert float(l_loc) == 0.0
    l_cls.backward()
    assert (logits.grad[..., 0] < 0).all()


def test_prior_lets_a_fresh_head_say_background():
    """All classes together start at one per cent."""
    torch.manual_seed(0)
    head = SSDLiteHead((8,), 5, ())
    for predictor in head.classification:
        torch.nn.init.zeros_(predictor[1].weight)
    head.set_prior(0.01)
    scores = head([torch.rand(1, 8, 3, 3)]).logits.softmax(2)
    assert torch.allclose(1 - scores[..., 0], torch.tensor(0.01), rtol=1e-3)
