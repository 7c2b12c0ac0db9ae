# SPDX-License-Identifier: Apache-2.0
"""
Measure the layers of both steps in OpenVINO, for one stream and for a batch in one graph.

One thread, fp32. OpenVINO's counters are means, so the machine must have no other work.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from forecast_detector_ros.detector.backends.graph_backend import step_names, STEPS
from forecast_detector_ros.detector.backends.openvino_backend import CompiledStep, OPTIONS
from forecast_detector_ros.detector.backends.registry import graphs_for
from forecast_detector_ros.detector.checkpoint import default_checkpoint, read_checkpoint
from forecast_detector_ros.detector.host import import_openvino
from forecast_detector_ros.layout import table
import numpy as np

ROUNDS = 20


def layer_times(run: CompiledStep, names: tuple[list[str], list[str]]
                ) -> dict[str, tuple[str, float]]:
    """Return type and microseconds of each layer that runs, by its name."""
    def arrays(keys: list[str], ports: list[Any]) -> dict[str, np.ndarray]:
        return {key: np.ones(tuple(port.shape), port.element_type.to_dtype())
                for key, port in zip(keys, ports, strict=True)}

    feeds = arrays(names[0], run.request.model_inputs)
    found = arrays(names[1], run.request.model_outputs)
    means: list[dict[str, tuple[str, float]]] = []
    for rounds in (1, ROUNDS):
        for _ in range(rounds):
            run(feeds, found)
        means.append({layer.node_name: (layer.node_type, layer.real_time.total_seconds() * 1e6)
                      for layer in run.request.get_profiling_info()
                      if layer.status.name == 'EXECUTED'})
    first, mean = means
    # The mean includes the first run, which is slower, so it is subtracted. The first run lacks
    # layers that took no time.
    return {name: (kind, ((ROUNDS + 1) * value - first.get(name, ('', 0.0))[1]) / ROUNDS)
            for name, (kind, value) in mean.items()}


def compare(one: dict[str, tuple[str, float]], many: dict[str, tuple[str, float]], batch: int
            ) -> list[tuple[str, str, str, str, str]]:
    """Return type, name and microseconds per stream of the layers, the slowest first."""
    both = sorted((name for name in one if name in many), key=lambda name: -one[name][1])
    rows = [(one[name][0], name, one[name][1], many[name][1] / batch) for name in both]
    totals = [sum(value for _, value in layers.values()) for layers in (one, many)]
    rows.insert(0, ('', 'all layers', totals[0], totals[1] / batch))
    return [(kind, name[-60:], f'{alone:.0f}', f'{shared:.0f}',
             f'{shared / alone:.2f}' if alone >= 1.0 else '')
            for kind, name, alone, shared in rows]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--checkpoint', type=Path, default=default_checkpoint())
    parser.add_argument('--batch', type=int, default=4, help='default: %(default)s')
    parser.add_argument('--layers', type=int, default=20, help='shown; default: %(default)s')
    options = parser.parse_args()
    model = graphs_for(read_checkpoint(options.checkpoint))
    openvino = import_openvino()
    core = openvino.Core()
    settings = {**OPTIONS, 'INFERENCE_NUM_THREADS': '1', 'INFERENCE_PRECISION_HINT': 'f32',
                'PERF_COUNT': 'YES'}
    for step in STEPS:
        names = step_names(model.layout, step)
        one, many = (layer_times(
            CompiledStep(openvino, core, model.graphs[step], names, batch, settings), names)
            for batch in (1, options.batch))
        print(table(('type', 'layer', 'alone us', f'of {options.batch} us', 'ratio'),
                    compare(one, many, options.batch)[:options.layers + 1], title=f'\n{step}'))


if __name__ == '__main__':
    main()
