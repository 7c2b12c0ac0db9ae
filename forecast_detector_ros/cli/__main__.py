# SPDX-License-Identifier: Apache-2.0
"""``python -m forecast_detector_ros.cli VERB ...`` is the program where it is not installed."""
import sys

from .program import main

if __name__ == '__main__':
    sys.exit(main())
