# SPDX-License-Identifier: Apache-2.0
"""The kind of a teacher is found out from its outputs, or told."""

from forecast_detector_ros.labelling.teacher import TeacherError
from forecast_detector_ros.labelling.teacher_kinds import KINDS, open_teacher
import numpy as np
import pytest

SHAPE = [1, 3, 64, 96]
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def networks():
    """Give the outputs of a network of each kind."""
    raw = np.zeros((1, CELLS, 85), np.float32)
    raw[..., :2] = 0.5
    decoded = np.zeros((1, CELLS, 85), np.float32)
    decoded[..., 0], decoded[..., 1] = np.linspace(0, 96, CELLS), np.linspace(0, 64, CELLS)
    return {'yolox': {'output': raw}, 'yolox-decoded': {'output': decoded},
            'yolo11': {'output0': np.zeros((1, 84, CELLS), np.float32)},
            'nanodet': {'output': np.zeros((1, CELLS + 2, 112), np.float32)},
            'torchvision': {'boxes': np.zeros((1, 4), np.float32),
                            'scores': np.zeros(1, np.float32), 'labels': np.ones(1, np.int64)}}


@pytest.mark.parametrize('kind', list(KINDS))
@pytest.mark.parametrize('told', [True, False])
def test_each_kind_is_opened_as_what_it_is(write_onnx, kind, told):
    path = write_onnx(networks()[kind], SHAPE)
    teacher = open_teacher(path, kind if told else 'auto', min_score=0.3)
    assert teacher.kind == kind
    assert len(teacher.detect(np.zeros((30, 40, 3), np.uint8)).scores) == 0


def test_file_that_is_of_no_kind_is_one_clear_line(write_onnx):
    path = write_onnx({'logits': np.zeros((1, 1000), np.float32)}, [1, 3, 224, 224])
    with pytest.raises(TeacherError) as caught:
        open_teacher(path)
    text = str(caught.value)
    assert '\n' not in text
    for words in ('teacher.onnx', '[1, 3, 224, 224]', '[1, 1000]', 'yolox', 'torchvision'):
        assert words in text


def test_file_that_is_not_of_the_kind_it_is_said_to_be(write_onnx):
    path = write_onnx(networks()['yolo11'], SHAPE)
    with pytest.raises(TeacherError, match=r'a YOLOX of this input size .* \[1, 126, 85\]'):
        open_teacher(path, 'yolox')
