# SPDX-License-Identifier: Apache-2.0
"""Prepare a machine to run and test the package from a checkout."""
