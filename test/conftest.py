# SPDX-License-Identifier: Apache-2.0
"""Give every test a ROS graph of its own."""
from collections.abc import Callable, Iterator
from contextlib import ExitStack
import itertools
import os
import socket

import pytest

#: Domains whose ports lie below those that Linux hands out to clients.
DOMAINS = 101

# Neighbouring processes start at different places, and a domain is not used twice in a row.
_candidates = itertools.count(os.getpid())


def claim_domain(holder: ExitStack) -> int:
    """
    Return a ROS domain id that no other test holds, in this process or another.

    It is held until `holder` is closed: by a socket in Linux's abstract name space, which leaves
    no file and ends with the process.
    """
    for candidate in itertools.islice(_candidates, 2 * DOMAINS):
        domain = 1 + candidate % DOMAINS
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f'\0forecast_detector_ros/domain/{domain}')
        except OSError:
            claim.close()
            continue
        holder.enter_context(claim)
        return domain
    raise RuntimeError(f'all {DOMAINS} ROS domains are in use by tests')


@pytest.fixture
def new_domain() -> Iterator[Callable[[], int]]:
    """Return a function that claims a further ROS domain for the duration of the test."""
    with ExitStack() as holder:
        yield lambda: claim_domain(holder)


@pytest.fixture(autouse=True)
def ros_domain(
    new_domain: Callable[[], int], monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> int:
    """Put the test, and the processes that it starts, alone on a ROS graph; return its domain."""
    domain = new_domain()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path_factory.mktemp('ros_log')))
    return domain
