# SPDX-License-Identifier: Apache-2.0
"""Train the network: losses, targets, schedules and the trainer."""
