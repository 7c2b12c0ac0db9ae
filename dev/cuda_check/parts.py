# SPDX-License-Identifier: Apache-2.0
"""One part of the check, in its own process; `__main__.py` formats the results."""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
import platform
import re
import subprocess
import sys
from time import monotonic
from typing import Any
import xml.etree.ElementTree as ElementTree

ROOT = Path(__file__).resolve().parents[2]

LIBRARIES = ('torch', 'torchvision', 'triton', 'numpy', 'cv2', 'onnx', 'onnxruntime', 'tensorrt',
             'openvino')


@dataclass
class Part:
    """The arguments of a part, and its results so far."""

    output: Path
    deadline: float  #: By the clock `monotonic`, seconds
    dry_run: bool
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        """Return the device that is checked."""
        return 'cpu' if self.dry_run else 'cuda'

    @property
    def left(self) -> float:
        """Seconds until the process is ended."""
        return self.deadline - monotonic()

    def save(self) -> None:
        """Write the results so far, so that they are not lost if the process is ended."""
        text = json.dumps({'facts': self.facts, 'tables': self.tables, 'notes': self.notes})
        temporary = self.output.with_suffix('.tmp')
        temporary.write_text(text)
        temporary.replace(self.output)

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Add a row to a table."""
        self.tables.setdefault(table, []).append(row)
        self.save()

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """Run `work` and return its result; if it fails, add a note and return None."""
        try:
            return work()
        except Exception as error:  # Any error must leave the other rows.
            reason = ' '.join(str(error).split())[:300]
            self.notes.append(f'{what}: {type(error).__name__}: {reason}')
            self.save()
            return None


def machine(part: Part) -> None:
    """Add the versions of the libraries, and the device."""
    from importlib import import_module

    import torch

    part.facts.update({'python': platform.python_version(), 'system': platform.platform()})
    for name in LIBRARIES:
        try:
            part.facts[name] = getattr(import_module(name), '__version__', 'unknown')
        except Exception as error:  # An error of the import is a result, too.
            part.facts[name] = f'none ({type(error).__name__})'
    part.facts['CUDA of PyTorch'] = torch.version.cuda
    part.save()
    if part.dry_run:
        part.facts['device'] = 'the processor'
        return
    properties = torch.cuda.get_device_properties(0)
    part.facts.update({
        'device': properties.name, 'memory GiB': round(properties.total_memory / 2 ** 30, 1),
        'capability': '.'.join(map(str, torch.cuda.get_device_capability(0))),
        'multiprocessors': properties.multi_processor_count,
        'cuDNN': torch.backends.cudnn.version(), 'architectures': torch.cuda.get_arch_list()})
    part.save()
    found = subprocess.run(
        ['nvidia-smi', '--query-gpu=driver_version,clocks.max.sm,power.limit,utilization.gpu',
         '--format=csv,noheader'], capture_output=True, text=True, timeout=10, check=False)
    part.facts['driver, clock, power, use'] = found.stdout.strip()
    from forecast_detector_ros.detector.backends.torch_backend import resolve_device
    part.facts['device auto'] = str(resolve_device('auto'))


def tests(part: Part) -> None:
    """Run the tests that are marked for CUDA."""
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob('test/*/test_cuda*.py'))
    report = part.output.with_suffix('.xml')
    chosen = (['-k', 'rows or arithmetic or captured'] if part.dry_run else ['-m', 'cuda'])
    code = subprocess.run(
        [sys.executable, '-m', 'pytest', *files, *chosen, '--noconftest', '-q',
         '-p', 'no:cacheprovider', f'--junitxml={report}'], cwd=ROOT, check=False).returncode
    suite = next(ElementTree.parse(report).iter('testsuite'))
    part.facts.update({key: int(suite.get(key, '0'))
                       for key in ('tests', 'failures', 'errors', 'skipped')})
    for case in suite.iter('testcase'):
        for kind in ('failure', 'error'):
            for wrong in case.findall(kind):
                message = re.sub(r'\s+', ' ', wrong.get('message', ''))[:300]
                part.notes.append(f'{case.get("name")}: {message}')
    part.save()
    if code:
        print(f'pytest ended with code {code}')
        sys.exit(1)


def main(args: Sequence[str] | None = None) -> int:
    """Run one part."""
    from dev.cuda_check import measured

    works: dict[str, Callable[[Part], None]] = {
        'machine': machine, 'tests': tests, 'precisions': measured.precisions,
        'speed': measured.speed, 'preprocess': measured.preprocess,
        'compile': measured.compile_steps, 'onnx': measured.onnx}
    parser = argparse.ArgumentParser(prog='cuda_check.parts', description=__doc__)
    parser.add_argument('part', choices=tuple(works))
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--dry-run', action='store_true')
    options = parser.parse_args(args)
    part = Part(options.output.absolute(), monotonic() + options.seconds, options.dry_run)
    part.save()
    works[options.part](part)
    part.save()
    return 0


if __name__ == '__main__':
    sys.exit(main())
