# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate horizons`, from files to tables and JSON."""
import json
from pathlib import Path

from forecast_detector_ros.jobs.locations import put, Url
import pytest


def test_one_object_sequences(evaluate, checkpoint, davis, tmp_path):
    root, _ = davis
    output = tmp_path / 'result.json'
    code, out, err = evaluate('horizons', '--checkpoint', checkpoint, '--davis', root,
                              '--horizons', '2', '--output', output)
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert result['machine']['backend'] == 'torch'
    (stride,) = result['forecasts']['strides']
    assert set(stride['rows']) == {'read', 'forecast', 'held', 'persistence',
                                   'repeated_boxes', 'constant_velocity', 'true_velocity',
                                   'moved_by_truth'}
    assert [item['horizon'] for item in stride['rows']['forecast']] == [0, 1, 2]
    # An untrained residual forecast equals the last feature.
    assert [item['mean_ratio'] for item in stride['feature_mse']] == [
        pytest.approx(1.0), pytest.approx(1.0)]
    assert 'stride 32, 2 after a read' in out


def test_several_frame_rates_beside_another_checkpoint(evaluate, checkpoint, videos, tmp_path):
    output, tables = tmp_path / 'result.json', tmp_path / 'new/tables.md'
    code, out, err = evaluate('horizons', '--checkpoint', checkpoint, '--annotations', videos,
                              '--stride', '2', '1', '--rows', 'read', 'held', 'forecast',
                              '--beside', f'other={checkpoint}', '--output', output,
                              '--markdown', tables, '--within', '100', '--within-iou', '0.7')
    assert (code, err) == (0, '')
    result = json.loads(output.read_text())
    assert result['stride'] == [2, 1]
    forecasts = result['forecasts']
    assert (forecasts['reads_every'], forecasts['beside']) == (4, {'other': str(checkpoint)})
    limit = forecasts['limit']
    assert (limit['points'], limit['iou'], limit['reached']) == (100.0, '0.7', False)
    assert [item['limit'] for item in limit['strides']] == [
        len(item['loss']) for item in limit['strides']]
    assert 'points of recall at IoU 0.7' in out and 'max_consecutive_forecasts: ' in out
    for stride, wanted in zip(forecasts['strides'], (2, 1), strict=True):
        assert (stride['stride'], stride['sequences']) == (wanted, 2)
        rows = stride['rows']
        assert list(rows) == ['read', 'forecast', 'held', 'other']
        assert rows['other'] == rows['forecast'] and len(rows['read']) == 9
    assert 'IoU 0.5:0.95 over 2 sequences, every 2 frames' in tables.read_text()
    assert out.endswith(f'\n\nwritten: {output}, {tables}\n')


def test_checkpoints_at_urls_are_read_once_per_name(evaluate, checkpoint, davis, monkeypatch):
    for source in (checkpoint, checkpoint.with_suffix('.yaml')):
        put(source, Url(f'memory://horizons/net{source.suffix}'))
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: read.append(path.suffix)
                        or original(path))
    url = 'memory://horizons/net.safetensors'
    code, out, err = evaluate('horizons', '--checkpoint', url, '--davis', davis[0], '--horizons',
                              '1', '--rows', 'forecast', '--beside', f'other={url}', '--json')
    assert (code, err) == (0, '')
    # The command names the checkpoint twice.
    assert read.count('.safetensors') == 2
    result = json.loads(out)
    assert (result['checkpoint'], result['forecasts']['beside']) == (url, {'other': url})
    rows = result['forecasts']['strides'][0]['rows']
    assert rows['other'] == rows['forecast']


def test_sequence_with_a_broken_picture_is_left_out(evaluate, checkpoint, davis):
    root, _ = davis
    (root / 'run').mkdir()
    for path in (root / 'walk').iterdir():
        (root / 'run' / path.name).write_bytes(path.read_bytes())
    picture = sorted((root / 'walk').glob('*.jpg'))[2]
    picture.write_bytes(b'nothing')
    code, out, err = evaluate('horizons', '--checkpoint', checkpoint, '--davis', root,
                              '--horizons', '1', '--rows', 'forecast', '--json')
    assert code == 1 and err.startswith('evaluate horizons: left out: walk: ')
    assert picture.name in err and err.count('\n') == 1
    assert json.loads(out)['forecasts']['strides'][0]['sequences'] == 1


@pytest.mark.parametrize('arguments, message', [
    (('--beside', 'a=no.safetensors'), 'no.safetensors: no such'),
    (('--beside', 'a=x', 'a=y'), "--beside: 'a' stands for two files"),
    (('--within', '2', '--rows', 'read', 'held'), 'needs the rows read and forecast in --rows'),
    (('--rows', 'read', 'true_motion'), 'row true_motion cannot be measured: it needs optical'),
    (('--annotations', 'no.json'), 'no.json: cannot be read')])
def test_bad_input_is_one_line(evaluate, checkpoint, videos, arguments, message):
    code, out, err = evaluate('horizons', '--checkpoint', checkpoint, '--annotations', videos,
                              *arguments)
    assert (code, out, len(err.splitlines())) == (2, '', 1) and message in err


@pytest.mark.parametrize('arguments, words', [
    (('--horizons', '0'), 'must be an integer of at least 1'),
    (('--beside', 'read=x'), 'its name must be none of'),
    (('--beside', 'x'), 'must be NAME=FILE')])
def test_bad_arguments_are_refused(evaluate, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        evaluate('horizons', '--davis', 'x', *arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err
