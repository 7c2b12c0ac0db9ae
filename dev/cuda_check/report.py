# SPDX-License-Identifier: Apache-2.0
"""What a check found, as Markdown."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {'machine': 'Machine', 'tests': 'Tests',
          'precisions': 'Precisions against fp32 on the processor',
          'speed': 'Steps, frames and rivals', 'preprocess': 'Before the network',
          'compile': 'torch.compile', 'onnx': "ONNX Runtime's providers"}

TIMING = ('name', 'batch', 'median_ms', 'p95_ms', 'noise', 'runs')


def as_markdown(report: Mapping[str, Any]) -> str:
    """Give the report of a run, also of one that is not over."""
    what = 'A dry run on the processor' if report['dry_run'] else 'A check on a CUDA device'
    lines = [f'# {what}', '', f'{report["seconds"]} s of at most {report["limit_s"]:g} s.', '']
    lines += _table(('part', 'status', 'seconds', 'why'),
                    [[name, part['status'], part.get('seconds', ''), part.get('why', '')]
                     for name, part in report['parts'].items()])
    for name, part in report['parts'].items():
        lines += ['', f'## {TITLES[name]}', '']
        facts = part.get('facts', {})
        if facts:
            lines += _table(('', ''), [[key, value] for key, value in facts.items()])
            lines.append('')
        for key, rows in part.get('tables', {}).items():
            if rows:
                head = TIMING if key == 'timings' else tuple(rows[0])
                lines += [f'{key}:', '',
                          *_table(head, [[row.get(column, '') for column in head]
                                         for row in rows]), '']
        lines += [f'- {note}' for note in part.get('notes', ())]
    return '\n'.join(lines).rstrip() + '\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [_line(head), _line(['---'] * len(head)), *(_line(row) for row in rows)]


def _line(cells: Sequence[Any]) -> str:
    return '| ' + ' | '.join(_cell(cell) for cell in cells) + ' |'


def _cell(value: Any) -> str:
    text = f'{value:.3g}' if isinstance(value, float) else str(value)
    return ' '.join(text.split()).replace('|', '\\|')
