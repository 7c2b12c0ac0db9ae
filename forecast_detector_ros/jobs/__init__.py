# SPDX-License-Identifier: Apache-2.0
"""Run a job for each input in processes of this machine or with Ray; read and write URLs."""
