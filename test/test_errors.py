# SPDX-License-Identifier: Apache-2.0
"""Messages of libraries as one line."""

from forecast_detector_ros.errors import one_line


def test_message_becomes_one_line():
    assert one_line(ValueError('broken\n   at  line 3')) == 'broken at line 3'
    assert one_line(KeyError()) == 'KeyError'
    assert len(one_line(ValueError(1000 * 'x'))) <= 300
