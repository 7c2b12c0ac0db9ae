# SPDX-License-Identifier: Apache-2.0
"""Training of the network: losses, clip steps, stages, schedules, snapshots."""
