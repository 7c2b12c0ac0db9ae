# SPDX-License-Identifier: Apache-2.0
"""Let a detector work as on a robot for hours, and see whether it stays as it was."""
