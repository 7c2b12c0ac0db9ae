# SPDX-License-Identifier: Apache-2.0
"""The time of the detector and its parts, compared with other detectors."""
