# SPDX-License-Identifier: Apache-2.0
"""Names of sequences that come from several inputs."""

import argparse

from forecast_detector_ros.annotations.synthetic import CLASSES
from forecast_detector_ros.cli.inputs import add_videos, load_videos
from forecast_detector_ros.evaluation.sequences import EvaluationError
import pytest


@pytest.fixture
def load(videos, tmp_path):
    """Return a function that loads copies of one annotation file and returns the names."""
    def run(*names):
        parser = argparse.ArgumentParser()
        add_videos(parser)
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(videos.read_text())
        options = parser.parse_args(['--images', str(videos.parent), '--annotations',
                                     *(str(tmp_path / name) for name in names)])
        return [item.name for item in load_videos(options, CLASSES)]
    return run


@pytest.mark.parametrize(('files', 'names'), [
    (['a.json'], ['']),
    (['a/x.json', 'a/y.json'], ['x/', 'y/']),
    (['a/x.json', 'b/x.json'], ['a/x/', 'b/x/']),
    (['a/x.json', 'b/x.json', 'b/y.json'], ['a/x/', 'b/x/', 'y/'])])
def test_sequences_get_distinct_names(load, files, names):
    assert load(*files) == [f'{name}synthetic-00{number}' for name in names for number in (0, 1)]


@pytest.mark.parametrize('files', [['a.json', 'a.json'], ['b/a/x.json', 'c/a/x.json']])
def test_sequences_without_distinct_names_are_refused(load, files):
    with pytest.raises(EvaluationError, match='synthetic-000 is in two of the inputs'):
        load(*files)
