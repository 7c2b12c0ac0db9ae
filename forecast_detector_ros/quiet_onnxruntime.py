# SPDX-License-Identifier: Apache-2.0
"""Import ONNX Runtime without its telemetry."""

import os
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
