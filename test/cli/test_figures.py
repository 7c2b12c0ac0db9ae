# SPDX-License-Identifier: Apache-2.0
"""The verb `figures`, from videos to pictures and numbers."""

import csv
import json

import cv2
from forecast_detector_ros.cli import figures
import numpy as np
import pytest
from scipy.io import savemat

from ..helpers.pages import undocumented


@pytest.fixture
def run(capsys, tmp_path):
    """Return a function that runs the command and returns exit code, numbers, rows and text."""
    def call(name, *arguments):
        code = figures.main([name, '--output', str(tmp_path / 'new'),
                                   *map(str, arguments)])
        out, err = capsys.readouterr()
        if code:
            assert not (tmp_path / 'new').exists()
            return code, None, None, err
        document = json.loads((tmp_path / f'new/{name}.json').read_text())
        # Keys of a reproduction's results are seeds, rows and policies.
        assert undocumented({**document, 'results': None}, 'Figures', '`evaluate`',
                            'Comparisons and benchmark') == set()
        with open(tmp_path / f'new/{name}.csv', newline='') as file:
            rows = list(csv.DictReader(file))
        picture = cv2.imread(str(tmp_path / f'new/{name}.png'))
        assert (picture is not None) == (name in ('fig4', 'fig5', 'streaming', 'reproduction'))
        return code, document, rows, out
    return call


def test_table_1(run, checkpoint, videos):
    code, document, rows, out = run('table1', '--annotations', videos, '--checkpoint',
                                    f'mine={checkpoint}', '--policies', 'alternate(1)')
    assert code == 0 and document['measure'] == 'AP50'
    assert [(row['model'], row['policy'], row['read_ratio']) for row in rows] == [
        ('mine', 'alternate(1)', '0.6')]
    assert document['video']['frames'] == 10 and document['machine']['threads'] == 1
    assert '1 thread' in out and rows[0]['device'].endswith('1 thread')


def test_table_2(run, checkpoint, videos):
    code, document, rows, out = run('table2', '--annotations', videos, '--checkpoint',
                                    f'a={checkpoint}', f'a={checkpoint}', f'b={checkpoint}')
    assert code == 0 and len(document['rows']) == 3
    assert [(row['model'], row['trainings']) for row in rows] == [('a', '2'), ('b', '1')]
    assert rows[0]['accuracy'] == rows[1]['accuracy']
    assert (rows[0]['accuracy_sd'], rows[1]['accuracy_sd']) == ('0.0', '')
    assert 'slow' in out and '± 0.000' in out


def test_figure_4(run, checkpoint, videos):
    code, document, rows, _ = run('fig4', '--annotations', videos, '--checkpoint', checkpoint,
                                  '--policy', 'alternate(1)', '--every', '3')
    assert code == 0
    assert [(row['sequence'], row['frame'], row['decision']) for row in rows] == [
        (f'synthetic-00{video}', frame, kind) for video in (0, 1)
        for frame, kind in (('1', 'forecast'), ('4', 'read'))]
    assert sum(frame['boxes'] for frame in document['frames']) == len(document['boxes'])


def test_figure_5_with_recorded_latencies(run, checkpoint, videos, tmp_path):
    (tmp_path / 'run.json').write_text(json.dumps(
        {'latencies_ms': {'read': [30, 50], 'forecast': [10]}}))
    code, document, rows, out = run(
        'fig5', '--annotations', videos, '--checkpoint', checkpoint, '--thresholds', '0.2',
        '--max-consecutive-forecasts', '1', '--latencies', tmp_path / 'run.json')
    assert code == 0
    assert [row['policy'] for row in rows if row['features'] == 'forecast'] == [
        'always_read', 'alternate(1)', 'threshold(0.2)', 'threshold(0.5)']
    assert float(rows[0]['fps']) == pytest.approx(25.0)
    assert [item['policy'] for item in document['equal_read_ratio']] == [
        'threshold(0.2)', 'threshold(0.5)']
    assert 'threshold(0.5) (shipped)' in out


def test_figure_5_at_a_lower_frame_rate(run, checkpoint, videos, tmp_path):
    (tmp_path / 'run.json').write_text(json.dumps(
        {'latencies_ms': {'read': [40], 'forecast': [10]}}))
    code, document, rows, _ = run(
        'fig5', '--annotations', videos, '--checkpoint', checkpoint, '--thresholds', '0.2',
        '--max-consecutive-forecasts', '1', '--latencies', tmp_path / 'run.json',
        '--stride', '5')
    assert code == 0 and document['stride'] == 5
    # The record has the precision of the features, not the value of the option.
    assert document['machine']['precision'] == 'fp32'
    # With a stride of 5 each thinned sequence has one frame, so nothing is forecast.
    assert {row['read_ratio'] for row in rows} == {'1.0'}


def test_figure_6_makes_a_picture_a_sequence(run, checkpoint, videos, tmp_path):
    code, document, rows, _ = run('fig6', '--annotations', videos, '--checkpoint', checkpoint,
                                  '--frames', '2')
    assert code == 0
    assert sorted(path.name for path in (tmp_path / 'new').glob('*.png')) == [
        'fig6_synthetic-000.png', 'fig6_synthetic-001.png']
    assert {row['rule'] for row in rows} == {'threshold(0.5)', 'alternate(1)',
                                             'last read feature'}
    first = document['maps']['synthetic-000'][0]
    assert np.array(first['error']).shape == (2, 3)
    assert float(rows[0]['mean_error']) == pytest.approx(np.mean(first['error']), abs=1e-3)


def test_streaming_is_repeatable_with_recorded_latencies(run, checkpoint, videos, tmp_path):
    (tmp_path / 'run.json').write_text(json.dumps(
        {'latencies_ms': {'read': [30, 50], 'forecast': [10]}}))
    arguments = ('streaming', '--annotations', videos, '--checkpoint', checkpoint, '--rates', '5',
                 '100', '--latencies', tmp_path / 'run.json')
    code, document, rows, _ = run(*arguments)
    assert code == 0
    assert [(row['policy'], float(row['rate'])) for row in rows] == [
        (policy, rate) for policy in ('always_read', 'alternate(1)', 'threshold(0.5)')
        for rate in (5, 100)]
    assert 'ap50' in rows[0]
    assert run(*arguments)[1]['runs'] == document['runs']


def test_motion_of_the_published_file(run, tmp_path):
    cells = np.empty((3, 1), object)
    cells[:, 0] = [np.array([[1.0], [0.9]]), np.zeros((0, 0)), np.array([[0.7, 0.2]])]
    savemat(tmp_path / 'motion.mat', {'motion_iou': cells})
    (tmp_path / 'VID_val_videos.txt').write_text('val/one 1 0 3\n')
    code, document, rows, out = run('motion', '--motion-iou', tmp_path / 'motion.mat')
    assert code == 0 and '1 videos, 3 frames, 4 boxes' in out
    assert out.endswith(f'\n\nwritten: {tmp_path}/new/motion.json, motion.csv\n')
    # A box whose motion IoU is a bound is in both groups.
    assert [(row['motion'], row['boxes'], row['fraction']) for row in rows] == [
        ('slow', '2', '0.5'), ('medium', '2', '0.5'), ('fast', '2', '0.5')]


def test_motion_of_a_file_without_boxes_is_one_line(run, tmp_path):
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.zeros((0, 0))
    savemat(tmp_path / 'motion.mat', {'motion_iou': cells})
    (tmp_path / 'VID_val_videos.txt').write_text('val/one 1 0 1\n')
    code, _, _, err = run('motion', '--motion-iou', tmp_path / 'motion.mat')
    assert (code, err) == (2, f'figures: {tmp_path}/motion.mat: has no boxes\n')


@pytest.mark.parametrize('arguments', [['--json', 'motion'], ['motion', '--json']])
def test_numbers_are_printed_as_json(tmp_path, capsys, arguments):
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.array([[1.0], [0.9]])
    savemat(tmp_path / 'motion.mat', {'motion_iou': cells})
    (tmp_path / 'VID_val_videos.txt').write_text('val/one 1 0 1\n')
    assert figures.main([*arguments, '--motion-iou', str(tmp_path / 'motion.mat'),
                         '--output', str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tmp_path / 'motion.json').read_text())


def test_means_of_a_reproduction(run, tmp_path):
    figures = {'ap50': 0.5, 'slow': 0.5, 'medium': 0.5, 'fast': 0.5, 'read_ratio': 1.0}
    (tmp_path / 'results.json').write_text(json.dumps({
        'recipe': 'tiny', 'seeds': [0], 'sequences': ['a'], 'frames': 3, 'boxes': 4,
        'results': {'0': {'baseline': {'always_read': figures}}}}))
    code, _, rows, out = run('reproduction', '--results', tmp_path / 'results.json')
    assert code == 0 and '| baseline | 50.0 |' in out
    assert [(row['row'], row['ap50']) for row in rows] == [('baseline', '0.5')]


@pytest.mark.parametrize(('arguments', 'message'), [
    (('table1', '--annotations', 'none.json'), 'none.json: cannot be read'),
    (('fig4', '--start', '5'), 'has 5 frames, so none from 5 on'),
    (('fig6', '--level', '1'), 'level is 1; the network has 1'),
    (('table2', '--protocol', 'coco'), 'coco is not split by motion'),
    (('fig5', '--latencies', 'none.json'), 'none.json: cannot be read')])
def test_bad_input_is_one_line(run, checkpoint, videos, arguments, message):
    name, *more = arguments
    if '--annotations' not in more:
        more += ['--annotations', videos]
    code, _, _, err = run(name, '--checkpoint', checkpoint, *more)
    assert code == 2 and message in err and err.count('\n') == 1


def test_figure_6_needs_features_that_are_forecast(run, videos, tmp_path):
    document = json.loads(videos.read_text())
    document['categories'][0]['name'] = 'dog'
    dogs = tmp_path / 'dogs.json'
    dogs.write_text(json.dumps(document))
    code, _, _, err = run('fig6', '--annotations', dogs, '--images', videos.parent,
                          '--checkpoint', 'small')
    assert code == 2 and 'small forecasts the motion of boxes' in err and err.count('\n') == 1
