# SPDX-License-Identifier: Apache-2.0
"""Copy files and folders to URLs and back; check the errors of unusable URLs."""

import os
from pathlib import Path
import sys

from forecast_detector_ros.errors import InputError, MissingLibraryError
from forecast_detector_ros.jobs import locations
from forecast_detector_ros.jobs.locations import (
    fetch,
    fetched,
    kept,
    list_files,
    location,
    LocationError,
    pack,
    picture_store,
    put,
    unpack,
    Url,
)
import pytest


@pytest.fixture
def folder(tmp_path):
    """Write a folder with some files in it."""
    made = tmp_path / 'made'
    for name in ('boxes.json', 'walk/0.jpg', 'walk/1.JPG', 'walk/deep/notes.txt', '.mark'):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(f'content of {name}')
    return made


@pytest.fixture(params=['memory', 'file'])
def root(request, tmp_path):
    """Return the URL of a place that does not exist yet."""
    if request.param == 'file':
        return Url(f'file://{tmp_path}/store')
    fsspec = pytest.importorskip('fsspec')
    system = fsspec.filesystem('memory')
    system.store.clear()
    system.pseudo_dirs[:] = ['']
    return Url('memory://store')


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.rglob('*') if path.is_file()}


def test_argument_is_a_path_or_a_url():
    assert location('a/b') == Path('a/b') and isinstance(location('a/b'), Path)
    url = location('s3://bucket/night/bag.mcap')
    assert isinstance(url, Url) and (url.name, url.stem) == ('bag.mcap', 'bag')
    assert Url('s3://bucket/night/').name == 'night'


def test_folder_is_copied_to_a_url_and_back(folder, root, tmp_path):
    put(folder, root)
    copy = fetch(root, tmp_path / 'copy')
    assert copy.name == 'store' and contents(copy) == contents(folder)
    assert list(list_files(root)) == sorted(contents(folder))


def test_file_is_copied_to_a_url_and_back(folder, root, tmp_path):
    url = Url(f'{root}/a/b.json')
    put(folder / 'boxes.json', url)
    assert list(list_files(url)) == ['b.json']
    with fetched(url) as path:
        assert path.name == 'b.json' and path.read_text() == 'content of boxes.json'
    assert not path.exists()


def test_pictures_can_be_fetched_later(folder, root):
    picture_store.cache_clear()
    put(folder, root)
    store = picture_store(root)
    copy = store.folder
    assert (copy / 'walk/0.jpg').read_bytes() == (copy / 'walk/1.JPG').read_bytes() == b''
    assert (copy / 'walk/deep/notes.txt').read_text() == 'content of walk/deep/notes.txt'
    with store.fetched([copy / 'walk/1.JPG', copy / 'walk/0.jpg']) as paths:
        assert [path.read_text() for path in paths] == ['content of walk/1.JPG',
                                                        'content of walk/0.jpg']
    assert not paths[0].exists() and picture_store(root) is store
    with pytest.raises(LocationError, match='cannot be read'):
        store.fetched([copy / 'walk/2.jpg']).__enter__()
    with pytest.raises(InputError) as caught, store.fetched([copy / 'walk/0.jpg']) as (path,):
        raise InputError(f'{path}: is broken')
    assert str(caught.value) == f'{root}/walk/0.jpg: is broken'


def test_kept_copy_is_made_once_with_the_card(folder, root, monkeypatch):
    kept.cache_clear()
    for name in ('net.safetensors', 'net.yaml'):
        put(folder / 'boxes.json', Url(f'{root}/{name}'))
    path = kept(Url(f'{root}/net.safetensors'))
    assert {item.name for item in path.parent.iterdir()} == {'net.safetensors', 'net.yaml'}
    monkeypatch.setattr(locations, 'fetch', None)
    assert kept(Url(f'{root}/net.safetensors')) == path
    assert kept(Path('here')) == Path('here')


def test_error_names_the_url_and_not_the_copy(folder, root):
    put(folder, root)
    with pytest.raises(InputError) as caught, fetched(Url(f'{root}/boxes.json')) as path:
        raise InputError(f'{path}: is no bag')
    assert str(caught.value) == f'{root}/boxes.json: is no bag'


@pytest.mark.parametrize('url, words', [
    ('file:///no/such/folder', 'no such file or folder'),
    ('nothing://x', 'nothing'),
    ('s3', 's3'),
])
def test_url_that_cannot_be_read_is_one_line(tmp_path, url, words):
    with pytest.raises(LocationError, match=words) as caught:
        fetch(Url(url), tmp_path)
    assert str(caught.value).startswith(f'{url}: ') and '\n' not in str(caught.value)


def test_url_that_cannot_be_written_is_one_line(folder, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(LocationError, match='file/out: cannot be written: ') as caught:
        put(folder, Url(f'file://{tmp_path}/file/out'))
    assert '\n' not in str(caught.value)


def test_name_that_leaves_the_folder_is_refused(root, monkeypatch):
    class System:

        def isfile(self, root):
            return False

        def find(self, root):
            return [f'{root}/../stolen']

    monkeypatch.setattr(locations, '_system', lambda url: (System(), 'store'))
    with pytest.raises(LocationError, match='would leave the folder'):
        list_files(root)


def test_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fsspec', None)
    with pytest.raises(MissingLibraryError, match=r'pip install forecast_detector_ros\[cloud\]'):
        list_files(Url('s3://bucket'))


def test_folder_is_packed_and_unpacked(folder, tmp_path):
    # Some machines have no clock at start, so their files have times of 1970.
    os.utime(folder / 'boxes.json', (0, 0))
    unpack(pack(folder), tmp_path / 'there')
    assert contents(tmp_path / 'there') == contents(folder)
