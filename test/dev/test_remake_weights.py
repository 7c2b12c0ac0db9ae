# SPDX-License-Identifier: Apache-2.0
"""The order in which checkpoints are trained; a script instead of Python records its calls."""

from pathlib import Path
import subprocess

import pytest

SCRIPT = Path(__file__).parents[2] / 'dev' / 'remake_weights.sh'

#: Records the verb and its arguments, and writes a checkpoint of every last stage
NOTE = """#!/usr/bin/env bash
echo "${@:3}" >> "$(dirname "$0")/calls"
while [[ $# -gt 0 && $1 != --output ]]; do shift; done
if [[ -n ${2-} ]]; then
    mkdir -p "$2"
    for name in scheduler motion; do
        touch "$2/$name.yaml"
        echo "$2" > "$2/$name.safetensors"
    done
fi
"""


def test_each_checkpoint_is_trained_and_exported(tmp_path):
    python = tmp_path / 'python'
    python.write_text(NOTE)
    python.chmod(0o755)
    runs = tmp_path / 'runs'
    subprocess.run([SCRIPT, python, '/data', 'backbone.pt', runs], check=True)
    made = runs / 'checkpoints'
    start = made / 'default.safetensors'

    def export(name):
        checkpoint = made / f'{name}.safetensors'
        return [f'export --package --checkpoint {checkpoint}',
                f'export --checkpoint {checkpoint} --int8 --images /data '
                '--calibrate /data/teacher/train_video.json --calibration-frames 300']

    assert (tmp_path / 'calls').read_text().splitlines() == [
        f'train config/training/default.yaml --data /data --output {runs}/default '
        '--backbone backbone.pt', *export('default'),
        f'train config/training/small.yaml --data /data --output {runs}/small --start {start}',
        *export('small'),
        f'train config/training/large.yaml --data /data --output {runs}/large --start {start}',
        *export('large')]
    for name in ('default', 'small', 'large'):
        assert (made / f'{name}.safetensors').read_text() == f'{runs}/{name}\n'
        assert (made / f'{name}.yaml').exists()


@pytest.mark.parametrize('arguments', [['python', '', 'backbone.pt', 'runs'],
                                       ['python', 'data', '', 'runs'], []])
def test_missing_argument_is_named(arguments):
    result = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1 and 'make weights DATA=folder' in result.stderr
