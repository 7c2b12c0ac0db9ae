# SPDX-License-Identifier: Apache-2.0
"""Teachers that label pictures, and tracks of what they find."""
