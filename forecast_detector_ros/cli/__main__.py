# SPDX-License-Identifier: Apache-2.0
"""``python -m forecast_detector_ros.cli VERB ...`` runs the program without an installation."""
import sys

from .program import main

if __name__ == '__main__':
    sys.exit(main())
