# SPDX-License-Identifier: Apache-2.0
"""A run as its JSON file has it, with figures that are easy to reckon with."""
from __future__ import annotations

from typing import Any

import pytest


def timing(name: str, median_ms: float, group: str = 'step', **more: Any) -> dict[str, Any]:
    return {'name': name, 'group': group, 'backend': '', 'precision': 'fp32', 'threads': 1,
            'batch': 1, 'macs': None, 'runs': 60, 'median_ms': median_ms,
            'p95_ms': 1.1 * median_ms, 'noise': 0.01, **more}


def graph(node: str, transport: str, policy: str, cpu: float, **more: Any) -> dict[str, Any]:
    return {'node': node, 'size': '1080p', 'transport': transport, 'policy': policy,
            'rate': 30.0, 'published': 240, 'cpu_ms_per_frame': cpu, 'cores': cpu * 0.03, **more}


@pytest.fixture
def run() -> dict[str, Any]:
    """Give a run in which every target was measured."""
    answers = {'lost': 0, 'latency_p50_ms': 20.0, 'latency_p95_ms': 25.0, 'read_ratio': 0.5}
    return {
        'default_backend': 'openvino', 'read_ratio': 0.5, 'rounds': 60, 'skipped': ['a: why'],
        'command': 'benchmark', 'versions': {'torch': '2', 'gone': None},
        'machine': {'processor': 'a processor', 'cores': 2, 'load_1min': 0.1},
        'timings': [
            timing('read step openvino fp32', 14.0, macs=700 * 10**6),
            timing('forecast step openvino fp32', 2.0, macs=80 * 10**6),
            timing('read step torch fp32', 35.0), timing('forecast step torch fp32', 7.0),
            timing('read step onnxruntime fp32', 16.0),
            timing('read step openvino bf16', 7.0), timing('read step openvino int8', 8.0),
            timing('plain SSDLite openvino fp32', 13.0, 'peer'),
            timing('ssdlite320_mobilenet_v3_large openvino', 12.0, 'peer'),
            timing('yolo11n 320 openvino', 20.0, 'peer'),
            timing('yolo11n 640 openvino', 80.0, 'peer'),
            timing('read step openvino fp32 x4', 42.0, 'batch', batch=4),
            timing('forecast step openvino fp32 x4', 8.0, 'batch', batch=4),
            timing('preprocess 720p', 0.3, 'part'), timing('post-process', 0.25, 'part'),
            timing('GEMM fp32', 20.0, 'probe', macs=1024**3)],
        'start': [
            {'cache': 'cold', 'starts': 1, 'seconds': 3.0, 'cpu_seconds': 3.5, 'memory_mb': 310.0},
            {'cache': 'warm', 'starts': 5, 'seconds': 2.5, 'cpu_seconds': 2.25,
             'memory_mb': 300.0}],
        'graph': [
            graph('detector', 'raw', 'always_read', 19.0, **answers),
            graph('detector', 'raw', 'alternate(1)', 12.0, **answers),
            graph('detector', 'raw', 'forecast', 6.5, **answers),
            graph('detector', 'compressed', 'always_read', 24.0, **answers),
            graph('detector', 'compressed', 'forecast', 3.0, **answers),
            graph('bare', 'raw', 'none', 4.0)]}
