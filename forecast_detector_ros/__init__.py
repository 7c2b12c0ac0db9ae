# SPDX-License-Identifier: Apache-2.0
"""
Detect objects in video, reading only the frames that need it.

``Detector.load().stream()`` returns a `Stream`, which is called with each picture in turn:
docs/guide/python.md. A name is imported at its first use.
"""

from importlib import import_module
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from .detector.detector import Detector, StepResult
    from .detector.open_stream import step_together, Stream
    from .detector.policy import Decision
    from .detector.processing import Detections
    from .detector.settings import DetectorSettings
    from .errors import InputError

#: The module of each name that the package offers.
_HOMES = {
    'Decision': 'detector.policy',
    'Detections': 'detector.processing',
    'Detector': 'detector.detector',
    'DetectorSettings': 'detector.settings',
    'InputError': 'errors',
    'StepResult': 'detector.detector',
    'Stream': 'detector.open_stream',
    'step_together': 'detector.open_stream',
}
__all__ = [
    'Decision', 'Detections', 'Detector', 'DetectorSettings', 'InputError', 'StepResult', 'Stream',
    'step_together',
]


def __getattr__(name: str) -> Any:
    """Import an offered name at its first use; raises AttributeError for another name."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List all names, also those that are not imported yet."""
    return sorted({*globals(), *_HOMES})
