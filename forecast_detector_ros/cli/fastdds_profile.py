# SPDX-License-Identifier: Apache-2.0
"""The environment in which Fast DDS carries large images between processes without loss."""
from __future__ import annotations

from importlib import metadata
import os

from ..files import find_share

PROFILE = 'config/fastdds_large_images.xml'
BEFORE_RENAMING = ('humble', 'iron', 'jazzy')


def profile_environment() -> dict[str, str]:
    """
    Return the variable that points Fast DDS at the profile, for the images' publisher.

    Raises FileNotFoundError when the profile is not installed.
    """
    return {profile_variable(): str(find_share(PROFILE))}


def profile_variable() -> str:
    """
    Return the name of the variable: it was renamed after Jazzy.

    Kilted knows both names but loads the file twice, with errors, when both are set.
    """
    distribution = os.environ.get('ROS_DISTRO')
    if distribution is None:
        # From wheels: Jazzy's rclpy is 7, Kilted's 9.
        try:
            distribution = 'jazzy' if int(metadata.version('rclpy').split('.')[0]) < 8 else ''
        except metadata.PackageNotFoundError:
            distribution = ''
    prefix = 'FASTRTPS' if distribution in BEFORE_RENAMING else 'FASTDDS'
    return f'{prefix}_DEFAULT_PROFILES_FILE'
