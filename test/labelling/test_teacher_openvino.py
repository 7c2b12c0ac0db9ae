# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO's format: inputs and outputs, other sizes, removed quantisers."""

import sys

from forecast_detector_ros.labelling.teacher import OpenVinoModel, TeacherError
import numpy as np
import pytest

openvino = pytest.importorskip('openvino')
opset = pytest.importorskip('openvino.opset13')


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a network from its input and a function that builds it."""
    def function(shape, build, kind=np.float32):
        parameter = opset.parameter(shape, kind, name='images')
        result = build(parameter)
        path = tmp_path / 'network.xml'
        openvino.save_model(openvino.Model([result], [parameter]), path, compress_to_fp16=False)
        return path
    return function


def shuffle(node):
    """Shuffle 4 channels of 8 x 8 in 2 groups with the operations that exporters write."""
    split = opset.reshape(node, np.array([1, 2, 2, 8, 8]), False)
    turned = opset.transpose(split, np.array([0, 2, 1, 3, 4]))
    return opset.reshape(turned, np.array([1, 4, 8, 8]), False)


def test_inputs_and_outputs_are_described(save):
    model = OpenVinoModel(save([1, 8, 8, 3], lambda node: opset.convert(node, 'f32'), np.uint8))
    assert (model.input_shape, model.input_type) == ([1, 8, 8, 3], 'tensor(uint8)')
    assert [(shape, kind) for _, shape, kind in model.outputs] == [([1, 8, 8, 3],
                                                                    'tensor(float)')]
    picture = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
    np.testing.assert_array_equal(model.run(picture)[0], picture)
    assert OpenVinoModel(save([1, 3, 64, 32], opset.relu)).fixed_size(32) == (64, 32)
    assert OpenVinoModel(save([1, 3, -1, 32], opset.relu)).fixed_size(32) is None


def test_channels_are_shuffled_at_any_size(save):
    path = save([1, 4, 8, 8], lambda node: opset.relu(shuffle(node)))
    picture = np.random.default_rng(0).random((1, 4, 16, 24), np.float32)
    np.testing.assert_array_equal(
        OpenVinoModel(path).run(picture[:, :, :8, :8])[0], picture[:, [0, 2, 1, 3], :8, :8])
    model = OpenVinoModel(path, input_size=(16, 24))
    assert model.input_shape == [1, 4, 16, 24]
    np.testing.assert_array_equal(model.run(picture)[0], picture[:, [0, 2, 1, 3]])


def test_size_of_pictures_with_their_channels_last(save):
    path = save([1, 8, 8, 3], lambda node: opset.convert(node, 'f32'), np.uint8)
    assert OpenVinoModel(path, input_size=(16, 32)).input_shape == [1, 16, 32, 3]


def test_quantisers_are_removed(save):
    def build(node):
        low, high = np.float32(0), np.float32(3)
        return opset.relu(opset.fake_quantize(node, low, high, low, high, 4))

    path = save([1, 3, 2, 2], build)
    picture = np.linspace(0, 3, 12, dtype=np.float32).reshape(1, 3, 2, 2)
    assert set(OpenVinoModel(path).run(picture)[0].ravel()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(OpenVinoModel(path, float_activations=True).run(picture)[0],
                                  picture)


def test_mistakes_are_one_line(save, tmp_path, monkeypatch):
    with pytest.raises(TeacherError, match=r'no\.xml: no such file'):
        OpenVinoModel(tmp_path / 'no.xml')
    (tmp_path / 'bad.xml').write_text('no network')
    path = save([1, 3, 8, 8], lambda node: opset.reshape(node, np.array([1, 192]), False))
    with pytest.raises(TeacherError, match='fails on an input of shape') as refused:
        OpenVinoModel(path).run(np.zeros((1, 3, 8, 9), np.float32))
    with pytest.raises(TeacherError, match='cannot load it at 16x16') as resized:
        OpenVinoModel(path, input_size=(16, 16))
    with pytest.raises(TeacherError, match=r'bad\.xml: OpenVINO cannot load it: ') as broken:
        OpenVinoModel(tmp_path / 'bad.xml')
    assert not any('\n' in str(caught.value) for caught in (refused, resized, broken))
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(TeacherError, match='pip install openvino'):
        OpenVinoModel(path)
