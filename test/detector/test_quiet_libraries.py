# SPDX-License-Identifier: Apache-2.0
"""Check that the back-ends' libraries send no reports and leave nothing at home."""
from importlib.util import find_spec
import os
from pathlib import Path
import subprocess
import sys

import pytest

OPENVINO = """
import sys
from forecast_detector_ros.detector.host import import_openvino
openvino = import_openvino()
assert openvino is sys.modules['openvino']
assert openvino.Core().available_devices
assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]
"""

ONNXRUNTIME = """
from forecast_detector_ros.detector.host import import_onnxruntime
onnxruntime = import_onnxruntime()
assert onnxruntime.get_available_providers()
"""


@pytest.mark.parametrize(('library', 'code'), [
    pytest.param('openvino', OPENVINO, id='openvino'),
    pytest.param('onnxruntime', ONNXRUNTIME, id='onnxruntime')])
def test_import_leaves_nothing_at_home(tmp_path: Path, library: str, code: str) -> None:
    if find_spec(library) is None:
        pytest.skip(f'{library} is not installed')
    # In CI some libraries would be silent anyway.
    variables = {name: value for name, value in os.environ.items()
                 if name not in ('CI', 'ORT_DISABLE_TELEMETRY')}
    subprocess.run([sys.executable, '-c', code], check=True,
                   env={**variables, 'HOME': str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
