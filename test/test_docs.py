# SPDX-License-Identifier: Apache-2.0
"""Check the documentation: links, pictures, pages of the site, and references to pages."""
from pathlib import Path
import re
import subprocess

from dev import draw_docs
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(page for page in DOCS.rglob('*.md') if '_build' not in page.parts)
MARKDOWN = [*PAGES, *sorted(ROOT.glob('*.md'))]

#: Pages that programs write, or that quote the output of programs.
GENERATED = {'commands.md', 'benchmark.md'}

#: First words of lines in blocks of bash; a new program is added here.
PROGRAMS = {'cd', 'colcon', 'dev/cuda_check.sh', 'docker', 'done', 'export', 'for',
            'forecast-detector', 'git', 'make', 'pip', 'python', 'ray', 'ros2', 'rosdep', 'source',
            'sudo', 'torchrun'}


def prose(page: Path) -> str:
    """Return the text of a page without blocks of code."""
    return re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, named as by GitHub and MyST."""
    found: dict[str, int] = {}
    for heading in re.findall(r'^#+ (.*)$', prose(page), re.MULTILINE):
        text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
        slug = re.sub(r'[^\w\- ]', '', text).replace(' ', '-')
        found[slug] = found.get(slug, -1) + 1
    return {f'{slug}-{number}' if number else slug
            for slug, last in found.items() for number in range(last + 1)}


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to missing files or anchors of the repository."""
    broken = []
    for link in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        if '://' not in link and not (
                target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize('page', MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_have_targets(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text('# One `thing`\n[a](#one-thing) [b](#two) [c](gone.md) [d](page.md#one-thing)')
    assert broken_links(page) == ['#two', 'gone.md']


def test_pages_that_files_name_exist() -> None:
    files = subprocess.run(
        ['git', 'ls-files', '*.py', '*.yaml', '*.rst', 'Makefile'], cwd=ROOT, check=True,
        capture_output=True, text=True).stdout.split()
    named = {(name, page) for name in files if (ROOT / name).is_file()
             for page in re.findall(r'\bdocs/[\w/]+\.md\b', (ROOT / name).read_text())}
    assert named
    assert {(name, page) for name, page in named if not (ROOT / page).is_file()} == set()


def test_every_page_is_in_the_site() -> None:
    listed = re.findall(r'^(\w+/\w+)$', (DOCS / 'index.md').read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.relative_to(DOCS).with_suffix('').as_posix()
                           for page in PAGES if page.name != 'index.md'}


@pytest.mark.parametrize('page', [page for page in PAGES if page.name not in GENERATED],
                         ids=lambda page: page.relative_to(DOCS).as_posix())
def test_lines_of_prose_have_at_most_99_columns(page: Path) -> None:
    assert [line for line in prose(page).splitlines()
            if len(line) > 99 and not line.startswith(('|', '!['))] == []


def lines_without_command(page: Path) -> list[str]:
    """Return the lines of blocks of bash that do not begin with a program."""
    blocks = re.findall(r'^```bash\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [re.sub(r'^(\w+=\S+ )+', '', line) for block in blocks
             for line in block.replace('\\\n', '').splitlines()]
    return [line for line in lines
            if line and not line.startswith('#') and line.split()[0] not in PROGRAMS]


@pytest.mark.parametrize('page', MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lines_of_bash_begin_with_a_command(page: Path) -> None:
    assert lines_without_command(page) == []


def test_a_block_that_was_rewrapped_like_prose_is_found(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text('```bash\nA=1 B=2 cd x && make \\\n    y\n# note\ncd z pip install\n'
                    '--quiet that # as it is\nfaster\n```\n')
    assert lines_without_command(page) == ['--quiet that # as it is', 'faster']


@pytest.mark.parametrize('name', draw_docs.PICTURES)
def test_pictures_match_the_code(name: str) -> None:
    assert (DOCS / 'images' / name).read_text() == draw_docs.PICTURES[name](), \
        f'docs/images/{name} is behind: python -m dev.draw_docs'
