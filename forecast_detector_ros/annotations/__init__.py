# SPDX-License-Identifier: Apache-2.0
"""What is known of pictures: reading, checking and writing annotation files."""
