#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Source the distribution and the workspace, then run what was asked for.
set -e
. "/opt/ros/$ROS_DISTRO/setup.sh"
. /workspace/install/setup.sh
exec "$@"
