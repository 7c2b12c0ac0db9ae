# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate`, from files to tables and JSON."""

import json

from forecast_detector_ros.annotations.synthetic import CLASSES
from forecast_detector_ros.cli import evaluate
from forecast_detector_ros.report.run_record import load_run
import numpy as np
import pytest


@pytest.fixture
def davis(videos, tmp_path):
    """Give one of the videos the form of a sequence with one object."""
    folder = tmp_path / 'davis/walk'
    folder.mkdir(parents=True)
    document = json.loads(videos.read_text())
    frames = []
    for image in document['images'][:5]:
        name = image['file_name'].split('/')[1]
        (folder / name).write_bytes((videos.parent / image['file_name']).read_bytes())
        frames.append({'file': name, 'box_xywh': [10, 10, 50, 40]})
    (folder / 'boxes.json').write_text(json.dumps({
        'category': 'disc', 'width': 160, 'height': 120, 'frames': frames}))
    labels = tmp_path / 'labels.json'
    labels.write_text(json.dumps({
        'images': [{'id': i, 'file_name': f'walk/{frame["file"]}', 'width': 160, 'height': 120,
                    'video': 'walk', 'frame_index': i} for i, frame in enumerate(frames)],
        'categories': document['categories'],
        'annotations': [{'id': 1, 'image_id': 0, 'category_id': 1, 'bbox': [10, 10, 50, 40],
                         'score': 0.9}]}))
    return folder.parent, labels


def run(capsys, *arguments):
    code = evaluate.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_annotated_video_to_table_and_json(capsys, checkpoint, videos, tmp_path):
    output = tmp_path / 'new/result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
                         '--policy', 'alternate(1)', '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert list(result['sequences']) == ['synthetic-000', 'synthetic-001']
    assert result['settings'] == {'policy': 'alternate(1)', 'score_threshold': 0.2,
                                  'nms_threshold': 0.45, 'max_consecutive_forecasts': 3}
    # Read, forecast, read, forecast, read.
    assert result['read_ratio'] == pytest.approx(0.6)
    assert result['latency_ms']['read']['frames'] == 6
    assert set(result['ap50']['classes']) <= set(CLASSES)
    assert 0 <= result['mean_recall'] <= 1 and 'forecasts' not in result
    assert 'synthetic-001' in out and 'AP50' in out and '0.600' in out
    assert [path.name for path in output.parent.iterdir()] == ['result.json']


def test_every_frame_of_the_run_is_kept_for_the_report(capsys, checkpoint, videos, tmp_path):
    path = tmp_path / 'new/run.json'
    code, _, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
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


def test_one_object_sequences_with_labels_and_horizons(capsys, checkpoint, davis, tmp_path):
    root, labels = davis
    output = tmp_path / 'result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--davis', root, '--pseudo-labels',
                         labels, '--accept', 'walk=square', '--horizons', '2', '--policy',
                         'always_read', '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert result['read_ratio'] == 1.0
    assert result['ap50']['classes']['disc']['boxes'] == 1
    forecasts = result['forecasts']
    (stride,) = forecasts['strides']
    assert set(stride['rows']) == {'read', 'forecast', 'held', 'persistence',
                                   'repeated_boxes', 'constant_velocity', 'moved_by_truth'}
    assert [item['horizon'] for item in stride['rows']['forecast']] == [0, 1, 2]
    # A residual forecast starts as the last feature itself.
    assert [item['mean_ratio'] for item in stride['feature_mse']] == [
        pytest.approx(1.0), pytest.approx(1.0)]
    assert 'stride 32, 2 after a read' in out


def test_horizons_at_several_frame_rates_beside_another_checkpoint(
        capsys, checkpoint, videos, tmp_path):
    output, tables = tmp_path / 'result.json', tmp_path / 'new/tables.md'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
                         '--policy', 'always_read', '--horizons', '--stride', '2', '1',
                         '--rows', 'read', 'held', 'forecast', '--beside',
                         f'other={checkpoint}', '--output', output, '--markdown', tables)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert result['stride'] == 2
    # The run itself looks at both halves of each sequence.
    assert [(name, item['frames']) for name, item in result['sequences'].items()] == [
        ('synthetic-000', 3), ('synthetic-000+1', 2), ('synthetic-001', 3),
        ('synthetic-001+1', 2)]
    forecasts = result['forecasts']
    assert (forecasts['reads_every'], forecasts['beside']) == (4, {'other': str(checkpoint)})
    for stride, wanted in zip(forecasts['strides'], (2, 1), strict=True):
        assert (stride['stride'], stride['sequences']) == (wanted, 2)
        rows = stride['rows']
        assert list(rows) == ['read', 'forecast', 'held', 'other']
        assert rows['other'] == rows['forecast'] and len(rows['read']) == 9
    assert 'IoU 0.5:0.95 over 2 sequences, every 2 frames' in tables.read_text()


def test_true_boxes_over_those_of_a_teacher(capsys, checkpoint, videos, tmp_path):
    document = json.loads(videos.read_text())
    first = [image for image in document['images'] if image['video'] == 'synthetic-000']
    truth = videos.with_name('truth.json')
    truth.write_text(json.dumps({**document, 'images': first, 'annotations': []}))
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
                         '--truth', truth, '--output', tmp_path / 'result.json')
    assert (code, err) == (0, '')
    result = json.loads((tmp_path / 'result.json').read_text())
    boxes = {name: item['boxes'] for name, item in result['sequences'].items()}
    assert boxes['synthetic-000'] == 0 and boxes['synthetic-001'] > 0
    assert result['annotations']['truth'] == str(truth)


def test_protocols_and_motion(capsys, checkpoint, videos, tmp_path):
    document = json.loads(videos.read_text())
    for number, entry in enumerate(document['annotations']):
        entry['track_id'] = number
    tracked = videos.with_name('tracked.json')
    tracked.write_text(json.dumps(document))
    output = tmp_path / 'result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', tracked,
                         '--protocol', 'plain', 'devkit', 'coco', '--motion-iou', 'auto',
                         '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    # Every box is an object of its own, seen once.
    assert result['ap50']['motion']['fast']['share'] == 1.0
    assert result['ap50_devkit']['motion']['fast']['mean'] == pytest.approx(
        result['ap50_devkit']['mean'])
    assert 0 <= result['coco']['figures']['ap'] <= 1
    assert 'AP50 devkit' in out and 'COCO AP' in out and 'slow' in out


def test_streaming_with_the_latencies_of_an_earlier_run(capsys, checkpoint, videos, tmp_path):
    first, second = tmp_path / 'first.json', tmp_path / 'second.json'
    common = ('--checkpoint', checkpoint, '--annotations', videos)
    code, _, err = run(capsys, *common, '--policy', 'alternate(1)', '--output', first)
    assert (code, err) == (0, '')
    document = json.loads(first.read_text())
    assert [len(document['latencies_ms'][kind]) for kind in ('read', 'forecast')] == [6, 4]
    arguments = (*common, '--streaming', '10', '1000', '--streaming-policies', 'always_read',
                 'alternate(1)', '--streaming-outputs', 'present', 'ahead', '--latencies', first,
                 '--output', second)
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, '')
    streaming = json.loads(second.read_text())['streaming']
    assert (streaming['latencies'], streaming['seed']) == (str(first), 0)
    runs = [(item['policy'], item['output'], item['rate']) for item in streaming['runs']]
    assert runs == [(policy, output, rate) for policy in ('always_read', 'alternate(1)')
                    for output in ('present', 'ahead') for rate in (10, 1000)]
    assert 'streaming' in out and 'alternate(1)' in out
    run(capsys, *arguments)
    assert json.loads(second.read_text())['streaming'] == streaming


def test_identities_of_objects(capsys, checkpoint, videos, tmp_path):
    pytest.importorskip('trackeval')
    document = json.loads(videos.read_text())
    seen = {}
    for entry in document['annotations']:
        # The objects of a frame are always in the same order.
        seen[entry['image_id']] = seen.get(entry['image_id'], 0) + 1
        entry['track_id'] = seen[entry['image_id']]
    tracked = videos.with_name('tracked_by_class.json')
    tracked.write_text(json.dumps(document))
    output = tmp_path / 'result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', tracked,
                         '--policy', 'alternate(1)', '--identities', '--output', output)
    assert (code, err) == (0, '')
    found = json.loads(output.read_text())['identities']
    assert list(found['sequences']) == ['synthetic-000', 'synthetic-001']
    assert found['all']['boxes'] == len(document['annotations'])
    assert 0 <= found['all']['hota'] <= 1 and found['all']['mota'] <= 1
    assert 'IDF1' in out and 'HOTA' in out


def test_read_ratio_when_nothing_moves_beside_that_of_the_footage(
        capsys, checkpoint, videos, tmp_path):
    output = tmp_path / 'result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
                         '--policy', 'alternate(2)', '--static', '4', '--output', output)
    assert (code, err) == (0, '')
    static = json.loads(output.read_text())['static']
    # Two in four; of five frames of footage the first and the fourth.
    assert (static['frames'], static['mean']) == (4, 0.5)
    assert out.splitlines()[-1].split() == ['mean', '0.500', '0.400']


@pytest.mark.parametrize('arguments, message', [
    (('--motion-iou', 'auto'), 'no annotated box has a track_id'),
    (('--motion-iou', 'none.mat'), 'none.mat: cannot be read'),
    (('--latencies', 'none.json', '--streaming', '10'), 'none.json: cannot be read'),
    (('--latencies', 'none.json'), '--latencies goes with --streaming only'),
    (('--streaming-policies', 'always_read'), '--streaming-policies goes with --streaming only'),
    (('--motion-videos', 'list.txt'), '--motion-videos goes with --motion-iou only'),
    (('--report', 'x.html'), '--report goes with --run only'),
    (('--rows', 'read'), '--rows goes with --horizons only'),
    (('--identities',), 'identities: no annotated box has a track_id'),
    (('--markdown', 'x.md'), '--markdown goes with --horizons only'),
    (('--horizons', '1', '--beside', 'a=no.safetensors'), 'no.safetensors: no such'),
])
def test_options_that_do_not_fit_are_one_line(capsys, checkpoint, videos, arguments, message):
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos, *arguments)
    assert (code, out, len(err.splitlines())) == (2, '', 1)
    assert message in err


def test_accepted_class_adds_to_recall(capsys, checkpoint, davis, tmp_path):
    root, _ = davis
    path = root / 'walk/boxes.json'
    document = json.loads(path.read_text())
    # A box that covers most of the picture is met by some large anchor of every class.
    for frame in document['frames']:
        frame['box_xywh'] = [0, 0, 160, 120]
    path.write_text(json.dumps({**document, 'category': 'whale'}))
    recalls = []
    for accept in ((), ('--accept', 'walk=disc', '--accept', 'walk=square',
                        '--accept', 'walk=triangle')):
        output = tmp_path / 'result.json'
        assert run(capsys, '--checkpoint', checkpoint, '--davis', root, *accept,
                   '--output', output)[0] == 0
        recalls.append(json.loads(output.read_text())['mean_recall'])
    assert recalls[0] == 0.0 and recalls[1] > 0.0


def test_only_the_named_sequences(capsys, checkpoint, videos):
    code, out, _ = run(capsys, '--checkpoint', checkpoint, '--annotations', videos,
                       '--sequences', 'synthetic-001')
    assert code == 0 and 'synthetic-001' in out and 'synthetic-000' not in out


def test_threshold_of_the_card_is_the_default_policy(capsys, checkpoint, videos):
    code, out, _ = run(capsys, '--checkpoint', checkpoint, '--annotations', videos)
    assert code == 0 and 'threshold(0.5), score_threshold 0.2' in out


@pytest.mark.parametrize('arguments, words', [
    (['--checkpoint', 'no.safetensors', '--annotations', '{videos}'], 'no.safetensors: no such'),
    (['--annotations', 'no.json'], 'no.json: cannot be read'),
    (['--davis', '{folder}'], 'no SEQUENCE/boxes.json'),
    (['--annotations', '{videos}', '--images', '{checkpoint}'], 'no file'),
    (['--annotations', '{videos}', '--sequences', 'x'], "sequence 'x' is not there"),
    (['--annotations', '{videos}', '--score-threshold', '2'], 'score_threshold is 2'),
    (['--annotations', '{videos}', '--accept', 'a=disc'], '--accept goes with --davis'),
    (['--annotations', '{videos}', '--pseudo-labels', 'x'], '--pseudo-labels goes with --davis'),
    (['--annotations', '{videos}', '--device', 'tpu'], "device is 'tpu'"),
    (['--annotations', '{videos}', '--backend', 'abacus'], "backend is 'abacus'"),
])
def test_bad_input_is_one_line(capsys, checkpoint, videos, arguments, words):
    names = {'videos': videos, 'folder': videos.parent, 'checkpoint': checkpoint}
    arguments = [argument.format(**names) for argument in arguments]
    if '--checkpoint' not in arguments:
        arguments += ['--checkpoint', checkpoint]
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ''
    assert err.startswith('evaluate: ') and err.count('\n') == 1 and words in err


@pytest.mark.parametrize('arguments, words', [
    ([], 'one of the arguments --davis --annotations --mot is required'),
    (['--davis', 'x', '--policy', 'sometimes'], "policy is 'sometimes', must be"),
    (['--davis', 'x', '--policy', 'threshold(2)'], 'must be in [0, 1]'),
    (['--davis', 'x', '--min-score', '1.5'], 'must be in [0, 1]'),
    (['--davis', 'x', '--horizons', '0'], 'must be at least 1'),
    (['--davis', 'x', '--threads', '0'], 'must be at least 1'),
    (['--davis', 'x', '--accept', 'walk'], 'must be SEQUENCE=CLASS'),
])
def test_bad_arguments_are_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def accuracy(path):
    """Return what must not depend on how the work was shared."""
    result = json.loads(path.read_text())
    return {key: result[key] for key in ('frames', 'sequences', 'mean_recall', 'read_ratio',
                                         'mean_read_ratio', 'ap50')}


@pytest.fixture
def many(videos, tmp_path):
    """Write each of the two videos into a file of its own, and a third under a used name."""
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


def test_many_files_are_one_evaluation(capsys, checkpoint, videos, many, tmp_path):
    common = ('--checkpoint', checkpoint, '--images', videos.parent, '--policy', 'alternate(1)')
    outputs = [tmp_path / 'whole.out', tmp_path / 'files.out']
    for inputs, output in (((videos,), outputs[0]), (many[:2], outputs[1])):
        assert run(capsys, *common, '--annotations', *inputs, '--output', output)[0] == 0
    assert accuracy(outputs[0]) == accuracy(outputs[1])
    code, _, err = run(capsys, *common, '--annotations', *many, tmp_path / 'none.json',
                       '--output', outputs[0])
    assert (code, len(err.splitlines())) == (1, 1)
    assert 'evaluate: left out: ' in err and 'none.json: cannot be read' in err
    assert list(accuracy(outputs[0])['sequences']) == ['one/synthetic-000', 'synthetic-001',
                                                       'three/synthetic-000']


def test_shares_merge_into_what_one_run_gives(capsys, checkpoint, videos, tmp_path, monkeypatch):
    common = ('--checkpoint', checkpoint, '--annotations', videos, '--policy', 'alternate(1)')
    whole, merged = tmp_path / 'whole.out', tmp_path / 'merged.out'
    assert run(capsys, *common, '--output', whole, '--part', tmp_path / 'all.npz')[0] == 0
    part = tmp_path / 'runs.npz'
    assert run(capsys, *common, '--shard', '1/2', '--part', part)[0] == 0
    # As torchrun starts it.
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert run(capsys, *common, '--part', part)[0] == 0
    code, _, err = run(capsys, *common, '--output', merged)
    assert code == 2 and 'shard 2/2 needs --part FILE' in err
    code, _, err = run(capsys, *common, '--part', part, '--output', merged)
    assert code == 2 and '--output goes with the whole footage' in err
    monkeypatch.delenv('RANK')
    parts = [tmp_path / f'runs-{number}-of-2.npz' for number in (1, 2)]
    code, _, err = run(capsys, *common, '--merge', *parts, '--output', merged)
    assert (code, err) == (0, '') and accuracy(merged) == accuracy(whole)
    # With the very latencies, too, where they are of the same run.
    assert run(capsys, *common, '--merge', tmp_path / 'all.npz', '--output', merged)[0] == 0
    assert json.loads(merged.read_text()) == json.loads(whole.read_text())
    code, _, err = run(capsys, *common, '--merge', parts[1], '--output', merged)
    assert code == 1 and err == 'evaluate: left out: synthetic-000: no part has it\n'
    for arguments, words in ((('--score-threshold', '0.5', '--merge', *parts), 'settings is'),
                             (('--merge', parts[0], parts[0]), 'is in two of the parts'),
                             (('--merge', videos), 'is no part that evaluate kept'),
                             (('--merge', *parts, '--shard', '1/2'), '--merge excludes')):
        code, out, err = run(capsys, *common, *arguments)
        assert (code, out, len(err.splitlines())) == (2, '', 1) and words in err, err


@pytest.mark.slow
def test_processes_give_what_one_process_gives(capsys, checkpoint, videos, tmp_path):
    common = ('--checkpoint', checkpoint, '--annotations', videos, '--policy', 'alternate(1)')
    outputs = [tmp_path / 'one.out', tmp_path / 'two.out']
    for jobs, output in zip((1, 2), outputs):
        code, _, err = run(capsys, *common, '--jobs', jobs, '--output', output)
        assert (code, err) == (0, '')
    assert accuracy(outputs[0]) == accuracy(outputs[1])


def test_sequence_that_fails_is_named_and_the_rest_is_done(capsys, checkpoint, davis, tmp_path):
    root, _ = davis
    (root / 'run').mkdir()
    for path in (root / 'walk').iterdir():
        (root / 'run' / path.name).write_bytes(path.read_bytes())
    picture = sorted((root / 'walk').glob('*.jpg'))[2]
    picture.write_bytes(b'nothing')
    output = tmp_path / 'result.json'
    code, out, err = run(capsys, '--checkpoint', checkpoint, '--davis', root, '--output', output)
    assert code == 1 and err.startswith('evaluate: left out: walk: ')
    assert picture.name in err and err.count('\n') == 1
    assert list(json.loads(output.read_text())['sequences']) == ['run'] and 'run' in out


def test_report_of_an_evaluation(capsys, checkpoint, videos, tmp_path):
    code, _, err = run(capsys, '--checkpoint', checkpoint, '--annotations', videos, '--run',
                       tmp_path / 'run.json', '--report', tmp_path / 'report.html')
    assert (code, err) == (0, '')
    page = (tmp_path / 'report.html').read_text()
    assert 'synthetic-001' in page and 'Accuracy' in page and 'no picture' not in page


def test_broken_picture_is_named(capsys, checkpoint, davis):
    root, _ = davis
    picture = sorted((root / 'walk').glob('*.jpg'))[2]
    picture.write_bytes(np.zeros(9, np.uint8).tobytes())
    code, _, err = run(capsys, '--checkpoint', checkpoint, '--davis', root)
    assert code == 2 and picture.name in err and err.count('\n') == 1
