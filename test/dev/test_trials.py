# SPDX-License-Identifier: Apache-2.0
"""The trials that stay, for a quarter of a minute each, with the real node in its own process."""
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

#: For machines that are busy with something else: what is too slow there is no failure.
UNHURRIED = ('--callback', '60', '--growth', '10', '--warm-up', '5', '--backend', 'torch')


def run(name: str, domain: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', f'dev.{name}', '--domain', str(domain), '--logs', *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False)


def test_node_holds_against_hostile_messages(ros_domain: int) -> None:
    # The seed decides what is sent: within so many messages, every kind of trouble.
    done = run('fuzz_node', ros_domain, '--seed', '1', '--messages', '4000', *UNHURRIED)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
    assert done.stdout.endswith('\nheld\n')
    for trouble in ('request', 'life cycle', 'transition'):
        assert f' {trouble}' in done.stdout


def test_node_stays_as_it_was_in_front_of_a_camera(ros_domain: int) -> None:
    done = run('soak', ros_domain, '--seconds', '15', *UNHURRIED)
    assert done.returncode == 0, f'{done.stdout}\n{done.stderr}'
    assert done.stdout.endswith('\nheld\n')


def test_client_waits_no_longer_than_asked() -> None:
    from dev.trials.client import Client
    waits: list[float] = []
    client = Client.__new__(Client)
    client._executor = SimpleNamespace(spin_once=lambda timeout_sec: waits.append(timeout_sec))
    client.spin_for(0.01)
    # Otherwise the camera of a trial is slower than its rate.
    assert waits and max(waits) <= 0.01
