# SPDX-License-Identifier: Apache-2.0
"""The programs for developers refuse bad input in one line."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAINING = 'dev.timed_training config/training/synthetic.yaml --data . --output {new} --seconds'


@pytest.mark.parametrize(('line', 'words'), [
    ('dev.animate', 'required: video, picture'),
    ('dev.animate none.mkv {new}', 'none.mkv: no video that can be read'),
    ('dev.clip_bag none.mp4 {new}', 'none.mp4: no pictures'),
    ('dev.clip_bag none.mp4 {there}', 'there: exists already'),
    (f'{TRAINING} baseline', "value: 'baseline'"),
    (f'{TRAINING} basline=5', 'synthetic.yaml has no stage basline, but baseline'),
])
def test_mistake_is_one_line(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / 'there').mkdir()
    arguments = line.format(new=tmp_path / 'new', there=tmp_path / 'there').split()
    done = subprocess.run([sys.executable, '-m', *arguments], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode in (1, 2) and done.stdout == ''
    assert words in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr
    assert not (tmp_path / 'new').exists()
