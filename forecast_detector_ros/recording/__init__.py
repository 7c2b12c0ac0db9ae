# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: frames, drawn pictures, videos, bags and messages."""
