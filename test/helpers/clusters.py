# SPDX-License-Identifier: Apache-2.0
"""Ray clusters whose nodes are processes of this machine."""

from contextlib import contextmanager
import os
import time
from types import SimpleNamespace
from unittest.mock import patch

import pytest

STORE_BYTES = 100 * 2 ** 20

# A busy machine is not a lost one: processes get minutes to start and to answer.  A node that is
# killed refuses the connection, and is noticed as soon as before.
PATIENCE = {'health_check_timeout_ms': 60_000, 'worker_register_timeout_seconds': 300}


@contextmanager
def started_cluster():
    """Start a cluster whose head has no room for work; skip the test where Ray is missing."""
    pytest.importorskip('ray', reason='Ray is not installed: pip install ray')
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        patiently(lambda: cluster.add_node(
            num_cpus=0, object_store_memory=STORE_BYTES, include_dashboard=False,
            _system_config=PATIENCE))
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster, cpus):
    """Add a node with room for as many tasks."""
    return patiently(lambda: cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES))


def patiently(start):
    """
    Start a node that holds on a busy machine.

    The 30 s that Ray gives a node to start are ten minutes here. Its workers have the priority of
    other processes: by default any process beside them gets 30 times their part of a core.
    """
    from ray._private import node

    slow = SimpleNamespace(**{**vars(time), 'monotonic': lambda: time.monotonic() / 20})
    with patch.object(node, 'time', slow), patch.dict(os.environ, RAY_worker_niceness='0'):
        return start()
