# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of the documentation, docs/images/*.svg: ``python -m dev.draw_docs``."""
import ast
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
import sys

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / 'docs' / 'images'
PACKAGE = ROOT / 'forecast_detector_ros'

# Visible on white and on black: boxes are light with dark text, lines and other text are grey.
FILLS = {'plain': '#dbe7f7', 'read': '#d5efd9', 'forecast': '#f8d9d5', 'end': '#eee3c8'}
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="sans-serif" font-size="15" text-anchor="middle">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" \
orient="auto"><path d="M0 0L8 4L0 8z" fill="#7a8699"/></marker></defs>
"""


class Picture:
    """Boxes with lines of text, and arrows between points; coordinates are pixels."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.width = self.height = 0

    def box(self, x: int, y: int, lines: Sequence[str], kind: str = 'plain',
            size: tuple[int, int] = (150, 50)) -> None:
        """Draw a box with its centre at x, y; the first line is bold."""
        width, height = size
        self.width = max(self.width, x + width // 2 + 10)
        self.height = max(self.height, y + height // 2 + 10)
        self.parts.append(f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" '
                          f'height="{height}" rx="6" fill="{FILLS[kind]}" stroke="#7a8699"/>')
        top = y + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            style = ' font-weight="bold"' if number == 0 else ' font-size="12"'
            self.parts.append(f'<text x="{x}" y="{top + 18 * number}" fill="#1c2733"{style}>'
                              f'{escape(line)}</text>')

    def arrow(self, *points: tuple[int, int], text: str = '') -> None:
        """Draw an arrow along the points; the text is beside the middle of its first part."""
        path = 'M' + 'L'.join(f'{x} {y}' for x, y in points)
        self.parts.append(f'<path d="{path}" fill="none" stroke="#7a8699" stroke-width="1.5" '
                          'marker-end="url(#tip)"/>')
        if text:
            (ax, ay), (bx, by) = points[:2]
            self.parts.append(f'<text x="{(ax + bx) // 2 + 6}" y="{(ay + by) // 2 - 4}" '
                              f'fill="#7a8699" font-size="12" text-anchor="start">'
                              f'{escape(text)}</text>')

    def label(self, x: int, y: int, text: str) -> None:
        """Write a text that begins at x, y."""
        self.parts.append(f'<text x="{x}" y="{y}" fill="#7a8699" text-anchor="start">'
                          f'{escape(text)}</text>')

    def text(self) -> str:
        """Return the picture as SVG."""
        return (HEAD.format(width=self.width, height=self.height) + '\n'.join(self.parts)
                + '\n</svg>\n')


def imports(room: Path, rooms: Iterable[str]) -> set[str]:
    """Return the rooms that the modules of a room import."""
    found = set()
    for path in room.rglob('*.py'):
        depth = len(path.relative_to(PACKAGE).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
                found |= ({node.module.split('.')[0]} if node.module
                          else {alias.name for alias in node.names})
    return (found & set(rooms)) - {room.name}


def rooms() -> str:
    """Draw every room with the rooms that it imports, each above what it imports."""
    names = sorted(path.parent.name for path in PACKAGE.glob('*/__init__.py'))
    below = {name: imports(PACKAGE / name, names) for name in names}

    def level(name: str) -> int:
        return 1 + max((level(other) for other in below[name]), default=-1)

    rows: dict[int, list[str]] = {}
    for name in names:
        rows.setdefault(level(name), []).append(name)
    robot, todo = set(), ['node']
    while todo:
        robot.add(name := todo.pop())
        todo += below[name] - robot
    picture = Picture()
    for number, row in enumerate(sorted(rows, reverse=True)):
        for column, name in enumerate(rows[row]):
            lines, words = [name], sorted(below[name])
            lines += [' '.join(words[start:start + 3]) for start in range(0, len(words), 3)]
            picture.box(125 + 235 * column, 70 + 130 * number, lines,
                        'read' if name in robot else 'plain', (222, 120))
    picture.label(14, picture.height + 12, 'Under each room: the rooms that it imports. '
                  'Green: what a robot imports.')
    picture.height += 24
    return picture.text()


def frame() -> str:
    """Draw the processing of a frame in the node."""
    picture = Picture()
    picture.box(360, 35, ['image', 'the newest of its camera'], 'end', (190, 50))
    picture.box(360, 120, ['header', 'size, encoding, stamp'], size=(190, 50))
    picture.box(360, 205, ['decide', 'limits, budget, policy'], size=(190, 50))
    picture.box(150, 300, ['read', 'decode, resize'], 'read', (190, 50))
    picture.box(150, 385, ['read step', 'backbone, motion, head'], 'read', (190, 50))
    picture.box(570, 300, ['forecast', 'image is not touched'], 'forecast', (190, 50))
    picture.box(570, 385, ['forecast step', 'boxes of the read move on'], 'forecast', (190, 50))
    picture.box(360, 385, ['state', 'of this camera'], size=(130, 50))
    picture.box(360, 475, ['post-processing', 'scores, NMS, numbers'], size=(190, 50))
    picture.box(250, 565, ['detections'], 'end', (150, 40))
    picture.box(470, 565, ['decision'], 'end', (150, 40))
    picture.arrow((360, 60), (360, 94))
    picture.arrow((360, 145), (360, 179))
    picture.arrow((265, 205), (150, 205), (150, 274))
    picture.arrow((455, 205), (570, 205), (570, 274))
    picture.arrow((150, 325), (150, 359))
    picture.arrow((570, 325), (570, 359))
    picture.arrow((245, 385), (294, 385))
    picture.arrow((425, 385), (474, 385))
    picture.arrow((360, 360), (360, 231), text='confidence')
    picture.arrow((150, 410), (150, 475), (264, 475))
    picture.arrow((570, 410), (570, 475), (456, 475))
    picture.arrow((320, 500), (250, 544))
    picture.arrow((400, 500), (470, 544))
    return picture.text()


def network() -> str:
    """Draw the two steps of a network that forecasts motion."""
    picture = Picture()
    picture.label(20, 24, 'Green: in a read step alone. Red: in both steps.')
    picture.box(110, 70, ['image', 'uint8 BGR'], 'end')
    picture.box(110, 160, ['extractor', 'strides 8, 16, 32'], 'read')
    picture.box(110, 250, ['head', 'with a top-down path'], 'read', (180, 50))
    picture.box(350, 160, ['motion encoder', 'LSTM, correlations'], 'read', (180, 50))
    picture.box(350, 70, ['state', 'keys, memory'])
    picture.box(350, 250, ['motion', 'eight numbers a cell'])
    picture.box(350, 340, ['displacement', 'motion, ahead'], 'forecast', (180, 50))
    picture.box(590, 160, ['summary'])
    picture.box(590, 250, ['scheduler', 'summary, ahead'], 'forecast', (180, 50))
    picture.box(110, 340, ['logits, offsets', 'of the last read'], 'plain', (180, 50))
    picture.box(230, 430, ['detections', 'after NMS'], 'end', (180, 50))
    picture.box(590, 430, ['confidence', 'of the next forecast'], 'end', (180, 50))
    picture.arrow((110, 95), (110, 134))
    picture.arrow((110, 185), (110, 224))
    picture.arrow((185, 160), (259, 160), text='keys')
    picture.arrow((350, 95), (350, 134))
    picture.arrow((350, 185), (350, 224))
    picture.arrow((440, 160), (514, 160))
    picture.arrow((590, 185), (590, 224))
    picture.arrow((425, 250), (499, 250))
    picture.arrow((110, 275), (110, 314))
    picture.arrow((350, 275), (350, 314))
    picture.arrow((110, 365), (190, 404))
    picture.arrow((350, 365), (270, 404))
    picture.arrow((590, 275), (590, 404))
    return picture.text()


PICTURES = {'rooms.svg': rooms, 'frame.svg': frame, 'network.svg': network}


def main() -> int:
    """Write the pictures; return the exit code."""
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw())
    return 0


if __name__ == '__main__':
    sys.exit(main())
