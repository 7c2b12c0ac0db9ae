# SPDX-License-Identifier: Apache-2.0
"""Check the names that the package exports, and the examples of README.md and python.md."""
from importlib.util import find_spec
from pathlib import Path
import re
import subprocess
import sys

import cv2
import forecast_detector_ros
import numpy as np
import pytest
import torch

from .helpers.bags import jpeg_message, write_bag

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / 'README.md', ROOT / 'docs/guide/python.md')

NOTHING_HAPPENS = """
import logging, os, sys
before = dict(os.environ)
import forecast_detector_ros
assert dict(os.environ) == before
assert not {'torch', 'cv2', 'numpy'} & set(sys.modules), 'something heavy is imported'
import cv2, torch
def process():
    return (torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads(),
            cv2.utils.logging.getLogLevel(), logging.getLogger().level,
            logging.getLogger().handlers, torch.backends.cudnn.allow_tf32,
            os.sched_getaffinity(0))
torch.set_num_threads(2)
cv2.setNumThreads(2)
before = process()
backend = sys.argv[1]
detector = forecast_detector_ros.Detector.load('small', backend=backend)
assert detector.backend == backend
assert process() == before, (before, process())
forecast_detector_ros.Detector.load('small', threads=1, backend=backend)
assert torch.get_num_threads() == cv2.getNumThreads() == 1
"""


@pytest.mark.parametrize('backend', ['torch', 'openvino', 'onnxruntime'])
def test_import_and_loading_leave_the_process_as_it_is(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed')
    subprocess.run([sys.executable, '-c', NOTHING_HAPPENS, backend], check=True, cwd=ROOT)


def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path: Path) -> None:
    """An empty folder of this name beside the script must not shadow the package."""
    (tmp_path / 'forecast_detector_ros').mkdir()
    (tmp_path / 'script.py').write_text('from forecast_detector_ros import Detector')
    subprocess.run([sys.executable, 'script.py'], check=True, cwd=tmp_path)


def test_every_offered_name_is_there() -> None:
    assert forecast_detector_ros.__all__ == list(forecast_detector_ros._HOMES)
    for name in forecast_detector_ros.__all__:
        assert getattr(forecast_detector_ros, name).__name__ == name
        assert name in dir(forecast_detector_ros)
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        forecast_detector_ros.__getattr__('Detektor')


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the files that the pages name in a folder, and change to the folder."""
    monkeypatch.chdir(tmp_path)
    pictures = [np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
                for seed in range(6)]
    cv2.imwrite('picture.jpg', pictures[0])
    for name in ('clip.mp4', 'left.mp4', 'right.mp4'):
        writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*'mp4v'), 10.0, (64, 48))
        for picture in pictures:
            writer.write(picture)
        writer.release()
    write_bag(tmp_path / 'recording', {'/camera/image_raw/compressed': [
        jpeg_message(number) for number in range(4)]})
    return tmp_path


def test_every_example_of_the_pages_runs(
    recordings: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    torch.set_num_threads(2)
    printed = {}
    for page in PAGES:
        names: dict[str, object] = {}
        blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
        for number, block in enumerate(blocks):
            exec(compile(block, f'{page.name}, example {number}', 'exec'), names)
            printed[page.stem, number] = capsys.readouterr().out
    assert torch.get_num_threads() == 2
    frames = {place: text.count('read ') + text.count('forecast ')
              for place, text in printed.items()}
    assert frames.pop(('README', 0)) == 6
    assert {page for page, _ in frames} == {'python'} and len(frames) >= 6
    # One line per frame: the clip, a picture, the bag, and two videos together.
    assert [frames['python', number] for number in range(4)] == [6, 1, 4, 6]
    assert all('read ' in printed['python', number] for number in range(4))
