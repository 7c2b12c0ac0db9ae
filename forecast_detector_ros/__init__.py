# SPDX-License-Identifier: Apache-2.0
"""
Detect objects in video, reading only the frames that need it.

``Detector.load().stream()`` gives something to call with one picture after the other;
docs/guide/python.md shows more. Names are imported when they are first used.
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
    """Import what is asked for; raises AttributeError for a name that is not offered."""
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the offered names, too."""
    return sorted({*globals(), *_HOMES})
