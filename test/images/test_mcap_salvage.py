# SPDX-License-Identifier: Apache-2.0
"""Cut MCAP files anywhere: what is whole before the cut comes out again."""

from forecast_detector_ros.images.mcap_salvage import MAGIC, salvage, whole_length
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
from mcap.reader import NonSeekingReader
from mcap.writer import Writer
import pytest

COUNT = 12


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """Write messages in many small chunks; return the bytes of the file."""
    path = tmp_path_factory.mktemp('mcap') / 'whole.mcap'
    with path.open('wb') as stream:
        writer = Writer(stream, chunk_size=150)
        writer.start('ros2')
        schema = writer.register_schema('std_msgs/msg/String', 'ros2msg', b'string data')
        channel = writer.register_channel('/talk', 'cdr', schema)
        for number in range(COUNT):
            writer.add_message(channel, number, bytes([number]) * 40, number)
        writer.finish()
    return path.read_bytes()


def messages(path):
    with path.open('rb') as stream:
        return [message.data[0] for _, _, message in
                NonSeekingReader(stream).iter_messages(log_time_order=False)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_copy_holds_what_lies_before_the_cut(content, tmp_path, data):
    cut = data.draw(st.integers(len(MAGIC), len(content)))
    file, copy = tmp_path / 'cut.mcap', tmp_path / 'copy.mcap'
    file.write_bytes(content[:cut])
    lost = salvage(file, copy)
    assert 0 <= lost <= cut
    assert file.read_bytes() == content[:cut]
    if cut - lost == len(MAGIC):
        return  # Not even the header.
    found = messages(copy)
    # Whatever the reference reader still finds in the file itself is there.
    with file.open('rb') as stream:
        direct = []
        try:
            for _, _, message in NonSeekingReader(stream).iter_messages(log_time_order=False):
                direct.append(message.data[0])
        except Exception:
            pass
    assert found == list(range(len(found))) and len(found) >= len(direct)


def test_whole_file_loses_no_message(content, tmp_path):
    (tmp_path / 'whole.mcap').write_bytes(content)
    salvage(tmp_path / 'whole.mcap', tmp_path / 'copy.mcap')
    assert messages(tmp_path / 'copy.mcap') == list(range(COUNT))


def test_zeros_at_the_end_are_left_behind(content, tmp_path):
    file, copy = tmp_path / 'cut.mcap', tmp_path / 'copy.mcap'
    half = content[:len(content) // 2]
    file.write_bytes(half)
    length = whole_length(file)
    file.write_bytes(half[:length] + bytes(500))
    assert salvage(file, copy) == 500
    assert messages(copy)


def test_other_files_have_no_whole_record(tmp_path):
    (tmp_path / 'text').write_text('something else')
    (tmp_path / 'empty').write_bytes(b'')
    assert whole_length(tmp_path / 'text') == whole_length(tmp_path / 'empty') == 0
