# SPDX-License-Identifier: Apache-2.0
"""Send hostile messages to running detectors, and check that their answers do not change."""
