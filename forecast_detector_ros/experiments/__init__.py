# SPDX-License-Identifier: Apache-2.0
"""The paper's tables and figures, its reproduction, and comparisons of designs."""
