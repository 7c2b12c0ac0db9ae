# SPDX-License-Identifier: Apache-2.0
"""Faults of a node are found, and a node without faults passes."""
from dataclasses import replace

from dev.trials.judgement import Answers, Bounds, growth, judge, Sample, Seen, slope, tracebacks
import pytest

BOUNDS = Bounds(callback_s=2.0, growth=0.01, warm_up_s=10.0)

LOG = """[INFO] [1.0] [camera]: active: /image_raw -> /detections
[WARN] [2.0] [camera]: image refused: File "x", line 3 is no picture
"""

TRACEBACK = """Traceback (most recent call last):
  File "/somewhere/node.py", line 12, in _on_image
    fail()
ValueError: of the callback
"""


def answered(seconds: float = 0.1) -> Answers:
    answers = Answers()
    for number in range(3):
        answers.expect(f'picture {number}', 10.0 * number)
        for topic in ('detections', 'decision'):
            answers.hear(f'picture {number}', topic, 10.0 * number + seconds)
    return answers


def memory(*sizes: float) -> list[Sample]:
    return [Sample(float(second), size) for second, size in enumerate(sizes)]


def seen(**changes: object) -> Seen:
    return replace(Seen(answered(), 0, (), 0.1, memory(*[100e6] * 60), LOG), **changes)


def test_node_without_faults_passes() -> None:
    assert judge(seen(), BOUNDS) == []


def test_lost_answer_is_found() -> None:
    answers = answered()
    answers.expect('forgotten', 40.0)
    answers.hear('forgotten', 'decision', 40.1)  # Only one of two topics answered.
    answers.give_up()
    assert judge(seen(answers=answers), BOUNDS) == [
        '1 answers lost, the first of forgotten']


def test_answer_that_comes_twice_is_found() -> None:
    for picture in ('picture 1', 'new'):  # A complete and an incomplete set of answers
        answers = answered()
        answers.expect('new', 50.0)
        answers.hear('new', 'decision', 50.1)
        answers.hear(picture, 'decision', 50.2)
        answers.forgive('new')
        assert judge(seen(answers=answers), BOUNDS) == ['1 answers came twice']


def test_picture_that_was_not_received_needs_no_answer() -> None:
    answers = answered()
    answers.expect('before it listened', 40.0)
    answers.forgive('before it listened')
    answers.give_up()
    assert judge(seen(answers=answers), BOUNDS) == []


@pytest.mark.parametrize('changes', [{'answers': answered(2.5)}, {'slowest_request_s': 2.5}])
def test_slow_callback_is_found(changes: dict[str, object]) -> None:
    assert judge(seen(**changes), BOUNDS) == ['an answer took 2.50 s, more than 2 s']


def test_traceback_is_found() -> None:
    assert tracebacks(LOG) == 0
    assert judge(seen(log=LOG + TRACEBACK), BOUNDS) == ['2 lines of tracebacks in its log']
    # The node logs errors that it survives in this form.
    assert tracebacks(f'an image failed: ValueError: x\n{TRACEBACK.splitlines()[1]}\n') == 1


def test_growth_is_found_only_after_the_warm_up() -> None:
    warming = [80e6 + 2e6 * second for second in range(10)] + [100e6] * 50
    assert judge(seen(memory=memory(*warming)), BOUNDS) == []
    creeping = [100e6 + 0.05e6 * second for second in range(60)]
    (reason,) = judge(seen(memory=memory(*creeping)), BOUNDS)
    assert 'memory grew by 2.2' in reason
    # A single high value is no growth.
    assert growth(memory(*[100e6] * 30, 150e6, *[100e6] * 30), 10.0) == 0.0
    assert slope(memory(*creeping), 10.0) == pytest.approx(180e6)
    assert growth([], 10.0) == slope(memory(1.0), 0.0) == 0.0


def test_wrong_answers_missing_answers_and_the_end_are_found() -> None:
    found = judge(seen(wrong=2, silent=['reset'], end='the process has ended'), BOUNDS)
    assert found == ['the process has ended', '2 answers differ from those of a clean run',
                     '1 requests without answer, the first: reset']
