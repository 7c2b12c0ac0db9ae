# SPDX-License-Identifier: Apache-2.0
"""Hold the command-line programs: argument parsing and printing."""
