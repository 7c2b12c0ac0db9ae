# SPDX-License-Identifier: Apache-2.0
"""A detector over annotated video: accuracy, read ratio, horizons, streaming."""
