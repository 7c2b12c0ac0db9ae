# SPDX-License-Identifier: Apache-2.0
"""What a forecast of motion is trained on: how boxes are moved, and when a read wins something."""
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
    """Give a small network with a forecast of motion whose boxes stay where they are."""
    torch.manual_seed(0)
    config = replace(preset('default', 2), input_size=SIZE, width=0.35,
                     feature_channels=(8, 16, 24), neck_channels=16, extra_channels=(16, 16, 16))
    return ForecastDetector(config)


def batch_of(network, boxes, found=None, tracks=(0, 1), clips=1):
    """
    Give a clip of T frames with the objects' true boxes, so many times.

    ``found[t][k]`` is what the head says of object k in frame t; None where it finds nothing.
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
    """Give the IoU of two boxes."""
    inner = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def still_read(network, batch):
    """Give the read of frame 1 with a motion of zero."""
    read = read_clip(network, batch)[1]
    return read._replace(state=read.state._replace(motion=torch.zeros_like(read.state.motion)))


A, B = [10., 10., 40., 40.], [50., 20., 80., 50.]
FAR = [60., 40., 90., 60.]


def test_time_ahead_counts_in_gaps_between_the_last_two_reads():
    """The unit of the stamps drops out, and the ratio is bounded."""
    times = torch.tensor([[0., 2., 5., 500.]])
    assert time_ahead(times, 1, 2).tolist() == [[1.5]]
    assert time_ahead(times, 1, 3).tolist() == [[16.0]]


@pytest.mark.parametrize('found, kept', [
    # Nothing moves and all is found: a read wins nothing.
    ([[A, B]] * T, 1.0),
    # One of two has gone elsewhere, where the read finds it.
    ([[A, B], [A, B], [A, FAR], [A, FAR]], 0.5),
    # The read of frame 2 misses one that the forecast still has: nothing is lost.
    ([[A, B], [A, B], [A, None], [A, B]], 1.0),
    # The forecast never had one that the read of frame 2 finds.
    ([[A, B], [A, None], [A, B], [A, B]], 0.5),
    # Each has what the other lacks: a detection came and another went.
    ([[A, B], [A, None], [None, B], [A, B]], 1.0)])
def test_kept_recall_is_what_a_read_would_win(network, found, kept):
    """Losses count, and gains make up for them."""
    moved = FAR if FAR in found[2] else B
    batch = batch_of(network, [[A, B], [A, B], [A, moved], [A, moved]], found)
    assert kept_recall(network, still_read(network, batch), batch, 1, 2).tolist() == [
        pytest.approx(kept)]


def test_kept_recall_leaves_out_what_is_not_followed(network):
    """An object without a track cannot be carried forward, nor be missed."""
    batch = batch_of(network, [[A, B], [A, B], [A, FAR], [A, FAR]], tracks=(0, -1))
    assert kept_recall(network, still_read(network, batch), batch, 1, 2).tolist() == [1.0]


def test_the_first_read_leaves_the_statistics_alone(network):
    """Running means come from reads with another one before them; all norms stay in training."""
    batch = batch_of(network, [[A, B]] * T, clips=2)
    first = MotionBatch(batch.frames.changed(lambda part: part[:, :2]), batch.times[:, :2])

    def statistics():
        return [value.clone() for name, value in network.motion.state_dict().items()
                if 'running_mean' in name]
    network.motion.train()
    before = statistics()
    read_clip(network, first)  # One read, and the frame to come.
    assert all(torch.equal(*pair) for pair in zip(before, statistics(), strict=True))
    read_clip(network, batch)
    after = statistics()
    assert before and not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(part.training for part in network.motion.modules())
    network.eval()


def test_motion_loss_of_no_motion_is_that_of_boxes_that_stay(network):
    """Both are the mean of 1 - GIoU over anchors and later frames."""
    step = [[A, B], [A, B], [A, FAR], [A, B]]
    batch = batch_of(network, step)
    reads = [read._replace(state=read.state._replace(
        motion=torch.zeros_like(read.state.motion))) for read in read_clip(network, batch)]
    moved, still = motion_loss(network, reads, batch)
    torch.testing.assert_close(moved, still)
    # B to FAR and back, in 2 of 6 comparisons; (1, 2), (1, 3) and (2, 3) of two objects.
    inner, union, hull = 20. * 10, 900. + 600 - 200, 40. * 40
    giou = inner / union - (hull - union) / hull
    torch.testing.assert_close(float(still), 2 * (1 - giou) / 6)


def test_training_learns_a_motion(network):
    """Some steps on boxes that move evenly beat boxes that stay; scheduler losses are finite."""
    boxes = [[[10. + 6 * t, 10., 40. + 6 * t, 40.], [40., 10. + 4 * t, 70., 40. + 4 * t]]
             for t in range(T)]
    # Two, since BatchNorm cannot normalise a single value.
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
