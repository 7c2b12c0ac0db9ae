# SPDX-License-Identifier: Apache-2.0
"""What is known of pictures: annotation files are read, checked and written."""
