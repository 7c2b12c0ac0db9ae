# SPDX-License-Identifier: Apache-2.0
"""The commands `evaluate streaming` and `evaluate static`, from files to a table and JSON."""
import json


def test_latencies_of_an_earlier_run(evaluate, checkpoint, videos, tmp_path):
    first, second = tmp_path / 'first.json', tmp_path / 'second.json'
    common = ('--checkpoint', checkpoint, '--annotations', videos)
    code, _, err = evaluate(*common, '--policy', 'alternate(1)', '--output', first)
    assert (code, err) == (0, '')
    document = json.loads(first.read_text())
    assert [len(document['latencies_ms'][kind]) for kind in ('read', 'forecast')] == [6, 4]
    arguments = ('streaming', *common, '--rates', '10', '1000', '--policies', 'always_read',
                 'alternate(1)', '--outputs', 'present', 'ahead', '--latencies', first,
                 '--output', second)
    code, out, err = evaluate(*arguments)
    assert (code, err) == (0, '')
    streaming = json.loads(second.read_text())['streaming']
    assert (streaming['latencies'], streaming['seed']) == (str(first), 0)
    runs = [(item['policy'], item['output'], item['rate']) for item in streaming['runs']]
    assert runs == [(policy, output, rate) for policy in ('always_read', 'alternate(1)')
                    for output in ('present', 'ahead') for rate in (10, 1000)]
    assert 'streaming' in out and 'alternate(1)' in out
    evaluate(*arguments)
    assert json.loads(second.read_text())['streaming'] == streaming


def test_defaults_of_policy_and_rates(evaluate, checkpoint, videos):
    code, out, err = evaluate('streaming', '--checkpoint', checkpoint, '--annotations', videos,
                              '--sequences', 'synthetic-001', '--json')
    assert (code, err) == (0, '')
    runs = json.loads(out)['streaming']['runs']
    assert [(run['policy'], run['rate']) for run in runs] == [
        ('threshold(0.5)', rate) for rate in (5, 10, 15, 30, 60)]
    assert list(runs[0]['sequences']) == ['synthetic-001']


def test_file_without_latencies_is_one_line(evaluate, checkpoint, videos):
    code, out, err = evaluate('streaming', '--checkpoint', checkpoint, '--annotations', videos,
                              '--latencies', 'none.json')
    assert (code, out, len(err.splitlines())) == (2, '', 1)
    assert 'none.json: cannot be read' in err


def test_parts_of_one_video_are_one_sequence(evaluate, checkpoint, videos):
    code, out, _ = evaluate('streaming', '--checkpoint', checkpoint, '--annotations', videos,
                            '--sequences', 'synthetic-001', '--stride', '2', '--rates', '10',
                            '--policies', 'always_read', 'alternate(1)', '--json')
    assert code == 0
    for run in json.loads(out)['streaming']['runs']:
        difference = run['difference']
        # The bootstrap can draw only the one sequence, so the interval has no width.
        assert difference['low'] == difference['high'] == difference['mean']


def test_read_ratio_of_a_still_scene_beside_that_of_the_video(
        evaluate, checkpoint, videos, tmp_path):
    output = tmp_path / 'result.json'
    code, out, err = evaluate('static', '--checkpoint', checkpoint, '--annotations', videos,
                              '--policy', 'alternate(2)', '--frames', '4', '--output', output)
    assert (code, err) == (0, '')
    static = json.loads(output.read_text())['static']
    # Two of four still frames are read; of five video frames, the first and the fourth.
    assert (static['frames'], static['mean']) == (4, 0.5)
    assert static['moving'] == {'synthetic-000': 0.4, 'synthetic-001': 0.4}
    *_, mean, _, last = out.splitlines()
    assert mean.split() == ['mean', '0.500', '0.400'] and last == f'written: {output}'
