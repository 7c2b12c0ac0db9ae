# SPDX-License-Identifier: Apache-2.0
"""The real detector node in a process of its own, and what the kernel knows about it."""
from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import re

from forecast_detector_ros.cli.graph import Child, environment, node_command

_OWN_MEMORY = re.compile(r'^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB', re.MULTILINE)


def set_environment(domain: int | None, folder: Path) -> int:
    """Put this process and its children on a graph of their own; return its domain."""
    os.environ.update(environment(folder, domain))
    return int(os.environ['ROS_DOMAIN_ID'])


class NodeProcess(Child):
    """A detector node that configures and activates itself."""

    def __init__(self, namespace: str, folder: Path, parameters: Mapping[str, object]) -> None:
        """Start it in `namespace` with `parameters`; its log goes into `folder`."""
        command = node_command('detector_node', {'autostart': 'true', **parameters})
        super().__init__('detector', [*command, '-r', f'__ns:={namespace}'],
                         folder / f'{namespace.strip("/")}.log', os.environ)

    def memory(self) -> float:
        """
        Return the memory in bytes that is not that of mapped files; 0 when the process has ended.

        Pages of libraries come and go with what else the machine does (proc(5), status).
        """
        try:
            text = Path(f'/proc/{self.pid}/status').read_text()
        except OSError:
            return 0.0
        return 1024.0 * sum(map(int, _OWN_MEMORY.findall(text)))

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors='replace')
