# SPDX-License-Identifier: Apache-2.0
"""Import OpenVINO without its telemetry."""

import sys
from types import ModuleType

_TELEMETRY = 'openvino_telemetry'


def import_openvino() -> ModuleType:
    """
    Import OpenVINO; raises ImportError when it is not installed.

    Its Python package reports each import over the network and writes to the home folder unless
    the user has opted out (https://github.com/openvinotoolkit/telemetry). Where the telemetry
    package is missing it takes a stub that does neither; for the time of the import it is missing.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino
