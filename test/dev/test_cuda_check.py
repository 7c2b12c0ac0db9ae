# SPDX-License-Identifier: Apache-2.0
"""The check of a CUDA device, as a dry run on the processor."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_machine_without_onnxruntime_is_a_note_and_no_failure(tmp_path):
    (tmp_path / 'onnxruntime.py').write_text("raise ImportError('No onnxruntime')\n")
    done = subprocess.run(
        ['sh', str(ROOT / 'dev/cuda_check.sh'), '--dry-run', '--limit', '3600', '--parts', 'onnx',
         '--output', str(tmp_path / 'out')], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'out/cuda_check.json').read_text())
    part = report['parts']['onnx']
    assert part['status'] == 'done' and not part['tables']
    assert part['notes'] == ['no onnx and onnxruntime here; not measured: No onnxruntime']
    table = (tmp_path / 'out/cuda_check.md').read_text()
    assert table.startswith('# A dry run on the processor') and part['notes'][0] in table
    assert table.strip() == done.stdout.strip()
