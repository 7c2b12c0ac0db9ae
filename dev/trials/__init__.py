# SPDX-License-Identifier: Apache-2.0
"""What the trials of the running detector have in common: its process, a client, the judgement."""
