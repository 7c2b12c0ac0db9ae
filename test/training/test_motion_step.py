# SPDX-License-Identifier: Apache-2.0
"""Training of a forecast of motion: the loss of moved boxes, and the target of the scheduler."""
from dataclasses import replace

from forecast_detector_ros.model.comparison import VIEW
from forecast_detector_ros.model.config import preset
from forecast_detector_ros.model.network import ForecastDetector
from forecast_detector_ros.model.ssdlite import box_coder
from forecast_detector_ros.training.losses import LossConfig
from forecast_detector_ros.training.motion import (
    kept_recall,
    motion_loss,
    motion_losses,
    MotionBatch,
    MotionFrames,
    read_clip,
    time_ahead,
)
import pytest
import torch

T = 4
SIZE = (64, 96)


@pytest.fixture(scope='module')
def network():
    """Return a small network with a forecast of motion whose boxes stay where they are."""
    torch.manual_seed(0)
    config = replace(preset('default', 2), input_size=SIZE, width=0.35,
                     feature_channels=(8, 16, 24), neck_channels=16, extra_channels=(16, 16, 16))
    return ForecastDetector(config)


def batch_of(network, boxes, found=None, tracks=(0, 1), clips=1):
    """
    Return a batch of equal clips of T frames with the objects' true boxes.

    ``found[t][k]`` is the head's box of object k in frame t, or None if it finds none.
    """
    torch.manual_seed(1)
    boxes = torch.tensor(boxes, dtype=torch.float32)  # (T, K, 4)
    found = found or boxes.tolist()
    count = boxes.shape[1]
    anchor = torch.zeros(T, count, dtype=torch.int64)
    offsets, overlap = torch.zeros(T, count, 4), torch.zeros(T, count)
    for t, row in enumerate(found):
        for k, box in enumerate(row):
            anchor[t, k] = 7 * (k + 1)
            if box is not None:
                box = torch.tensor([box], dtype=torch.float32)
                offsets[t, k] = box_coder().encode_single(box, network.anchors[anchor[t, k]][None])
                overlap[t, k] = iou(box[0], boxes[t, k])
    cells = len(network.anchors) // network.motion.per_cell
    images = torch.rand(T, 3, *SIZE) * 255
    with torch.no_grad():
        features = network.eval().extract(network.normalise_bgr(images.to(torch.uint8).permute(
            0, 2, 3, 1)))
    owner = torch.arange(count).expand(T, -1)
    frames = MotionFrames(
        features, torch.rand(T, cells, VIEW), anchor, owner, torch.ones(T, count), anchor, overlap,
        offsets, boxes, torch.ones(T, count), torch.tensor(tracks).expand(T, -1))
    return MotionBatch(frames.changed(lambda part: torch.stack([part] * clips)),
                       torch.arange(T, dtype=torch.float32).repeat(clips, 1))


def iou(a, b):
    """Return the IoU of two boxes."""
    inner = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def still_read(network, batch):
    """Return the read of frame 1 with a motion of zero."""
    read = read_clip(network, batch)[1]
    return read._replace(state=read.state._replace(motion=torch.zeros_like(read.state.motion)))


A, B = [10., 10., 40., 40.], [50., 20., 80., 50.]
FAR = [60., 40., 90., 60.]


def test_time_ahead_counts_in_gaps_between_the_last_two_reads():
    """The result does not depend on the unit of the times, and is bounded."""
    times = torch.tensor([[0., 2., 5., 500.]])
    assert time_ahead(times, 1, 2).tolist() == [[1.5]]
    assert time_ahead(times, 1, 3).tolist() == [[16.0]]


@pytest.mark.parametrize('found, kept', [
    # Nothing moves and all objects are found, so a read gains nothing.
    ([[A, B]] * T, 1.0),
    # One of two objects has moved, and the read finds it.
    ([[A, B], [A, B], [A, FAR], [A, FAR]], 0.5),
    # The read of frame 2 misses an object that the forecast has, so the forecast loses nothing.
    ([[A, B], [A, B], [A, None], [A, B]], 1.0),
    # The forecast lacks an object that the read of frame 2 finds.
    ([[A, B], [A, None], [A, B], [A, B]], 0.5),
    # The forecast and the read each find an object that the other one misses.
    ([[A, B], [A, None], [None, B], [A, B]], 1.0)])
def test_kept_recall_by_hand(network, found, kept):
    """Boxes that the forecast loses count, less those that it gains."""
    moved = FAR if FAR in found[2] else B
    batch = batch_of(network, [[A, B], [A, B], [A, moved], [A, moved]], found)
    assert kept_recall(network, still_read(network, batch), batch, 1, 2).tolist() == [
        pytest.approx(kept)]


def test_kept_recall_leaves_out_objects_without_tracks(network):
    """An object without a track is not counted."""
    batch = batch_of(network, [[A, B], [A, B], [A, FAR], [A, FAR]], tracks=(0, -1))
    assert kept_recall(network, still_read(network, batch), batch, 1, 2).tolist() == [1.0]


def test_the_first_read_leaves_the_statistics_alone(network):
    """Only later reads change the running means, and all norms stay in training mode."""
    batch = batch_of(network, [[A, B]] * T, clips=2)
    first = MotionBatch(batch.frames.changed(lambda part: part[:, :2]), batch.times[:, :2])

    def statistics():
        return [value.clone() for name, value in network.motion.state_dict().items()
                if 'running_mean' in name]
    network.motion.train()
    before = statistics()
    read_clip(network, first)  # This clip has one read and the frame after it.
    assert all(torch.equal(*pair) for pair in zip(before, statistics(), strict=True))
    read_clip(network, batch)
    after = statistics()
    assert before and not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(part.training for part in network.motion.modules())
    network.eval()


def test_loss_of_no_motion_equals_that_of_boxes_that_stay(network):
    """Both losses are the mean of 1 - GIoU over anchors and later frames."""
    step = [[A, B], [A, B], [A, FAR], [A, B]]
    batch = batch_of(network, step)
    reads = [read._replace(state=read.state._replace(
        motion=torch.zeros_like(read.state.motion))) for read in read_clip(network, batch)]
    moved, still = motion_loss(network, reads, batch)
    torch.testing.assert_close(moved, still)
    # Pairs (1, 2), (1, 3) and (2, 3) of two objects are 6 comparisons. B moves to FAR and back,
    # so the boxes differ in 2 of the 6.
    inner, union, hull = 20. * 10, 900. + 600 - 200, 40. * 40
    giou = inner / union - (hull - union) / hull
    torch.testing.assert_close(float(still), 2 * (1 - giou) / 6)


def test_training_learns_a_motion(network):
    """A short training on uniform motion beats boxes that stay; scheduler losses are finite."""
    boxes = [[[10. + 6 * t, 10., 40. + 6 * t, 40.], [40., 10. + 4 * t, 70., 40. + 4 * t]]
             for t in range(T)]
    # Two clips, because BatchNorm cannot normalise a single value.
    batch = batch_of(network, boxes, clips=2)
    config = LossConfig(detection='quality')
    trained = list(network.motion.parameters())
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    network.motion.train()
    for _ in range(40):
        losses = motion_losses(network, batch, config, True, False)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.parts['for'] < 0.7 * losses.parts['persistence']
    assert losses.decisions == 6 and 0 <= losses.parts['dec'] < 1
