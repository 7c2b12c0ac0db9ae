# SPDX-License-Identifier: Apache-2.0
"""Teachers that label pictures, and tracks of the objects that they find."""
