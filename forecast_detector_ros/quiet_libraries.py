# SPDX-License-Identifier: Apache-2.0
"""Import ONNX Runtime and OpenVINO without their telemetry."""
import os
import sys
from types import ModuleType


def import_onnxruntime() -> ModuleType:
    """
    Import ONNX Runtime; raises ImportError when it is not installed.

    It keeps telemetry in the home folder unless an environment variable says otherwise; a value
    that the user has set stays.
    """
    os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
    import onnxruntime
    return onnxruntime


_TELEMETRY = 'openvino_telemetry'


def import_openvino() -> ModuleType:
    """
    Import OpenVINO; raises ImportError when it is not installed.

    By default its Python package reports each import over the network and writes to the home
    folder (https://github.com/openvinotoolkit/telemetry). Without the telemetry package it uses a
    stub that does neither. So the package is hidden during the import.
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
