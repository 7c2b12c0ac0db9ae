# SPDX-License-Identifier: Apache-2.0
"""Check the report as text and in a browser: complete, self-contained, readable on a phone."""

from dataclasses import replace
from html.parser import HTMLParser
import os
import re
import sys
from xml.etree import ElementTree

import cv2
from forecast_detector_ros.report import html_report
from forecast_detector_ros.report.html_report import (
    load_for_report,
    LoadedRun,
    render_report,
    WIDE,
    write_report,
)
from forecast_detector_ros.report.report_figures import as_svg, FIGURES
from forecast_detector_ros.report.run_record import Identities, RunRecordError, save_run
import numpy as np
import pytest

from .chromium import chromium, MISSING, PROGRAM
from ..helpers.runs import hostile, noted, run, two_sequences


@pytest.fixture
def loaded(tmp_path):
    """Return a run with two noted frames; the picture of one is missing."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    return LoadedRun(run(noted=(noted('a.png'), noted('gone.png', number=3))), tmp_path, 'first')


@pytest.fixture
def quick(monkeypatch):
    """Replace the figures, which take time, in tests that do not need them."""
    monkeypatch.setattr(html_report, 'as_svg', lambda draw, run, width: '<svg/>')


def other(loaded):
    record = replace(two_sequences(), title='two', settings={'policy': 'alternate(1)'})
    return LoadedRun(record, loaded.folder, 'second')


class Outline(HTMLParser):
    """Note the references of a page, its open elements, and its text."""

    def __init__(self):
        super().__init__()
        self.references, self.open, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.references += [values[key] for key in ('src', 'srcset', 'href') if key in values]
        if tag not in ('meta', 'link', 'source', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def outline(text):
    parsed = Outline()
    parsed.feed(text)
    parsed.close()
    assert parsed.open == []
    return parsed, ' '.join(' '.join(parsed.words).split())


def test_one_run_has_every_part(quick, loaded):
    parsed, words = outline(render_report([loaded]))
    assert all(item.startswith(('data:', '#')) for item in parsed.references)
    for name in ('decisions', 'latency', 'classes', 'accuracy', 'frames', 'ran'):
        assert f'#{name}' in parsed.references
    assert 'model small, policy threshold(0.5)' in words
    # Rows of the overview, latencies by decision, accuracy by class, and boxes by class.
    for row in ('5 frames', '0.500 read ratio', '41.5 ms p50 of a read', '0.250 AP50',
                'read 2 41.5 41.5 42.7 42.9 43.0 43.0', 'dog 3 3 0.500', 'train 0 1 –',
                'walk 5 0.500 4 0.500', 'cores 2'):
        assert row in words, row
    assert 'no picture: ' in words and 'gone.png: is missing' in words


def test_objects_are_counted_and_measured_if_they_are_known(quick, loaded):
    parsed, words = outline(render_report([loaded]))
    assert '#objects' in parsed.references
    # Frames have the object numbers 7 and 8, but the true objects are unknown.
    assert '2 objects numbered' in words and 'walk 2' in words and 'IDF1 HOTA' not in words
    known = Identities(40, 3, 2, -0.25, 0.5, 0.4, 0.3, 0.6)
    walk = loaded.record.sequences[0]
    record = replace(loaded.record, identities=known, sequences=(
        replace(walk, identities=known), replace(walk, name='again')))
    words = outline(render_report([replace(loaded, record=record)]))[1]
    for row in ('2 identity switches', '0.500 IDF1', '0.400 HOTA', '4 objects numbered',
                'walk 2 3 2 -0.250 0.500 0.400', 'again 2 – – – – –',
                'all 4 3 2 -0.250 0.500 0.400'):
        assert row in words, row


def test_run_without_numbers_has_no_section_of_objects(quick, loaded):
    (walk,) = loaded.record.sequences
    frames = tuple(replace(frame, ids=()) for frame in walk.frames)
    record = replace(loaded.record, sequences=(replace(walk, frames=frames),))
    parsed, words = outline(render_report([replace(loaded, record=record)]))
    assert '#objects' not in parsed.references and 'objects numbered' not in words


#: Text that ends an attribute and an element and runs scripts by an element and an attribute. Its
#: last three characters are invalid in HTML and SVG.
ATTACK = '"><img src=x onerror=alert(1)><script>alert(1)</script>\0\x1b\ud800'
SHOWN = ATTACK[:-3] + '\ufffd' * 3


@pytest.fixture
def attack(loaded):
    """Return a run with an attack in every string, also in names of files and of the run."""
    walk = loaded.record.sequences[0]
    camera = tuple(replace(frame, camera='left') for frame in walk.frames)
    record = replace(
        loaded.record, noted=(*loaded.record.noted, noted('gone.bag', topic='/a', position=1)),
        source={'bags': ['walk', {'of': 'them'}]},
        sequences=(walk, replace(walk, name='again', frames=camera)))
    return LoadedRun(hostile(record, ATTACK), loaded.folder, f'{SHOWN}first')


@pytest.mark.parametrize('count', [1, 2])
def test_names_are_text_and_never_markup(quick, loaded, attack, count):
    parsed, words = outline(text := render_report([attack, loaded][:count]))
    assert '<script' not in text and '<img src=x' not in text
    assert all(item.startswith(('data:', '#')) for item in parsed.references)
    # Strings are shown literally.
    for name in ('a walk', 'dog', 'train', 'walk', 'again', 'bags', 'of', 'them', 'small',
                 'policy', 'threshold(0.5)', 'cores', 'forecast', '1 missed <b>', 'The worst.',
                 'gone.png', '/a', *(['first'] if count == 2 else [])):
        assert f'{SHOWN}{name}' in words, name


def test_names_in_pictures_are_text_and_never_markup(attack):
    for name, draw in FIGURES.items():
        picture = as_svg(draw, attack.record, WIDE)
        # Letters are drawn as paths; each text also appears in a comment.
        assert '<script' not in picture and '<img' not in picture
        if name != 'latency':
            assert 'onerror=alert(1)&gt;' in picture, name
        elements = {item.tag.rpartition('}')[2] for item in ElementTree.fromstring(picture).iter()}
        assert 'svg' in elements and not elements & {'script', 'img', 'foreignObject'}


def test_two_runs_stand_side_by_side(quick, loaded):
    text = render_report([loaded, other(loaded)])
    _, words = outline(text)
    assert 'a walk and two' in words and 'first second change' in words
    assert 'frames 5 7 +2' in words and 'AP50 0.250 –' in words
    assert re.search(r'<tr class="differs"><td>policy</td><td>threshold\(0.5\)</td>'
                     r'<td>alternate\(1\)</td>', text)
    assert 'differs"><td>cores' not in text


def test_runs_of_the_same_name_are_distinguished(quick, loaded):
    assert 'A: first B: first' in outline(render_report([loaded, loaded]))[1]


def test_folder_or_file_of_a_run(quick, loaded, tmp_path):
    save_run(tmp_path / 'walk/run.json', loaded.record)
    assert load_for_report(tmp_path / 'walk') == load_for_report(tmp_path / 'walk/run.json')
    assert load_for_report(tmp_path / 'walk').name == 'walk'
    with pytest.raises(RunRecordError, match='no run.json in it'):
        load_for_report(tmp_path)
    write_report(tmp_path / 'new/report.html', [load_for_report(tmp_path / 'walk')])
    assert [item.name for item in (tmp_path / 'new').iterdir()] == ['report.html']


def test_folder_whose_name_is_not_text(quick, loaded, tmp_path):
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    save_run(folder / 'run.json', loaded.record)
    write_report(folder / 'two.html', [load_for_report(folder), loaded])
    assert '<th>caf?</th><th>first</th>' in (folder / 'two.html').read_text()


def test_a_run_without_frames_is_one_line(loaded):
    with pytest.raises(RunRecordError, match='first: has no frames'):
        render_report([replace(loaded, record=run(sequences=()))])


def test_missing_jinja2_is_one_clear_line(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    with pytest.raises(RunRecordError, match='pip install jinja2'):
        render_report([loaded])


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """Return a browser; skip the test if Chromium is not installed."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    with chromium(tmp_path_factory.mktemp('chromium') / 'profile') as opened:
        yield opened


@pytest.mark.parametrize('count', [1, 2])
def test_report_in_a_browser(browser, loaded, tmp_path, count):
    path = tmp_path / 'report.html'
    write_report(path, [loaded, other(loaded)][:count])
    for width in (1280, 390):
        browser.show(path, width)
        assert browser.complaints() == []
        assert browser.requests() == [path.as_uri()]
        images = browser.ask('[...document.images].map(i => [i.complete, i.naturalWidth, '
                             'i.getBoundingClientRect().right])')
        assert len(images) == (5 if count == 1 else 8)
        assert all(complete and size and right <= width for complete, size, right in images)
        # The page is not wider than the window, also on a phone; wide tables scroll.
        assert browser.ask('document.documentElement.scrollWidth') == width
        assert browser.ask('document.title').startswith('a walk')
        shown = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape[1] == width and shown.shape[0] > 1500 and shown.std() > 10
    assert browser.paper().startswith(b'%PDF')


def test_complaints_of_the_browser_are_noticed(browser, tmp_path):
    page = tmp_path / 'page.html'
    page.write_text('<!DOCTYPE html><title>x</title><img src="none.png">'
                    '<script>console.error("spoken"); nothing()</script>')
    browser.show(page, 600)
    said = ' '.join(browser.complaints())
    assert all(word in said for word in ('"spoken"', 'nothing is not defined', 'NOT_FOUND'))
    assert any(address.endswith('none.png') for address in browser.requests())
