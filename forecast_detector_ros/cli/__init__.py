# SPDX-License-Identifier: Apache-2.0
"""The verbs of the program: they parse arguments and print results."""
