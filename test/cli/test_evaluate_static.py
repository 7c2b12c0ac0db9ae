# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate static`, from files to a table and JSON."""
import json


def test_read_ratio_of_a_still_scene_beside_that_of_the_video(
        evaluate, checkpoint, videos, tmp_path):
    output = tmp_path / 'result.json'
    code, out, err = evaluate('static', '--checkpoint', checkpoint, '--annotations', videos,
                              '--policy', 'alternate(2)', '--frames', '4', '--output', output)
    assert (code, err) == (0, '')
    static = json.loads(output.read_text())['static']
    # Two in four; of five frames of video the first and the fourth.
    assert (static['frames'], static['mean']) == (4, 0.5)
    assert static['moving'] == {'synthetic-000': 0.4, 'synthetic-001': 0.4}
    assert out.splitlines()[-1].split() == ['mean', '0.500', '0.400']
