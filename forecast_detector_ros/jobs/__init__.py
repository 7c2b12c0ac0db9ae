# SPDX-License-Identifier: Apache-2.0
"""Many inputs: one job each, done by processes of this machine or by Ray; files at URLs."""
