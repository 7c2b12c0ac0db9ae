# SPDX-License-Identifier: Apache-2.0
"""Results are replaced as a whole, and no other files are deleted."""
from pathlib import Path

from forecast_detector_ros.cli.results import ResultFolder
from forecast_detector_ros.errors import InputError
import pytest


def names(folder: Path) -> list[str]:
    """Return the names in a folder, except that of the mark."""
    return sorted(path.name for path in folder.iterdir() if path.name != ResultFolder.MARK)


def test_result_appears_when_it_is_accepted(tmp_path: Path) -> None:
    result = ResultFolder(tmp_path / 'out')
    (result.partial / 'new').touch()
    assert names(tmp_path) == ['out.part']
    result.accept()
    assert names(tmp_path) == ['out']
    assert names(tmp_path / 'out') == ['new']


def test_result_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    first = ResultFolder(tmp_path / 'out')
    (first.partial / 'old').touch()
    first.accept()
    second = ResultFolder(tmp_path / 'out')
    (second.partial / 'new').touch()
    assert names(tmp_path / 'out') == ['old']
    second.accept()
    assert names(tmp_path) == ['out']
    assert names(tmp_path / 'out') == ['new']


def test_backup_of_an_earlier_result_stays(tmp_path: Path) -> None:
    for number in range(3):
        result = ResultFolder(tmp_path / 'out')
        (result.partial / f'{number}').touch()
        result.accept()
        if number == 0:
            (tmp_path / 'out').rename(tmp_path / 'out.old')
    assert names(tmp_path) == ['out', 'out.old']
    assert names(tmp_path / 'out') == ['2'] and names(tmp_path / 'out.old') == ['0']


def test_next_run_clears_results_of_an_interrupted_run(tmp_path: Path) -> None:
    (ResultFolder(tmp_path / 'out').partial / 'half').touch()
    assert names(ResultFolder(tmp_path / 'out').partial) == []


def test_discarded_results_leave_those_of_an_earlier_run(tmp_path: Path) -> None:
    first = ResultFolder(tmp_path / 'out')
    (first.partial / 'old').touch()
    first.accept()
    ResultFolder(tmp_path / 'out').discard()
    assert names(tmp_path) == ['out'] and names(tmp_path / 'out') == ['old']


def test_root_of_the_file_system_is_refused() -> None:
    with pytest.raises(FileExistsError, match='^/: .*--output'):
        ResultFolder('/')


@pytest.mark.parametrize('taken', ['out', 'out.part', '.out.old'])
def test_folder_of_somebody_else_is_left_alone(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).mkdir()
    (tmp_path / taken / 'thesis.tex').touch()
    with pytest.raises(FileExistsError, match='no result of an earlier run'):
        ResultFolder(tmp_path / 'out')
    assert names(tmp_path / taken) == ['thesis.tex']


def test_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'out').write_text('precious')
    with pytest.raises(FileExistsError):
        ResultFolder(tmp_path / 'out')
    assert (tmp_path / 'out').read_text() == 'precious'


def test_folder_below_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    with pytest.raises(InputError, match='^--output file/out: cannot be written: file is a file'):
        ResultFolder('file/out')


def test_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / 'out').mkdir()
    result = ResultFolder(tmp_path / 'out')
    (result.partial / 'new').touch()
    result.accept()
    assert names(tmp_path) == ['out']


def test_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out').symlink_to(tmp_path / 'disk/results')
    for name in ('first', 'second'):
        result = ResultFolder(tmp_path / 'out')
        (result.partial / name).touch()
        result.accept()
    assert (tmp_path / 'out').is_symlink() and names(tmp_path / 'out') == ['second']
    assert names(tmp_path / 'disk') == ['results']


def test_folder_that_another_run_is_writing_is_left_alone(tmp_path: Path) -> None:
    first = ResultFolder(tmp_path / 'out')
    (first.partial / 'half').touch()
    with pytest.raises(FileExistsError, match='another run is writing there'):
        ResultFolder(tmp_path / 'out')
    assert names(first.partial) == ['half']
    first.accept()
    ResultFolder(tmp_path / 'out').accept()
