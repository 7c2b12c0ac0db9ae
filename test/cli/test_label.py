# SPDX-License-Identifier: Apache-2.0
"""The command `label`: how faults are told."""

import cv2
from forecast_detector_ros.cli import label
from forecast_detector_ros.training.teacher import TEACHER_CLASSES
import numpy as np
import pytest


def test_default_classes_are_the_teachers():
    assert set(label.CLASSES) <= set(TEACHER_CLASSES)
    assert len(set(label.CLASSES)) == len(label.CLASSES) == 17


@pytest.mark.parametrize('folder, words', [
    ('missing', 'missing: no such folder'),
    ('empty', 'empty: no pictures'),
    ('walk', 'teacher.onnx: no such file'),
])
def test_bad_input_is_one_line(capsys, tmp_path, folder, words):
    pytest.importorskip('onnxruntime')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'walk').mkdir()
    cv2.imwrite(str(tmp_path / 'walk/1.png'), np.zeros((8, 8, 3), np.uint8))
    output = tmp_path / 'labels.json'
    code = label.main([str(tmp_path / folder), '--teacher', str(tmp_path / 'teacher.onnx'),
                       '--output', str(output)])
    err = capsys.readouterr().err
    assert code == 1 and err.startswith('label: ') and err.count('\n') == 1 and words in err
    assert not output.exists()


@pytest.mark.parametrize('arguments, words', [
    ([], 'required: root, --teacher, --output'),
    (['x', '--teacher', 'y', '--output', 'z', '--min-score', '2'], 'must be in [0, 1]'),
])
def test_bad_arguments_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        label.main(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err
