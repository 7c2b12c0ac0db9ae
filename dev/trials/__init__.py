# SPDX-License-Identifier: Apache-2.0
"""The common parts of the trials of a running detector: process, client and judgement."""
