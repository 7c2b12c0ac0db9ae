# SPDX-License-Identifier: Apache-2.0
"""Run the detector over bags: schedule, annotations, results, and sums over many bags."""
