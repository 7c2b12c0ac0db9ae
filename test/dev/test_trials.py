# SPDX-License-Identifier: Apache-2.0
"""The client of the trials; `make trials` runs the trials themselves."""
from types import SimpleNamespace

from dev.trials.client import Client


def test_client_waits_no_longer_than_asked() -> None:
    waits: list[float] = []
    client = Client.__new__(Client)
    client._executor = SimpleNamespace(spin_once=lambda timeout_sec: waits.append(timeout_sec))
    client.spin_for(0.01)
    # Otherwise the camera of a trial is slower than its rate.
    assert waits and max(waits) <= 0.01
