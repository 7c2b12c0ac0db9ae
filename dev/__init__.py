# SPDX-License-Identifier: Apache-2.0
"""Hold what only a checkout needs: the set-up of a machine."""
