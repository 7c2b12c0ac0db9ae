# SPDX-License-Identifier: Apache-2.0
"""What everything costs, side by side with its rivals."""
