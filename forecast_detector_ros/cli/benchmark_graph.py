# SPDX-License-Identifier: Apache-2.0
"""The end-to-end half of `benchmark`: camera process, DDS, node, detections and back."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from .demo_graph import DemoOptions, environment, NODES
from .graph_processes import Child, ChildError
from ..benchmark.steps import SIZES

POLICIES = ('always_read', 'alternate(1)', 'forecast')
"""`forecast` reads the first frame alone."""

LONGEST_S = 400.0
"""For one measurement, the start of the detector included."""


@dataclass(frozen=True)
class GraphOptions:
    """What is measured end to end."""

    source: Path
    """Video that the pictures are from."""

    detector: Mapping[str, str]
    """Parameters of the detector, name -> value as in `-p name:=value`."""

    sizes: Sequence[str] = tuple(SIZES)
    transports: Sequence[str] = ('raw', 'compressed')
    frames: int = 240
    """Pictures that count, of each measurement."""

    warm_up: int = 60
    """Pictures before them."""

    rate: float = 30.0


def measure_graph(options: GraphOptions, folder: Path,
                  progress: Callable[[str], object] = lambda _: None) -> list[dict[str, Any]]:
    """
    Measure the detector, and a subscriber that does nothing, for every transport and size.

    Parameters
    ----------
    options:
        See there.
    folder:
        For the logs of the processes; exists.
    progress:
        Called with what is measured next.

    Returns
    -------
    list
        One row a measurement: what it was (`node`, `transport`, `size`, `policy`) and what
        `benchmark_camera` found.

    Raises
    ------
    ChildError
        If a process fails.

    """
    rows = []
    variables = environment(DemoOptions(str(options.source)), folder)
    for transport in options.transports:
        for node, module, parameters, policies in (
                ('detector', 'detector_node', {'autostart': 'true', **options.detector}, POLICIES),
                ('bare', 'bare_subscriber', {}, ('none',))):
            command = [sys.executable, '-m', f'{NODES}.{module}', '--ros-args']
            for key, value in {'image_transport': transport, **parameters}.items():
                command += ['-p', f'{key}:={value}']
            child = Child(node, command, folder / f'{node}_{transport}.log', variables)
            try:
                for size in options.sizes:
                    for policy in policies:
                        progress(f'{node}, {size}, {transport}, {policy}')
                        figures = _camera(options, child, transport, size, policy, variables)
                        child.check()
                        rows.append({'node': node, 'transport': transport, 'size': size,
                                     'policy': policy, 'rate': options.rate, **figures})
            finally:
                child.end()
    return rows


def _camera(options: GraphOptions, child: Child, transport: str, size: str, policy: str,
            variables: Mapping[str, str]) -> dict[str, Any]:
    height, width = SIZES[size]
    command = [sys.executable, '-m', f'{NODES}.benchmark_camera', '--ros-args']
    for key, value in {
            'source': f"'{options.source}'", 'height': height, 'width': width,
            'rate': repr(float(options.rate)), 'frames': options.frames,
            'warm_up': options.warm_up,
            'image_transport': transport, 'pid': child.pid,
            'policy': "''" if policy == 'none' else policy}.items():
        command += ['-p', f'{key}:={value}']
    try:
        done = subprocess.run(command, env=dict(variables), capture_output=True, text=True,
                              timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise ChildError(f'the camera was not done after {LONGEST_S:g} s') from None
    if done.returncode != 0:
        child.check()
        raise ChildError(f'the camera ended with exit code {done.returncode}: '
                         f'{" ".join(done.stderr.split())[-500:]}; the {child.name}: '
                         f'{child.last_words()}')
    return json.loads(done.stdout.strip().splitlines()[-1])
