# SPDX-License-Identifier: Apache-2.0
"""Read annotated video and images and turn them into training clips."""
