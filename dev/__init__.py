# SPDX-License-Identifier: Apache-2.0
"""Programs of a checkout, which are not installed."""
