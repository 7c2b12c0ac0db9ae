# SPDX-License-Identifier: Apache-2.0
"""Check that images are joined with their answers in order, and that waiting is bounded."""
from forecast_detector_ros.node.camera_recording import FrameJoin
from hypothesis import given
from hypothesis import strategies as st


def released(frames) -> list[tuple]:
    """Return stamp, detections and decision of each frame."""
    return [(frame.stamp, frame.detections, frame.decision) for frame in frames]


def answer(join: FrameJoin, stamp: int) -> None:
    """Add detections and decision for the image with this stamp."""
    join.add_detections(stamp, f'd{stamp}')
    join.add_decision(stamp, f'k{stamp}')


def test_frame_waits_for_both_answers() -> None:
    join: FrameJoin = FrameJoin()
    join.add_image(1, 'image')
    assert released(join.settled()) == []
    join.add_detections(1, 'd1')
    assert released(join.settled()) == []
    join.add_decision(1, 'k1')
    assert released(join.settled()) == [(1, 'd1', 'k1')]
    assert len(join) == 0


def test_answers_may_come_before_their_image() -> None:
    join: FrameJoin = FrameJoin()
    answer(join, 1)
    join.add_image(1, 'image')
    assert released(join.settled()) == [(1, 'd1', 'k1')]


def test_answer_to_a_later_frame_shows_that_one_was_dropped() -> None:
    join: FrameJoin = FrameJoin()
    for stamp in (1, 2, 3):
        join.add_image(stamp, 'image')
    answer(join, 2)
    assert released(join.settled()) == [(1, None, None), (2, 'd2', 'k2')]
    assert released(join.flush()) == [(3, None, None)]


def test_lost_decision_does_not_hold_up_the_rest() -> None:
    join: FrameJoin = FrameJoin()
    join.add_image(1, 'image')
    join.add_detections(1, 'd1')
    join.add_image(2, 'image')
    answer(join, 2)
    assert released(join.settled()) == [(1, 'd1', None), (2, 'd2', 'k2')]


def test_too_many_waiting_frames_are_given_up() -> None:
    join: FrameJoin = FrameJoin(frame_limit=3)
    for stamp in range(1, 6):
        join.add_image(stamp, 'image')
    assert released(join.settled()) == [(1, None, None), (2, None, None)]
    assert (len(join), join.given_up) == (3, 2)


def test_waiting_bytes_are_limited() -> None:
    join: FrameJoin = FrameJoin(byte_limit=100)
    for stamp in range(1, 6):
        join.add_image(stamp, 'image', size=40)
    assert len(join) == 2
    join.add_image(6, 'image', size=1000)
    assert len(join) == 1
    assert join.given_up == 5


def test_answers_without_images_are_counted_and_do_not_pile_up() -> None:
    join: FrameJoin = FrameJoin(frame_limit=5)
    for stamp in range(1, 21):
        answer(join, stamp)
    assert join.without_image == 15
    join.add_image(20, 'image')
    assert released(join.settled()) == [(20, 'd20', 'k20')]
    assert join.without_image == 19


def test_stamp_that_steps_back_releases_earlier_frames() -> None:
    join: FrameJoin = FrameJoin()
    join.add_image(100, 'image')
    answer(join, 100)
    join.add_image(5, 'image')
    assert released(join.settled()) == [(100, 'd100', 'k100')]
    join.add_detections(5, 'd5')
    join.add_decision(5, 'k5')
    assert released(join.settled()) == [(5, 'd5', 'k5')]


def test_answer_that_comes_before_the_image_of_a_step_back_is_kept() -> None:
    join: FrameJoin = FrameJoin()
    join.add_image(100, 'image')
    answer(join, 5)
    join.add_image(5, 'image')
    assert released(join.settled()) == [(100, None, None), (5, 'd5', 'k5')]
    assert join.without_image == 0


def test_late_answer_after_a_step_back_does_not_settle_later_frames() -> None:
    join: FrameJoin = FrameJoin()
    join.add_image(100, 'image')
    join.add_image(5, 'image')
    answer(join, 100)
    assert released(join.settled()) == [(100, None, None)]
    for stamp in (6, 7):
        join.add_image(stamp, 'image')
        answer(join, stamp - 1)
        assert released(join.settled()) == [(stamp - 1, f'd{stamp - 1}', f'k{stamp - 1}')]


@given(st.lists(st.tuples(st.sampled_from('idk'), st.integers(0, 12)), max_size=80))
def test_every_image_is_released_exactly_once(events: list[tuple[str, int]]) -> None:
    join: FrameJoin = FrameJoin(frame_limit=6)
    arrived, out = [], []
    for kind, stamp in events:
        if kind == 'i':
            arrived.append(stamp)
            join.add_image(stamp, len(arrived))
        elif kind == 'd':
            join.add_detections(stamp, stamp)
        else:
            join.add_decision(stamp, stamp)
        out += join.settled()
    out += join.flush()
    assert [frame.image for frame in out] == list(range(1, len(arrived) + 1))
    assert all(frame.detections in (None, frame.stamp) for frame in out)
    assert all(frame.decision in (None, frame.stamp) for frame in out)
