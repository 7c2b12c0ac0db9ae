# SPDX-License-Identifier: Apache-2.0
"""Pictures are looked for in one folder, unless it is allowed to leave it."""
from pathlib import Path

from forecast_detector_ros.annotations.findings import DataError, Kind
from forecast_detector_ros.annotations.picture_folder import PictureFolder
import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a folder of pictures beside one that nobody is to look into."""
    (tmp_path / 'images/walk').mkdir(parents=True)
    (tmp_path / 'images/walk/1.png').touch()
    (tmp_path / 'secret').mkdir()
    (tmp_path / 'secret/1.png').touch()
    (tmp_path / 'images/file.png').symlink_to(tmp_path / 'secret/1.png')
    (tmp_path / 'images/folder').symlink_to(tmp_path / 'secret')
    (tmp_path / 'images/inner').symlink_to(tmp_path / 'images/walk')
    return tmp_path / 'images'


@pytest.mark.parametrize('name', ['walk/1.png', 'walk/../walk/1.png', 'inner/1.png', 'none.png',
                                  'images..png', 'walk'])
def test_what_lies_within_is_found(root: Path, name: str) -> None:
    assert PictureFolder(root).place(name, 'a.json') == root / name


@pytest.mark.parametrize('name', ['../secret/1.png', 'walk/../../secret/1.png', '..',
                                  '/etc/passwd', 'file.png', 'folder/1.png', 'folder/none.png',
                                  '../images2/a'])
def test_what_leads_out_is_refused_unless_it_is_asked_for(root: Path, name: str) -> None:
    with pytest.raises(DataError, match=r'^a\.json: file_name .* leads out of .*outside') as told:
        PictureFolder(root).place(name, 'a.json')
    assert told.value.kind is Kind.OUTSIDE
    assert PictureFolder(root, outside=True).place(name, 'a.json') == root / name


def test_the_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / 'link'
    link.symlink_to(root)
    assert PictureFolder(link).place('walk/1.png', 'a.json') == link / 'walk/1.png'
    with pytest.raises(DataError, match='leads out'):
        PictureFolder(link).place('../secret/1.png', 'a.json')


@pytest.mark.parametrize('name', ['a' * 256, 'a' * 5000, 'a/' * 2500 + 'a', 'a\0b', 'ö' * 200])
@pytest.mark.parametrize('outside', [False, True])
def test_name_of_no_file_is_one_short_line(root: Path, name: str, outside: bool) -> None:
    with pytest.raises(DataError, match=r'^a\.json: file_name .* cannot be the name') as caught:
        PictureFolder(root, outside).place(name, 'a.json')
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
