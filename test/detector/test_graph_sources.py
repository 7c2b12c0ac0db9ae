# SPDX-License-Identifier: Apache-2.0
"""Check which graphs are used: beside the checkpoint, packaged, cached, or made again."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
import hashlib
from pathlib import Path
import shutil

from forecast_detector_ros import files
from forecast_detector_ros.detector import host
from forecast_detector_ros.detector.backends import registry, step_graph
from forecast_detector_ros.detector.backends.exported import (
    ExportError,
    FLOAT,
    graph_path,
    INT8,
    write_graphs,
)
from forecast_detector_ros.detector.backends.graph_backend import READ_STEP
from forecast_detector_ros.detector.backends.registry import CACHE, graphs_for, has_int8
from forecast_detector_ros.detector.backends.step_graph import make_graphs
from forecast_detector_ros.detector.checkpoint import (
    card_path,
    default_checkpoint,
    read_checkpoint,
    SHIPPED,
    shipped_checkpoint,
)
from forecast_detector_ros.detector.detector import Detector
from forecast_detector_ros.model.network import ForecastDetector
import pytest

onnx = pytest.importorskip('onnx')


@pytest.fixture(scope='module')
def model(checkpoint):
    """Return the graphs of the small network."""
    return make_graphs(read_checkpoint(checkpoint).network())


@pytest.fixture
def made(monkeypatch, model):
    """Return a list of the calls that make graphs; the calls return `model`."""
    calls = []

    def count(network):
        calls.append(network)
        return model

    monkeypatch.setattr(step_graph, 'make_graphs', count)
    return calls


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / files.PACKAGE / CACHE


@pytest.fixture
def source(checkpoint, tmp_path):
    """Return a copy of the checkpoint after reading."""
    for path in (checkpoint, card_path(checkpoint)):
        shutil.copy(path, tmp_path)
    return read_checkpoint(tmp_path / checkpoint.name)


def test_made_once_and_kept(source, made, model, cache):
    assert graphs_for(source) is model
    again = graphs_for(source)
    assert len(made) == 1 and again.graphs == model.graphs
    names = sorted(path.name.split('.', 1)[1] for path in cache.iterdir())
    assert names == ['anchors.npy', 'export.json', 'forecast_step.onnx', 'read_step.onnx']


def test_graphs_of_the_same_weights_in_another_network_are_made_again(source, made, cache):
    graphs_for(source)
    network = replace(source.card.network, anchor_scales=(0.2, 0.8))
    graphs_for(replace(source, card=replace(source.card, network=network)))
    assert len(made) == 2


def test_graphs_of_a_damaged_cache_are_made_again(source, made, model, cache, caplog):
    graphs_for(source)
    (graph,) = cache.glob('*.read_step.onnx')
    graph.write_bytes(b'broken')
    assert graphs_for(source) is model and len(made) == 2
    assert 'read_step.onnx: differs' in caplog.text and 'made anew' in caplog.text
    caplog.clear()
    assert graphs_for(source).graphs == model.graphs
    assert len(made) == 2 and caplog.text == ''


def test_cache_that_cannot_be_written_is_reported_in_one_line(source, made, model, tmp_path,
                                                              monkeypatch, caplog):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    for _ in range(2):
        assert graphs_for(source) is model
    assert len(made) == 2
    (record,) = caplog.records
    assert 'nothing is cached' in record.message and '\n' not in record.message


def test_changed_code_makes_graphs_again(source, made, cache, monkeypatch, tmp_path):
    graphs_for(source)
    folder = tmp_path / 'package' / 'detector' / 'backends'
    shutil.copytree(registry.Path(registry.__file__).parent, folder)
    (folder.parents[1] / 'model').mkdir()
    monkeypatch.setattr(registry, '__file__', str(folder / 'registry.py'))
    graphs_for(source)
    assert len(made) == 2


def test_graphs_beside_the_checkpoint_have_priority(source, made, model, cache, caplog):
    write_graphs(source.path, source, model, FLOAT, {})
    assert graphs_for(source).graphs == model.graphs
    assert not made and not cache.exists()
    graph_path(source.path, READ_STEP).write_bytes(b'broken')
    assert graphs_for(source) is model
    assert 'read_step.onnx: differs' in caplog.text


def test_default_checkpoint_needs_no_new_graphs(made, cache):
    source = read_checkpoint(default_checkpoint())
    assert graphs_for(source).classes == len(source.card.classes)
    assert not made and not cache.exists()


def test_missing_pytorch_is_one_line(source, cache, monkeypatch):
    monkeypatch.setattr(registry, 'find_spec', lambda name: None)
    with pytest.raises(ExportError, match='needs torch, which is not installed: run export'):
        graphs_for(source)


def test_oldest_files_are_removed_first(tmp_path):
    for age, name in enumerate('dcba'):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        files.os.utime(path, (100 + age, 100 + age))
    files.trim_folder(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_all_files_of_old_graphs_leave_the_cache_together(source, made, cache, monkeypatch):
    graphs_for(source)
    kept = sum(path.stat().st_size for path in cache.iterdir())
    # The cache has room for the second graphs and most of the first ones.
    monkeypatch.setattr(registry, 'MOST_CACHED', 2 * kept - 100)
    network = replace(source.card.network, anchor_scales=(0.2, 0.8))
    graphs_for(replace(source, card=replace(source.card, network=network)))
    assert len({path.name.partition('.')[0] for path in cache.iterdir()}) == 1
    assert len(list(cache.iterdir())) == 4


@pytest.fixture
def work(source, monkeypatch):
    """Count how often the network is built and copied, and the weights' file read and hashed."""
    done = Counter()
    data = source.path.read_bytes()
    build, read_bytes, sha256 = ForecastDetector.__init__, Path.read_bytes, hashlib.sha256

    def built(network, *arguments):
        done['built'] += 1
        build(network, *arguments)

    def copied(network, memo):
        done['copied'] += 1
        memo[id(network)] = copy = ForecastDetector.__new__(ForecastDetector)
        copy.__dict__.update(deepcopy(network.__dict__, memo))
        return copy

    def read(path):
        done['read'] += path == source.path
        return read_bytes(path)

    def hashed(content=b'', **options):
        done['hashed'] += content == data
        return sha256(content, **options)

    monkeypatch.setattr(ForecastDetector, '__init__', built)
    monkeypatch.setattr(ForecastDetector, '__deepcopy__', copied, raising=False)
    monkeypatch.setattr(Path, 'read_bytes', read)
    monkeypatch.setattr(hashlib, 'sha256', hashed)
    return done


def test_the_network_is_copied_and_its_file_read_and_hashed_once(source, work, cache):
    for backend in ('torch', 'onnxruntime', 'openvino'):
        if registry.missing_modules(backend):
            continue
        # The first back-end that runs graphs makes them; the next one finds them.
        network = {} if backend != 'torch' and cache.exists() else {'built': 1, 'copied': 1}
        work.clear()
        assert Detector.load(source.path, backend=backend).backend == backend
        assert +work == {'read': 1, 'hashed': 1, **network}, backend


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_graphs_in_int8_are_of_the_shipped_weights(name):
    checkpoint = read_checkpoint(shipped_checkpoint(name))
    assert has_int8(checkpoint)
    read = onnx.load_from_string(graphs_for(checkpoint, INT8).graphs[READ_STEP]).graph
    made_by = {output: node for node in read.node for output in node.output}

    def source(node: onnx.NodeProto) -> onnx.NodeProto | None:
        return made_by.get(node.input[0])

    def kind(node: onnx.NodeProto | None) -> str:
        return '' if node is None else node.op_type

    quantised = [node for node in read.node if node.op_type == 'QuantizeLinear']
    assert sum(kind(source(node)) == 'Conv' for node in quantised) > 50
    # Values that ReLU6 clips must not widen the range of a convolution's output.
    for clip in (node for node in read.node if node.op_type == 'Clip'):
        before = source(clip)
        if kind(before) == 'DequantizeLinear':
            assert kind(source(source(before))) != 'Conv', clip.name


def test_graphs_in_int8_are_used_if_the_processor_multiplies_int8(monkeypatch):
    pytest.importorskip('openvino')
    monkeypatch.setattr(host, 'multiplies_bf16', lambda: False)
    monkeypatch.setattr(host, 'multiplies_int8', lambda: True)
    assert Detector.load('small', backend='openvino').precision == 'int8'
    assert Detector.load('small', backend='onnxruntime').precision == 'fp32'
    monkeypatch.setattr(host, 'multiplies_int8', lambda: False)
    assert Detector.load('small', backend='openvino').precision != 'int8'


def test_weights_without_graphs_in_int8(source, monkeypatch):
    monkeypatch.setattr(host, 'multiplies_bf16', lambda: False)
    monkeypatch.setattr(host, 'multiplies_int8', lambda: True)
    assert not has_int8(source)
    assert Detector.load(source, backend='openvino').precision != 'int8'
