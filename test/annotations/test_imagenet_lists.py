# SPDX-License-Identifier: Apache-2.0
"""Lists of frames, snippets and pictures."""

import gzip

from forecast_detector_ros.annotations.findings import Collected, DataError, Kind, Strict
from forecast_detector_ros.annotations.imagenet_lists import read_pictures, read_snippets
import pytest


def write(tmp_path, text, name='list.txt'):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith('.gz') else text.encode())
    return path


def frames(path):
    return {name: (listed.frames, listed.count)
            for name, listed in read_snippets(path, Strict()).items()}


@pytest.mark.parametrize('name', ['list.txt', 'list.txt.gz'])
def test_frames_of_snippets_with_their_number(tmp_path, name):
    path = write(tmp_path, 'train/b 1 10 300\ntrain/b 1 30 300\n\ntrain/a 1 0 20', name)
    assert frames(path) == {'train/b': ([10, 30], 300), 'train/a': ([0], 20)}


def test_one_line_a_snippet_at_frame_0_means_whole_snippets(tmp_path):
    path = write(tmp_path, 'val/a 1 0 464\nval/b 465 0 82\n')
    assert frames(path) == {'val/a': (None, 464), 'val/b': (None, 82)}


def test_lists_of_the_development_kit(tmp_path):
    path = write(tmp_path, 'v/a/000000 1\nv/a/000001 2\nv/b/000000 3\n')
    assert frames(path) == {'v/a': ([0, 1], None), 'v/b': ([0], None)}
    path = write(tmp_path, 'train_0000/snippet_00000000 1\n')
    assert frames(path) == {'train_0000/snippet_00000000': (None, None)}


def test_damaged_archive_is_one_line(tmp_path):
    path = write(tmp_path, 'a 1 0 300\n' * 99, 'list.txt.gz')
    content = bytearray(path.read_bytes())
    content[12:20] = b'\xff' * 8
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'list\.txt\.gz: cannot be read'):
        frames(path)


@pytest.mark.parametrize('line, words', [
    ('a 1 300 300', 'line 2: frame 300 of 300; frames count from 0'),
    ('a 1 -1 300', 'line 2: frame -1 of 300'),
    ('a 1 0 1700000000000', 'line 2: a snippet of 1700000000000 frames; their numbers have 6'),
    ('a', "line 2: is 'a'; it must be a path and 1 or 3 whole numbers"),
    ('a 1 x 300', 'line 2: is'),
    ('a 1 2', 'line 2: is'),
    ('a 1 2 200', 'line 2: a has 200 frames here, but 300 in an earlier line'),
])
def test_a_wrong_line_is_named(tmp_path, line, words):
    path = write(tmp_path, f'a 1 0 300\n{line}\nb 1 0 20\n')
    with pytest.raises(DataError) as caught:
        read_snippets(path, Strict())
    assert str(caught.value).startswith(f'{path}: {words}')
    findings = Collected()
    assert list(read_snippets(path, findings)) == ['a', 'b']
    assert sum(findings.counts.values()) == 1


def test_pictures_are_taken_once(tmp_path):
    findings = Collected()
    path = write(tmp_path, 'train/x/n1 1\ntrain/x/n2 1\ntrain/x/n1 1\n')
    assert list(read_pictures(path, findings)) == ['train/x/n1', 'train/x/n2']
    assert findings.lines == {Kind.LISTED_TWICE: [f'{path}: line 3: train/x/n1 again']}
    with pytest.raises(DataError, match='line 1: .* it must be a path and a number'):
        read_pictures(write(tmp_path, 'train/x 1 10 300\n'), Strict())


@pytest.mark.parametrize('name, content, words', [
    ('absent.txt', None, 'cannot be read: No such file'),
    ('list.txt.gz', b'plain text', 'cannot be read: Not a gzipped file'),
    ('cut.txt.gz', gzip.compress(b'a 1 0 300' * 100, mtime=0)[:-20], 'cannot be read'),
    ('list.txt', b'\xff\xfe', 'not a text file'),
    ('list.txt', b'\n\n', 'empty')])
def test_an_unreadable_list_is_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_snippets(path, Strict())
    message = str(caught.value)
    assert message.startswith(str(path)) and words in message and '\n' not in message
