# SPDX-License-Identifier: Apache-2.0
"""The real detector node in a process of its own, and what the kernel knows about it."""
from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import re
import sys

from forecast_detector_ros.cli.graph import Child, profile_environment

#: Above those that people use, below those whose ports Linux hands out to clients.
FIRST_DOMAIN, DOMAINS = 52, 50

_OWN_MEMORY = re.compile(r'^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB', re.MULTILINE)
_TICKS = os.sysconf('SC_CLK_TCK')


def set_environment(domain: int | None, folder: Path) -> int:
    """Put this process and its children on a graph of their own; return its domain."""
    chosen = FIRST_DOMAIN + os.getpid() % DOMAINS if domain is None else domain
    os.environ.update({
        'ROS_DOMAIN_ID': str(chosen), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_LOG_DIR': str(folder / 'ros'), 'PYTHONUNBUFFERED': '1', **profile_environment()})
    return chosen


class NodeProcess(Child):
    """A detector node that configures and activates itself."""

    def __init__(self, namespace: str, folder: Path, parameters: Mapping[str, object]) -> None:
        """Start it in `namespace` with `parameters`; its log goes into `folder`."""
        command = [sys.executable, '-m', 'forecast_detector_ros.node.detector_node',
                   '--ros-args', '-r', f'__ns:={namespace}', '-p', 'autostart:=true']
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        super().__init__('detector', command, folder / f'{namespace.strip("/")}.log',
                         dict(os.environ))

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

    def processor_s(self) -> float:
        """Return the seconds of processor time that it has used; 0 when it has ended."""
        try:
            # Behind the name, which may have blanks; proc(5), fields 14 and 15.
            fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def text(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors='replace')
