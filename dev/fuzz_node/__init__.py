# SPDX-License-Identifier: Apache-2.0
"""Send running detectors what no friend would send, and see whether they go on as before."""
