# SPDX-License-Identifier: Apache-2.0
"""Losses, clip steps, stages, schedules, snapshots: training the network."""
