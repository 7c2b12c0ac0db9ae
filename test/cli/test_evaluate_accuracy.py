# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate accuracy`, from files to tables and JSON."""

import json
import re
import signal
import subprocess
import sys

import cv2
from forecast_detector_ros.annotations.findings import DataError
from forecast_detector_ros.annotations.synthetic import CLASSES
from forecast_detector_ros.cli import evaluate_accuracy
from forecast_detector_ros.evaluation.runs import VideoRun, VideoWork
from forecast_detector_ros.jobs.locations import kept, put, Url
from forecast_detector_ros.metrics.tables import DetectionTable
from forecast_detector_ros.report.run_record import load_run
import numpy as np
import pytest


def test_annotated_video_to_table_and_json(evaluate, checkpoint, videos, tmp_path):
    output = tmp_path / 'new/result.json'
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', videos,
                              '--policy', 'alternate(1)', '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert list(result['sequences']) == ['synthetic-000', 'synthetic-001']
    assert result['settings'] == {'policy': 'alternate(1)', 'score_threshold': 0.2,
                                  'nms_threshold': 0.45, 'vote_threshold': 1.0,
                                  'score_memory': 0.0, 'max_consecutive_forecasts': 3}
    # Read, forecast, read, forecast, read.
    assert result['read_ratio'] == pytest.approx(0.6)
    assert result['latency_ms']['read']['frames'] == 6
    assert set(result['ap50']['classes']) <= set(CLASSES)
    assert 0 <= result['mean_recall'] <= 1 and 'forecasts' not in result
    assert 'synthetic-001' in out and 'AP50' in out and '0.600' in out
    assert [path.name for path in output.parent.iterdir()] == ['result.json']


def test_every_frame_of_the_run_is_kept_for_the_report(evaluate, checkpoint, videos, tmp_path):
    path = tmp_path / 'new/run.json'
    code, _, err = evaluate('--checkpoint', checkpoint, '--annotations', videos,
                            '--policy', 'alternate(1)', '--run', path)
    assert (code, err) == (0, '')
    record = load_run(path)
    assert [len(item.frames) for item in record.sequences] == [5, 5]
    assert [frame.kind for frame in record.sequences[0].frames] == [
        'read', 'forecast', 'read', 'forecast', 'read']
    assert record.sequences[0].frames[0].reason == 'first_frame'
    assert record.settings['policy'] == 'alternate(1)' and record.model['name'] == 'small'
    assert record.machine['device'] == 'cpu' and record.machine['cores'] >= 1
    assert record.accuracy.ap50 is not None


def test_every_second_frame_from_both_starts(evaluate, checkpoint, videos):
    code, out, _ = evaluate('--checkpoint', checkpoint, '--annotations', videos, '--stride', '2',
                            '--json')
    result = json.loads(out)
    assert (code, result['stride']) == (0, 2)
    assert [(name, item['frames']) for name, item in result['sequences'].items()] == [
        ('synthetic-000', 3), ('synthetic-000+1', 2), ('synthetic-001', 3),
        ('synthetic-001+1', 2)]


def test_true_boxes_replace_those_of_a_teacher(evaluate, checkpoint, videos, tmp_path):
    document = json.loads(videos.read_text())
    first = [image for image in document['images'] if image['video'] == 'synthetic-000']
    truth = videos.with_name('truth.json')
    truth.write_text(json.dumps({**document, 'images': first, 'annotations': []}))
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', videos,
                              '--truth', truth, '--output', tmp_path / 'result.json')
    assert (code, err) == (0, '')
    result = json.loads((tmp_path / 'result.json').read_text())
    boxes = {name: item['boxes'] for name, item in result['sequences'].items()}
    assert boxes['synthetic-000'] == 0 and boxes['synthetic-001'] > 0
    assert result['annotations']['truth'] == str(truth)


def test_protocols_and_motion(evaluate, checkpoint, videos, tmp_path):
    document = json.loads(videos.read_text())
    for number, entry in enumerate(document['annotations']):
        entry['track_id'] = number
    tracked = videos.with_name('tracked.json')
    tracked.write_text(json.dumps(document))
    output = tmp_path / 'result.json'
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', tracked,
                              '--protocol', 'plain', 'devkit', 'coco', '--motion-iou', 'auto',
                              '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    # Every box has a track of its own, so every object counts as fast.
    assert result['ap50']['motion']['fast']['fraction'] == 1.0
    assert result['ap50_devkit']['motion']['fast']['mean'] == pytest.approx(
        result['ap50_devkit']['mean'])
    assert 0 <= result['coco']['figures']['ap'] <= 1
    assert 'AP50 devkit' in out and 'COCO AP' in out and 'slow' in out


def test_identities_of_objects(evaluate, checkpoint, videos, tmp_path):
    pytest.importorskip('trackeval')
    document = json.loads(videos.read_text())
    seen = {}
    for entry in document['annotations']:
        # The order of the objects is the same in all frames, so it gives the tracks.
        seen[entry['image_id']] = seen.get(entry['image_id'], 0) + 1
        entry['track_id'] = seen[entry['image_id']]
    tracked = videos.with_name('tracked_by_class.json')
    tracked.write_text(json.dumps(document))
    output = tmp_path / 'result.json'
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', tracked,
                              '--policy', 'alternate(1)', '--identities', '--output', output)
    assert (code, err) == (0, '')
    found = json.loads(output.read_text())['identities']
    assert list(found['sequences']) == ['synthetic-000', 'synthetic-001']
    assert found['all']['boxes'] == len(document['annotations'])
    assert 0 <= found['all']['hota'] <= 1 and found['all']['mota'] <= 1
    assert 'IDF1' in out and 'HOTA' in out


@pytest.mark.parametrize('arguments, message', [
    (('--motion-iou', 'auto'), 'no annotated box has a track_id'),
    (('--motion-iou', 'none.mat'), 'none.mat: cannot be read'),
    (('--motion-videos', 'list.txt'), '--motion-videos goes with --motion-iou only'),
    (('--report', 'x.html'), '--report goes with --run only'),
    (('--identities',), 'identities: no annotated box has a track_id'),
])
def test_unusable_options_are_one_line(evaluate, checkpoint, videos, arguments, message):
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', videos, *arguments)
    assert (code, out, len(err.splitlines())) == (2, '', 1)
    assert message in err


def test_accepted_class_adds_to_recall(evaluate, checkpoint, davis, tmp_path):
    root, _ = davis
    path = root / 'walk/boxes.json'
    document = json.loads(path.read_text())
    # For a box that covers the picture, each class has a large anchor that overlaps enough.
    for frame in document['frames']:
        frame['box_xywh'] = [0, 0, 160, 120]
    path.write_text(json.dumps({**document, 'category': 'whale'}))
    recalls = []
    for accept in ((), ('--accept', 'walk=disc', '--accept', 'walk=square',
                        '--accept', 'walk=triangle')):
        output = tmp_path / 'result.json'
        assert evaluate('--checkpoint', checkpoint, '--davis', root, *accept,
                        '--output', output)[0] == 0
        recalls.append(json.loads(output.read_text())['mean_recall'])
    assert recalls[0] == 0.0 and recalls[1] > 0.0


def test_only_the_named_sequences(evaluate, checkpoint, videos):
    code, out, _ = evaluate('--checkpoint', checkpoint, '--annotations', videos,
                            '--sequences', 'synthetic-001')
    assert code == 0 and 'synthetic-001' in out and 'synthetic-000' not in out


def test_threshold_of_the_card_is_the_default_policy(evaluate, checkpoint, videos):
    code, out, _ = evaluate('--checkpoint', checkpoint, '--annotations', videos)
    assert code == 0 and 'threshold(0.5), score_threshold 0.2' in out


@pytest.mark.parametrize('arguments, words', [
    (['--checkpoint', 'no.safetensors', '--annotations', '{videos}'], 'no.safetensors: no such'),
    (['--annotations', 'no.json'], 'no.json: cannot be read'),
    (['--davis', '{folder}'], 'no SEQUENCE/boxes.json'),
    (['--annotations', '{videos}', '--images', '{checkpoint}'], 'no file'),
    (['--annotations', '{videos}', '--sequences', 'x'], "sequence 'x' is not there"),
    (['--annotations', '{videos}', '--accept', 'a=disc'], '--accept goes with --davis'),
    (['--annotations', '{videos}', '--pseudo-labels', 'x'], '--pseudo-labels goes with --davis'),
    (['--annotations', '{videos}', '--device', 'tpu'], "device is 'tpu'"),
    (['--annotations', '{videos}', '--backend', 'abacus'], "backend is 'abacus'"),
])
def test_bad_input_is_one_line(evaluate, checkpoint, videos, arguments, words):
    names = {'videos': videos, 'folder': videos.parent, 'checkpoint': checkpoint}
    arguments = [argument.format(**names) for argument in arguments]
    if '--checkpoint' not in arguments:
        arguments += ['--checkpoint', checkpoint]
    code, out, err = evaluate(*arguments)
    assert code == 2 and out == ''
    assert err.startswith('evaluate accuracy: ') and err.count('\n') == 1 and words in err


@pytest.mark.parametrize('arguments, words', [
    ([], 'one of the arguments --davis --annotations --mot is required'),
    (['--davis', 'x', '--policy', 'sometimes'], "policy is 'sometimes', must be"),
    (['--davis', 'x', '--policy', 'threshold(2)'], 'must be in [0, 1]'),
    (['--davis', 'x', '--threshold', '0.7'], "use --policy 'threshold(0.7)'"),
    (['--davis', 'x', '--min-score', '1.5'], 'must be a number from 0 to 1'),
    (['--davis', 'x', '--score-threshold', '2'], 'must be a number from 0 to 1'),
    (['--davis', 'x', '--stride', '0'], 'must be an integer of at least 1'),
    (['--davis', 'x', '--threads', '3000000000'], 'must be an integer from 1 to 256'),
    (['--davis', 'x', '--accept', 'walk'], 'must be SEQUENCE=CLASS'),
])
def test_bad_arguments_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        evaluate_accuracy.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def accuracy(path):
    """Return the figures that must not depend on the number of processes."""
    result = json.loads(path.read_text())
    return {key: result[key] for key in ('frames', 'sequences', 'mean_recall', 'read_ratio',
                                         'mean_read_ratio', 'ap50')}


@pytest.fixture
def many(videos, tmp_path):
    """Write three annotation files with one video each; two videos have the same name."""
    document = json.loads(videos.read_text())
    paths = []
    for name, source in (('one', 'synthetic-000'), ('two', 'synthetic-001'),
                         ('three', 'synthetic-000')):
        images = [item for item in document['images'] if item['video'] == source]
        known = {item['id'] for item in images}
        paths.append(tmp_path / f'{name}.json')
        paths[-1].write_text(json.dumps({
            **document, 'images': images, 'annotations': [
                item for item in document['annotations'] if item['image_id'] in known]}))
    return paths


def test_many_files_are_one_evaluation(evaluate, checkpoint, videos, many, tmp_path):
    common = ('--checkpoint', checkpoint, '--images', videos.parent, '--policy', 'alternate(1)')
    outputs = [tmp_path / 'whole.out', tmp_path / 'files.out']
    for inputs, output in (((videos,), outputs[0]), (many[:2], outputs[1])):
        assert evaluate(*common, '--annotations', *inputs, '--output', output)[0] == 0
    assert accuracy(outputs[0]) == accuracy(outputs[1])
    code, _, err = evaluate(*common, '--annotations', *many, tmp_path / 'none.json',
                            '--output', outputs[0])
    assert (code, len(err.splitlines())) == (1, 1)
    assert 'evaluate accuracy: left out: ' in err and 'none.json: cannot be read' in err
    assert list(accuracy(outputs[0])['sequences']) == ['one/synthetic-000', 'synthetic-001',
                                                       'three/synthetic-000']


@pytest.mark.slow
def test_a_thousand_files_are_one_evaluation(evaluate, checkpoint, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'picture.png'), np.zeros((8, 8, 3), np.uint8))
    files = [tmp_path / f'{number:04d}.json' for number in range(1000)]
    for path in files:
        path.write_text(json.dumps({
            'categories': [{'id': 1, 'name': 'disc'}],
            'images': [{'id': 1, 'file_name': 'picture.png', 'width': 8, 'height': 8,
                        'video': 'walk', 'frame_index': 0}],
            'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 5, 4]}]}))
    files[400].write_text('nothing')

    def found(video, progress, interrupt):
        if video.name == '0500/walk':
            raise DataError(f'{video.name}: broken')
        table = DetectionTable(np.zeros(1, np.int64), np.array([[1, 1, 6, 5]], np.float32),
                               np.zeros(1, np.int64), np.ones(1, np.float32))
        progress(1, 1)
        return VideoRun(video.name, table, table, np.ones(1, bool), np.full(1, np.nan),
                        np.ones(1), np.ones(1))

    # A fake detector finds all objects without computation.
    monkeypatch.setattr(VideoWork, 'with_detector', lambda work, detector: found)
    code, _, err = evaluate('--checkpoint', checkpoint, '--backend', 'torch', '--annotations',
                            *files, '--output', tmp_path / 'result')
    assert code == 1 and [line.split(': ')[2] for line in err.splitlines()] == [
        str(files[400]), '0500/walk']
    result = accuracy(tmp_path / 'result')
    assert list(result['sequences']) == [f'{path.stem}/walk' for path in files
                                         if path.stem not in ('0400', '0500')]
    assert result['frames'] == 998
    assert result['mean_recall'] == result['read_ratio'] == result['ap50']['mean'] == 1.0


@pytest.mark.parametrize('kind', ['annotations', 'davis'])
def test_inputs_and_results_at_urls(evaluate, checkpoint, videos, davis, tmp_path, kind):
    source = videos if kind == 'annotations' else davis[0]
    root = videos.parent if kind == 'annotations' else davis[0]
    put(root, Url(f'memory://{kind}'))
    put(checkpoint, Url('memory://net.safetensors'))
    put(checkpoint.with_suffix('.yaml'), Url('memory://net.yaml'))
    here = tmp_path / 'here.json'
    assert evaluate('--checkpoint', checkpoint, f'--{kind}', source, '--output', here)[0] == 0
    there = (f'memory://{kind}/{videos.name}' if kind == 'annotations'
             else f'memory://{kind}')
    code, _, err = evaluate('--checkpoint', 'memory://net.safetensors', f'--{kind}', there,
                            '--output', f'memory://{kind}-out/there.json')
    assert (code, err) == (0, '')
    result = kept(Url(f'memory://{kind}-out/there.json'))
    assert accuracy(result) == accuracy(here)
    assert json.loads(result.read_text())['annotations'][kind] == there


def test_interrupt_names_the_url_of_partial_results(
        evaluate, checkpoint, videos, tmp_path, interrupt_jobs, caplog):
    interrupt_jobs(evaluate_accuracy)
    url = f'file://{tmp_path}/result.json'
    assert evaluate('--checkpoint', checkpoint, '--annotations', videos, '--output', url)[0] == 130
    assert f'the results so far are in {url}.part' in caplog.messages[-1]
    partial = json.loads((tmp_path / 'result.json.part').read_text())
    assert list(partial['sequences']) == ['synthetic-000']


@pytest.mark.slow
def test_ctrl_c_leaves_a_readable_result(checkpoint, videos, tmp_path):
    document = json.loads(videos.read_text())
    for image in list(document['images']):
        if image['video'] == 'synthetic-001':
            # The second sequence repeats its pictures, so that it lasts until the interrupt.
            document['images'] += [{**image, 'id': 10000 * n + image['id'], 'video': 'long',
                                    'frame_index': 1000 * n + image['frame_index']}
                                   for n in range(1, 1000)]
    long = videos.with_name('long.json')
    long.write_text(json.dumps(document))
    output = tmp_path / 'result.json'
    # The program prints a line for every step and every finished sequence.
    code = (
        'import sys; from forecast_detector_ros.cli import evaluate_accuracy as verb, shell; '
        'shell.LINE_EVERY_S = 0.0; run_many = verb.run_many; '
        'verb.run_many = lambda *given: (print(outcome.job.name, "is done", file=sys.stderr) '
        'or outcome for outcome in run_many(*given)); sys.exit(verb.main())')
    program = subprocess.Popen(
        [sys.executable, '-c', code, '--checkpoint', checkpoint, '--annotations', long,
         '--sequences', 'synthetic-000', 'long', '--output', output, '--jobs', '2'],
        stderr=subprocess.PIPE, text=True)
    assert program.stderr is not None
    said, first_is_done, frames = [], False, 0
    for line in program.stderr:
        said.append(line)
        first_is_done |= line.strip() == 'synthetic-000 is done'
        told = re.search('frames: ([0-9]+) of', line)
        frames = int(told[1]) if told else frames
        if first_is_done and frames > 20:
            break
    program.send_signal(signal.SIGINT)
    err = ''.join(said) + program.stderr.read()
    assert program.wait(360) == 130, err
    assert not output.exists()
    partial = json.loads((tmp_path / 'result.json.part').read_text())
    assert list(partial['sequences']) == ['synthetic-000']


@pytest.mark.slow
def test_results_of_processes_equal_those_of_one(evaluate, checkpoint, videos, tmp_path):
    common = ('--checkpoint', checkpoint, '--annotations', videos, '--policy', 'alternate(1)')
    outputs = [tmp_path / 'one.out', tmp_path / 'two.out']
    for jobs, output in zip((1, 2), outputs):
        code, _, err = evaluate(*common, '--jobs', jobs, '--output', output)
        assert (code, err) == (0, '')
    assert accuracy(outputs[0]) == accuracy(outputs[1])


def test_failed_sequence_is_named_and_left_out(evaluate, checkpoint, davis, tmp_path):
    root, _ = davis
    (root / 'run').mkdir()
    for path in (root / 'walk').iterdir():
        (root / 'run' / path.name).write_bytes(path.read_bytes())
    picture = sorted((root / 'walk').glob('*.jpg'))[2]
    picture.write_bytes(b'nothing')
    output = tmp_path / 'result.json'
    code, out, err = evaluate('--checkpoint', checkpoint, '--davis', root, '--output', output)
    assert code == 1 and err.startswith('evaluate accuracy: left out: walk: ')
    assert picture.name in err and err.count('\n') == 1
    assert list(json.loads(output.read_text())['sequences']) == ['run'] and 'run' in out


def test_report_of_an_evaluation(evaluate, checkpoint, videos, tmp_path):
    code, out, err = evaluate('--checkpoint', checkpoint, '--annotations', videos, '--run',
                              tmp_path / 'run.json', '--report', tmp_path / 'report.html')
    assert (code, err) == (0, '')
    assert out.endswith(f'\n\nwritten: {tmp_path}/run.json, {tmp_path}/report.html\n')
    page = (tmp_path / 'report.html').read_text()
    assert 'synthetic-001' in page and 'Accuracy' in page and 'no picture' not in page


@pytest.mark.parametrize(('library', 'install'), [
    ('matplotlib', 'matplotlib'), ('PIL', 'pillow'), ('jinja2', 'jinja2')])
def test_only_the_report_needs_its_libraries(checkpoint, videos, tmp_path, library,
                                             install):
    code = (f'import sys; sys.modules.update({library}=None); '
            'from forecast_detector_ros.cli.program import main; sys.exit(main())')
    common = [sys.executable, '-c', code, 'evaluate', '--checkpoint', checkpoint, '--annotations',
              videos, '--run', tmp_path / 'run.json']
    subprocess.run(common, check=True)
    (tmp_path / 'run.json').unlink()
    done = subprocess.run([*common, '--report', tmp_path / 'report.html'], text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (f'evaluate accuracy: needs {library}, which is not installed: pip '
                           f'install {install}\n')
    assert list(tmp_path.iterdir()) == []


def test_broken_picture_is_named(evaluate, checkpoint, davis):
    root, _ = davis
    picture = sorted((root / 'walk').glob('*.jpg'))[2]
    picture.write_bytes(np.zeros(9, np.uint8).tobytes())
    code, _, err = evaluate('--checkpoint', checkpoint, '--davis', root)
    assert code == 2 and picture.name in err and err.count('\n') == 1
