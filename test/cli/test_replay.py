# SPDX-License-Identifier: Apache-2.0
"""The verb `replay`: results, many bags, failures, URLs, Ctrl-C and bad input."""

import json
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
from time import monotonic, sleep

from forecast_detector_ros.cli import replay
from forecast_detector_ros.replay.bag_replay import ReplayOptions
from forecast_detector_ros.report import html_report
from forecast_detector_ros.report.run_record import load_run
import pytest
from rosbags.highlevel import AnyReader

from ..helpers.bags import jpeg_message, raw_message, truth_message, write_bag

CLASSES = ('cat', 'dog', 'train')


@pytest.fixture(scope='module')
def checkpoint(write_checkpoint):
    """Write a small network with random weights."""
    return write_checkpoint(CLASSES)


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Write a folder with three annotated bags."""
    root = tmp_path_factory.mktemp('bags')
    for seed, name in enumerate('abc'):
        write_bag(root / name, {
            '/camera/compressed': [jpeg_message(n, seed=seed) for n in range(4 + seed)],
            '/truth': [truth_message(n, [[4, 4, 60, 40]], [CLASSES[n % 2]])
                       for n in range(4 + seed)]})
    return root


@pytest.fixture
def quick(monkeypatch):
    """Skip the drawing of figures, which other tests cover."""
    monkeypatch.setattr(html_report, 'as_svg', lambda draw, run, width: '<svg/>')


@pytest.fixture
def run(quick, checkpoint, capsys, tmp_path, monkeypatch):
    """Return a function that runs the program and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments):
        given = [str(argument) for argument in arguments]
        if '--checkpoint' not in given:
            given += ['--checkpoint', str(checkpoint), '--backend', 'torch']
        code = replay.main(given)
        captured = capsys.readouterr()
        return code, captured.out, captured.err
    return go


COMMON = ('--latency', 'read=20,forecast=4', '--policy', 'alternate(1)', '--truth-topic', '/truth')


def summary(folder):
    return json.loads((Path(folder) / 'summary.json').read_text())


def figures(folder):
    """Return the figures that must not depend on the engine."""
    document = summary(folder)
    return {key: document[key] for key in (
        'images', 'refused', 'processed', 'dropped', 'read', 'forecast', 'read_ratio', 'reasons',
        'latency_ms', 'latencies_ms', 'boxes', 'boxes_per_class', 'accuracy', 'results')}


def without_paths(document):
    """Return figures without the paths of the bags."""
    return {**document, 'results': {name: {**result, 'path': None}
                                    for name, result in document['results'].items()}}


def test_one_bag(run, bags, tmp_path):
    code, out, err = run(bags / 'b', '--jobs', '1', *COMMON, '--video')
    assert (code, err) == (0, '')
    assert 'bags: 1; images: 5, of which 3 read, 2 forecast, 0 dropped, 0 refused' in out
    assert 'latency of a read frame: p50 20.0 ms' in out
    assert 'against 5 annotated boxes in 5 images: AP50 0.' in out
    folder = tmp_path / 'replay_output'
    assert {path.name for path in folder.iterdir()} == {
        '.forecast_detector_result', 'bags', 'detections.json', 'report.html', 'run.json',
        'summary.json'}
    assert {path.name for path in (folder / 'bags/b').iterdir()} == {
        'bag', 'detections.json', 'frames.jsonl', 'summary.json', 'tables.npz', 'annotated.mp4'}
    document = summary(folder)
    assert document['options']['policy'] == 'alternate(1)' and document['backend'] == 'torch'
    assert document['versions']['rosbags'] and document['command'].startswith(
        'forecast-detector replay ')
    record = load_run(folder / 'run.json')
    assert record.machine['backend'] == 'torch' and record.source['bags'] == 'b'
    assert '<title>b/camera/compressed</title>' in (folder / 'report.html').read_text()


def test_images_above_the_limit_of_pixels_are_refused(run, bags, tmp_path):
    # The pictures have 48 x 80 pixels.
    code, out, err = run(bags / 'a', '--jobs', '1', *COMMON, '--max-image-pixels', '3839',
                         '--video')
    assert code == 0
    assert err == 'replay: no report: replay_output.part: has no frames to report on\n'
    assert 'images: 4, of which 0 read, 0 forecast, 0 dropped, 4 refused' in out
    assert summary('replay_output')['options']['max_image_pixels'] == 3839


def test_only_the_bag_without_the_topic_fails(run, bags):
    assert run(bags / 'a', '--jobs', '1', *COMMON)[0] == 0
    before = summary('replay_output')
    code, out, err = run(bags, '--topic', '/front', '--jobs', '1')
    assert code == 1 and err.count('no image topic') == 3 and out == ''
    assert re.fullmatch('replay: no result was written; .*/replay_output stays as it is',
                        err.splitlines()[-1])
    assert summary('replay_output') == before


def test_failed_bag_is_named_and_the_others_are_replayed(run, bags, tmp_path):
    (tmp_path / 'broken.mcap').write_bytes(b'nothing')
    code, out, err = run(tmp_path / 'broken.mcap', bags / 'a', *COMMON, '--jobs', '1')
    assert code == 1
    assert re.search(r'replay: broken failed: .*broken.mcap: cannot be read', err)
    assert 'bags: 1; images: 4' in out
    states = summary('replay_output')['bags']
    assert [(item['name'], item['state']) for item in states] == [('broken', 'failed'),
                                                                  ('a', 'done')]


def test_bags_and_results_at_urls(run, bags, tmp_path, checkpoint):
    folder = f'file://{tmp_path}/store'
    assert run(bags, *COMMON, '--output', 'here')[0] == 0
    (tmp_path / 'store').mkdir()
    for source in (*bags.iterdir(), checkpoint, checkpoint.with_suffix('.yaml')):
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, tmp_path / 'store' / source.name)
    code, out, err = run(f'{folder}/a', f'{folder}/b', f'{folder}/c/c.mcap', *COMMON,
                         '--checkpoint', f'{folder}/{checkpoint.name}', '--backend', 'torch',
                         '--output', f'{folder}/out')
    assert (code, err) == (0, '')
    there = tmp_path / 'store/out'
    assert without_paths(figures(there)) == without_paths(figures('here'))
    assert [bag['path'] for bag in summary(there)['bags']] == [
        f'{folder}/a', f'{folder}/b', f'{folder}/c/c.mcap']
    assert (there / 'report.html').is_file() and load_run(there / 'run.json').frames
    with AnyReader([there / 'bags/a/bag']) as reader:
        assert reader.message_count == 8


def test_interrupt_names_the_url_of_partial_results(run, bags, tmp_path, interrupt_jobs):
    interrupt_jobs(replay)
    code, _, err = run(bags, *COMMON, '--output', f'file://{tmp_path}/store/res')
    assert code == 130
    assert err.endswith(f'complete and is in file://{tmp_path}/store/res.part\n')
    assert summary(tmp_path / 'store/res.part')['images'] == 4


def test_result_at_a_url_is_replaced_and_named_by_it(run, bags, tmp_path):
    url = f'file://{tmp_path}/store/res'
    for name in 'ab':
        code, out, _ = run(bags / name, *COMMON, '--output', url)
        assert code == 0 and out.splitlines()[-1] == f'written: {url}'
    folder = tmp_path / 'store/res'
    assert [path.name for path in (folder / 'bags').iterdir()] == ['b']
    assert list(summary(folder)['results']) == ['b']


def test_bag_at_a_url_that_fails_is_named_by_it(run, bags, tmp_path):
    (tmp_path / 'broken.mcap').write_bytes(b'nothing')
    code, out, err = run(f'file://{tmp_path}/broken.mcap', bags / 'a', *COMMON)
    assert code == 1 and 'bags: 1; images: 4' in out
    assert re.search(fr'replay: broken failed: file://{tmp_path}/broken.mcap: cannot be read', err)


def test_annotations_of_fewer_frames_are_reported(run, bags, tmp_path):
    (tmp_path / 'half.json').write_text(json.dumps({
        'categories': [{'id': 1, 'name': 'cat'}], 'annotations': [],
        'images': [{'id': n, 'file_name': f'c/{n}.jpg', 'width': 80, 'height': 48, 'video': 'c',
                    'frame_index': n} for n in range(3)]}))
    code, out, err = run(bags / 'c', '--annotations', 'half.json')
    assert code == 0 and 'in 3 images' in out
    assert err == ('replay: annotations: half.json: video c: its 3 frames are taken for the first '
                   'of 6 images\n')


def test_failure_leaves_no_folder(run, tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'nothing')
    code, out, err = run('broken.mp4', '--output', 'out/cut')
    assert (code, out) == (1, '')
    assert [line.partition(': ')[0] for line in err.splitlines()] == ['replay'] * 2
    assert err.endswith('\nreplay: no result was written\n')
    assert list((tmp_path / 'out').iterdir()) == []


def test_detector_is_loaded_once(run, bags, monkeypatch):
    load, loaded = ReplayOptions.load, []
    monkeypatch.setattr(ReplayOptions, 'load', lambda self: loaded.append(1) or load(self))
    assert run(bags, '--jobs', '1', *COMMON)[0] == 0 and loaded == [1]


@pytest.mark.slow
def test_results_of_processes_equal_those_of_one(run, bags, checkpoint):
    # The two processes find the graphs of the default back-end, and need not load PyTorch.
    common = (bags, *COMMON, '--checkpoint', checkpoint)
    assert run(*common, '--jobs', '1', '--output', 'one')[0] == 0
    # There are three bags, so one process has two of them.
    code, _, err = run(*common, '--jobs', '2', '--output', 'two')
    assert (code, err) == (0, '')
    assert figures('two') == figures('one')


def test_losses_of_a_truncated_bag_are_reported(run, tmp_path):
    path = write_bag(tmp_path / 'cut', {'/c': [raw_message(n, size=(500, 800))
                                               for n in range(6)]})
    file = path / 'cut.mcap'
    file.write_bytes(file.read_bytes()[:3_000_000])
    code, out, err = run(path, '--jobs', '1')
    assert code == 0 and 'lost: ' in err and 'messages are left' in err
    assert re.search(r'images: [1-5],', out)
    assert 'messages are left' in load_run(tmp_path / 'replay_output/run.json').source['lost']


def test_latencies_of_an_earlier_replay(run, bags):
    assert run(bags / 'a', '--jobs', '1', '--policy', 'alternate(1)', '--output', 'first')[0] == 0
    for output in ('second', 'third'):
        code, out, _ = run(bags / 'c', '--mode', 'real-time', '--latencies',
                           'first/summary.json', '--policy', 'alternate(1)', '--output', output)
        assert code == 0
    assert figures('second') == figures('third')
    recorded = summary('first')['latencies_ms']
    drawn = summary('second')['latencies_ms']
    assert all(set(drawn[kind]) <= set(recorded[kind]) for kind in ('read', 'forecast'))


@pytest.mark.parametrize('arguments, words', [
    (['{bags}', '--checkpoint', 'no.safetensors'], 'no.safetensors: no such'),
    (['/nope', '--checkpoint', 'not looked at'], '/nope: no such file or folder'),
    (['{bags}', '--output', '/'], '/: cannot be replaced by results'),
    (['{empty}'], 'has no files; name a bag or a video'),
    (['{bags}', '--annotations', 'x', '--truth-topic', 'y'], 'exclude each other'),
    (['{bags}', '--latency', 'read=1,forecast=1', '--latencies', 'y'], 'exclude each other'),
    (['{bags}', '--latencies', 'none.json'], 'none.json: cannot be read'),
    (['{bags}', '--classes', 'zebra'], 'zebra'),
    (['{bags}', '--engine', 'ray=127.0.0.1:9'], 'ray=127.0.0.1:9: there is no cluster'),
    (['nowhere://{bags}'], 'nowhere'),
    (['file://{empty}/none'], 'none: no such file or folder'),
    (['{bags}', '--output', '{full}'], 'is no result of an earlier run'),
    (['{bags}', '--annotations', 'none.json'], 'none.json: no such file'),
])
def test_bad_input_is_one_line(run, bags, tmp_path, arguments, words):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/file').touch()
    names = {'bags': bags / 'a', 'empty': tmp_path / 'empty', 'full': tmp_path / 'full'}
    code, out, err = run(*[item.format(**names) for item in arguments])
    assert (code, out) == (2, '')
    assert err.startswith('replay: ') and err.count('\n') == 1 and words in err
    assert list(tmp_path.glob('replay_output*')) == []


@pytest.mark.parametrize('arguments, words', [
    (['x', '--latency', 'read=1'], 'must be read=MS,forecast=MS'),
    (['x', '--policy', 'sometimes'], "policy is 'sometimes', must be"),
    (['x', '--threshold', '0.7'], "--threshold: is no option; use --policy 'threshold(0.7)'"),
    ([], 'the following arguments are required: BAG'),
    (['x', '--engine', 'dask'], 'must be local, ray or ray=ADDRESS'),
    (['x', '--jobs', '0'], 'must be an integer of at least 1'),
    (['x', '--mode', 'fast'], 'invalid choice'),
    (['x', '--max-detections', '0'], 'must be an integer from 1 to 1000'),
])
def test_bad_arguments_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        replay.main(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_results_are_written_without_jinja2(run, bags, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    code, _, err = run(bags / 'a', '--jobs', '1')
    assert code == 0 and err.count('\n') == 1 and 'no report: ' in err
    assert (tmp_path / 'replay_output/run.json').is_file()


@pytest.mark.slow
def test_ctrl_c_leaves_a_readable_result(checkpoint, tmp_path):
    write_bag(tmp_path / 'long', {'/c': [raw_message(n) for n in range(3000)]})
    program = subprocess.Popen(
        [sys.executable, '-m', 'forecast_detector_ros.cli', 'replay', tmp_path / 'long',
         '--checkpoint', checkpoint, '--jobs', '1', '--output', tmp_path / 'out'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = tmp_path / 'out.part/bags/long/bag'
    deadline = monotonic() + 360
    # The program is writing the bag of the results now.
    while not list(part.parent.glob('.bag.part/bag/*.mcap')) and monotonic() < deadline:
        sleep(0.05)
    sleep(0.5)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=360)
    assert program.returncode == 130, err
    assert 'interrupted; the finished part is complete and is in' in err
    assert not (tmp_path / 'out').exists()
    document = summary(tmp_path / 'out.part')
    assert document['bags'][0]['state'] == 'interrupted' and 0 < document['images'] < 3000
    with AnyReader([part]) as reader:
        assert reader.message_count == 2 * document['images']
    assert load_run(tmp_path / 'out.part/run.json').frames
