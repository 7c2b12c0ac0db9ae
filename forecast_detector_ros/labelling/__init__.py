# SPDX-License-Identifier: Apache-2.0
"""Label pictures by a teacher, and follow objects through a video."""
