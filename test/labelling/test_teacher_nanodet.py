# SPDX-License-Identifier: Apache-2.0
"""NanoDet-Plus: its arithmetic by hand, and a tiny network from picture to boxes."""

from forecast_detector_ros.labelling.teacher import (
    COCO_CLASSES,
    OnnxModel,
    TEACHER_CLASSES,
    TeacherError,
    TeacherModel,
)
from forecast_detector_ros.labelling.teacher_yolo import (
    BINS,
    expected_sides,
    grid_cells,
    MEAN,
    NANODET_STRIDES,
    NanodetTeacher,
    STD,
)
import numpy as np
import pytest

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2


def raw(*rows):
    """Make raw output of `SIZE`: (cell, label, score, bins of left, top, right, bottom)."""
    output = np.zeros((CELLS, 80 + 4 * BINS), np.float32)
    for cell, label, score, *sides in rows:
        output[cell, label] = score
        for number, side in enumerate(sides):
            output[cell, 80 + BINS * number + side] = 50
    return output


class Recorder(TeacherModel):
    """A network that keeps its input and finds nothing."""

    def __init__(self, shape, kind):
        super().__init__('recorder', [('images', shape, kind)],
                         [('output', [1, CELLS, 112], 'tensor(float)')])

    def _infer(self, tensor):
        self.tensor = tensor
        return [np.zeros((1, CELLS, 112), np.float32)]


@pytest.mark.parametrize('cell, x, y, stride', [
    (0, 0, 0, 8), (12 + 3, 24, 8, 8), (96 + 6 + 2, 32, 16, 16), (96 + 24 + 4, 32, 32, 32),
    (CELLS - 1, 64, 0, 64)])
def test_positions_are_corners_of_cells(cell, x, y, stride):
    cells, strides = grid_cells(SIZE, NANODET_STRIDES)
    assert len(cells) == len(strides) == CELLS
    assert (cells[cell] * strides[cell]).tolist() == [x, y] and strides[cell] == stride


def test_last_cell_may_extend_beyond_the_input():
    cells, _ = grid_cells((32, 32), NANODET_STRIDES)
    # There are 4 x 4, 2 x 2 and 1 cells, and a cell of stride 64 that is larger than the input.
    assert len(cells) == 16 + 4 + 1 + 1


def test_a_side_is_the_mean_of_its_distribution():
    logits = np.full((1, 4, BINS), -np.inf, np.float32)
    logits[0, 0, 3] = logits[0, 1, 2] = logits[0, 1, 4] = logits[0, 2, 0] = 0.0
    logits[0, 3, 1], logits[0, 3, 5] = np.log(3), 0.0
    np.testing.assert_allclose(expected_sides(logits.reshape(1, -1)), [[3, 3, 0, 2]], rtol=1e-6)


def test_picture_to_boxes(write_onnx):
    dog, cow = COCO_CLASSES.index('dog'), COCO_CLASSES.index('cow')
    path = write_onnx({'output': raw(
        (15, dog, 0.9, 1, 1, 2, 2), (16, dog, 0.8, 2, 1, 1, 2), (100, cow, 0.5, 0, 1, 1, 1),
        (40, dog, 0.19, 1, 1, 1, 1))[None]}, [1, 3, *SIZE])
    # The square picture is scaled by 2 to 64 x 64, with 16 pixels of padding on both sides.
    found = NanodetTeacher(OnnxModel(path)).detect(np.zeros((32, 32, 3), np.uint8))
    assert [TEACHER_CLASSES[label] for label in found.labels] == ['dog', 'cattle']
    assert found.scores == pytest.approx([0.9, 0.5])
    # Cell 15 is at (24, 8). Its box is from (16, 0) to (40, 24), or from (0, 0) to (24, 24)
    # without the padding.
    assert found.boxes[0] == pytest.approx([0, 0, 12, 12])
    assert NanodetTeacher(OnnxModel(path), min_score=0.6).detect(
        np.zeros((32, 32, 3), np.uint8)).scores == pytest.approx([0.9])


@pytest.mark.parametrize('colour, first', [('bgr', 0), ('rgb', 2)])
def test_bytes_are_not_normalised(colour, first):
    model = Recorder([1, *SIZE, 3], 'tensor(uint8)')
    NanodetTeacher(model, colour=colour).detect(np.full((*SIZE, 3), (10, 20, 30), np.uint8))
    assert model.tensor.dtype == np.uint8 and model.tensor.shape == (1, *SIZE, 3)
    assert model.tensor[0, 5, 5, first] == 10 and model.tensor[0, 5, 5, 1] == 20


@pytest.mark.parametrize('colour, first', [('bgr', 0), ('rgb', 2)])
def test_floats_are_normalised(colour, first):
    model = Recorder([1, 3, *SIZE], 'tensor(float)')
    NanodetTeacher(model, colour=colour).detect(np.full((*SIZE, 3), (10, 20, 30), np.uint8))
    assert model.tensor.dtype == np.float32 and model.tensor.shape == (1, 3, *SIZE)
    assert model.tensor[0, first, 5, 5] == pytest.approx((10 - MEAN[0]) / STD[0])


def test_network_of_another_kind_is_refused(write_onnx):
    with pytest.raises(TeacherError, match=r'a NanoDet-Plus of this input .* \[1, 128, 112\]'):
        NanodetTeacher(OnnxModel(write_onnx({'output': raw()[None, 1:]}, [1, 3, *SIZE])))
    for shape, kind in (([1, 60, 96, 3], 'tensor(uint8)'), ([1, 3, 60, 96], 'tensor(float)'),
                        ([1, None, None, 3], 'tensor(uint8)'), ([], '')):
        with pytest.raises(TeacherError, match='sides multiples of 32'):
            NanodetTeacher(Recorder(shape, kind))
