# SPDX-License-Identifier: Apache-2.0
"""Check that answers are assigned to the right camera."""
from __future__ import annotations

from forecast_detector_ros.node.recording import Answers
from hypothesis import given
from hypothesis import strategies as st
import pytest


class Heard:
    """`Answers` with a list of its outputs."""

    def __init__(self) -> None:
        self.got: list[tuple] = []
        self.answers = Answers(lambda *answer: self.got.append(answer))

    def say(self, camera: str, stamp: int, frame_id: str = 'camera', lost: str = '') -> None:
        """Add the detections and the decision on an image, except the one that is lost."""
        if lost != 'detections':
            self.answers.add_detections((stamp, frame_id), f'd{camera}{stamp}')
        if lost != 'decision':
            self.answers.add_decision((stamp, frame_id), camera, f'k{camera}{stamp}')


def right(camera: str, stamp: int) -> tuple:
    return camera, stamp, f'd{camera}{stamp}', f'k{camera}{stamp}'


def test_answers_of_one_camera_come_at_once() -> None:
    heard = Heard()
    for stamp in range(3):
        heard.say('left', stamp)
        assert heard.got[-1] == right('left', stamp)
    assert len(heard.got) == 3


@pytest.mark.parametrize('frame_ids', [('camera', 'camera'), ('left', 'right')])
def test_cameras_in_step_get_their_own_answers(frame_ids: tuple[str, str]) -> None:
    heard = Heard()
    for stamp in range(20):
        for camera, frame_id in zip('AB', frame_ids):
            heard.say(camera, stamp, frame_id)
    heard.answers.flush()
    assert sorted(heard.got) == sorted(right(camera, stamp) for camera in 'AB'
                                       for stamp in range(20))
    assert heard.answers.ambiguous == 0


def test_cameras_out_of_step_get_their_own_answers() -> None:
    heard = Heard()
    for stamp in range(0, 200, 10):
        heard.say('A', stamp)
        heard.say('B', stamp - 7)
    # Only a few answers wait before the flush.
    assert len(heard.got) >= 36
    heard.answers.flush()
    assert sorted(heard.got) == sorted(right(camera, stamp + shift) for camera, shift in
                                       (('A', 0), ('B', -7)) for stamp in range(0, 200, 10))


def test_lost_decision_of_the_only_camera_leaves_its_detections() -> None:
    heard = Heard()
    heard.say('A', 0)
    heard.say('A', 1, lost='decision')
    heard.say('A', 2, lost='detections')
    heard.say('A', 3)
    assert heard.got == [right('A', 0), ('A', 1, 'dA1', None), ('A', 2, None, 'kA2'),
                         right('A', 3)]


def test_frame_ids_of_detections_without_a_decision_are_not_remembered() -> None:
    heard = Heard()
    for stamp in range(10):
        heard.say('A', stamp, f'frame {stamp}', lost='decision')
    assert not heard.answers._cameras


@given(st.lists(st.tuples(st.sampled_from(['', '', '', 'decision', 'detections']),
                          st.sampled_from(['', '', '', 'decision', 'detections'])), max_size=40))
def test_no_camera_gets_an_answer_of_another_camera(losses: list[tuple[str, str]]) -> None:
    heard = Heard()
    heard.say('A', -1)
    heard.say('B', -1)
    for stamp, lost in enumerate(losses):
        # If each camera loses a different part, the loss cannot be noticed.
        if sorted(lost) != ['decision', 'detections']:
            heard.say('A', stamp, lost=lost[0])
            heard.say('B', stamp, lost=lost[1])
    heard.answers.flush()
    for camera, stamp, detections, decision in heard.got:
        assert detections in (None, f'd{camera}{stamp}')
        assert decision in (None, f'k{camera}{stamp}')
