# SPDX-License-Identifier: Apache-2.0
"""Start a Ray cluster on this machine for the tests of a file."""

import os
from pathlib import Path

import pytest

from ..helpers.clusters import started_cluster


@pytest.fixture(scope='module')
def ray_cluster():
    """Start a cluster whose head runs no jobs; its workers can import the tests' work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]))
        with started_cluster() as cluster:
            yield cluster
